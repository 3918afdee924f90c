"""The person beside the robot, who allows every episode and says how it went."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from enum import StrEnum


class Label(StrEnum):
    """How an episode went; one that says nothing about the policy is invalid, not a failure."""

    SUCCESS = "success"
    FAILURE = "failure"
    INVALID = "invalid"


class Operator(ABC):
    """Somebody who looks at the robot. None of these may wait without an end: who is silent says no, or invalid."""

    @abstractmethod
    def confirm(self, episode: int) -> bool:
        """Allow an episode, once the scene is set up and nobody is in reach."""

    @abstractmethod
    def label(self, episode: int) -> Label:
        """Say how it went, after it has ended."""

    @abstractmethod
    def should_stop(self) -> bool:
        """Tell whether the episode is over; asked at every step, so at once."""


class ScriptedOperator(Operator):
    """Decide by functions: in simulation the scene is known, and tests want the same every time.

    Args:
        allow: Called with the number of the episode; says whether it may begin.
        judge: Called at the end.
        done: Called at every step; never if not given.
    """

    def __init__(
        self,
        allow: Callable[[int], bool],
        judge: Callable[[], Label],
        done: Callable[[], bool] = lambda: False,
    ) -> None:
        self._allow, self._judge, self._done = allow, judge, done

    def confirm(self, episode: int) -> bool:
        """Ask the function."""
        return self._allow(episode)

    def label(self, episode: int) -> Label:
        """Ask the function."""
        return self._judge()

    def should_stop(self) -> bool:
        """Ask the function."""
        return self._done()
