"""What looks after the arm every few milliseconds, and how the server asks it for something."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from uva_lightning.robot.arm import ArmState, JointTrajectory, Receipt
from uva_lightning.robot.arm_model import ArmModel
from uva_lightning.robot.chain import Array
from uva_lightning.robot.keeper import Keeper, Mode
from uva_lightning.robot.limits import Limits

EVENTS = 256
"""Newest events that are kept until somebody asks for them."""


@dataclass(frozen=True)
class Event:
    """Something that happened.

    Args:
        time: s.
        kind: Name of it.
        text: In a sentence.
    """

    time: float
    kind: str
    text: str


@dataclass(frozen=True)
class Status:
    """How an arm is.

    Args:
        time: Of the last tick, s.
        mode: Its state.
        reason: Why it is in it.
        state: Newest measurement; None where there is none.
        set_point: That the arm got last, f64[j + 1] with the opening of the gripper; None where it is soft.
    """

    time: float
    mode: Mode
    reason: str
    state: ArmState | None
    set_point: Array | None = None


class Driver(ABC):
    """An arm behind its keeper, in this process or in another one; times are those of the machine's own clock."""

    model: ArmModel
    limits: Limits
    harmless: bool
    """Whether the arm is a simulation."""

    @abstractmethod
    def ask(self, verb: str, now: float, **values: Any) -> Receipt | None:
        """Ask the keeper for something: one of ``VERBS``; give what it says to ``send``.

        Raises:
            RobotError: What the keeper says to it.
            DriverDead: It says nothing.
        """

    @abstractmethod
    def beat(self, heard: float) -> None:
        """Pass on that the one who moves the arm said at this time, in s, that it is there; without waiting."""

    @abstractmethod
    def status(self) -> Status:
        """Give what is known of the arm, without waiting.

        Raises:
            DriverDead: It hangs or has ended.
        """

    @abstractmethod
    def events(self) -> list[Event]:
        """Give what has happened since this was asked last."""

    @abstractmethod
    def close(self) -> None:
        """Have the arm park and go soft, and end; never raises."""


class LocalDriver(Driver):
    """Drive in this process; something else has to call ``tick`` every period.

    Args:
        make: Makes the keeper; called with the function that is told of events.
        clock: Gives the time in s.
    """

    def __init__(self, make: Callable[[Callable[[str, str], object]], Keeper], clock: Callable[[], float]) -> None:
        self.clock, self._events = clock, deque[Event](maxlen=EVENTS)
        self.keeper = make(lambda kind, text: self._events.append(Event(self.clock(), kind, text)))
        self.model, self.limits = self.keeper.arm.model, self.keeper.limits
        self.harmless = self.keeper.arm.harmless
        self.ticked = clock()
        self._last: ArmState | None = None

    def ask(self, verb: str, now: float, **values: Any) -> Receipt | None:
        """Ask the keeper."""
        return carry_out(self.keeper, verb, now, values)

    def beat(self, heard: float) -> None:
        """Tell the keeper."""
        self.keeper.heartbeat(heard)

    def status(self) -> Status:
        """Give what the last tick has seen."""
        keeper = self.keeper
        return Status(self.ticked, keeper.mode, keeper.reason, self._last, keeper.set_point)

    def events(self) -> list[Event]:
        """Give them."""
        found = list(self._events)
        self._events.clear()
        return found

    def tick(self, now: float) -> None:
        """Look after the arm."""
        self._last, self.ticked = self.keeper.tick(now), now

    def close(self) -> None:
        """Go soft where the arm is; who closes in an orderly way parks first."""
        self.keeper.close()


VERBS: Mapping[str, Callable[[Keeper, float, Mapping[str, Any]], Receipt | None]] = {
    "connect": lambda keeper, now, values: keeper.connect(now, values["timeout"]),
    "home": lambda keeper, now, values: keeper.home(now),
    "allow": lambda keeper, now, values: keeper.allow(now),
    "begin": lambda keeper, now, values: keeper.begin(now),
    "heartbeat": lambda keeper, now, values: keeper.heartbeat(values["heard"]),
    "send": lambda keeper, now, values: keeper.send(JointTrajectory(**values), now),
    "pause": lambda keeper, now, values: keeper.pause(now, values["reason"]),
    "hold": lambda keeper, now, values: keeper.hold(now, values["reason"]),
    "park": lambda keeper, now, values: keeper.park(now, values["reason"]),
    "damp": lambda keeper, now, values: keeper.damp(now, values["reason"]),
    "stop": lambda keeper, now, values: keeper.stop(now, values["reason"]),
    "reset": lambda keeper, now, values: keeper.reset(now),
}
"""What a keeper can be asked for."""


def carry_out(keeper: Keeper, verb: str, now: float, values: Mapping[str, Any]) -> Receipt | None:
    """Call what a verb stands for; give what the keeper says to ``send``.

    Raises:
        RobotError: What the keeper says to it.
    """
    return VERBS[verb](keeper, now, values)
