"""What happens with episodes that cannot be read: the run stops, or it goes on without them and says so."""

from __future__ import annotations

from typing import Literal

from lightning.pytorch.utilities import rank_zero_warn

OnError = Literal["stop", "skip"]
SHOWN = 3
"""Messages that a report spells out."""


class Broken(ValueError):
    """An episode cannot be read; the message names file, episode, what is wrong, and the fix."""


class Faults:
    """Collects what is broken.

    Args:
        on_error: ``stop`` at the first fault, or ``skip`` the episode and count it.
    """

    def __init__(self, on_error: OnError = "stop") -> None:
        if on_error not in ("stop", "skip"):
            raise ValueError(f"on_error is '{on_error}', expected stop or skip; set data.reading.on_error.")
        self.on_error = on_error
        self.found: list[Broken] = []

    @property
    def skips(self) -> bool:
        """Whether broken episodes are left out."""
        return self.on_error == "skip"

    def add(self, fault: Broken) -> None:
        """Note a broken episode, which the caller then leaves out.

        Raises:
            Broken: The fault itself, where the run is to stop.
        """
        if not self.skips:
            raise fault
        self.found.append(fault)

    def report(self, path: object, episodes: int) -> None:
        """Warn once about all that was left out.

        Args:
            path: What was read.
            episodes: Episodes that are whole.

        Raises:
            Broken: None is whole.
        """
        if not self.found:
            return
        listed = " ".join(str(fault) for fault in self.found[:SHOWN])
        more = f" And {len(self.found) - SHOWN} more." if len(self.found) > SHOWN else ""
        told = f"{path}: {len(self.found)} broken episodes were left out, {episodes} are whole. {listed}{more}"
        if not episodes:
            raise Broken(told)
        rank_zero_warn(told)
