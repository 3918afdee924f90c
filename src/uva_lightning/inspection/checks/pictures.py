"""Pictures that show nothing, or stand still while the robot moves."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from uva_lightning.inspection.checks.base import Check, Finding, Tally
from uva_lightning.inspection.subject import Look, Subject

DARK, PLAIN = 6.0, 1.5
"""Brightness and its spread, of 255, up to which a picture is black or of one colour."""
SAME = 2.0
"""Largest difference of a cell, of 255, that a video codec makes between equal pictures."""
SECONDS, STEPS = 0.5, 5
"""Pictures are frozen if they stay equal for so long,"""
MOVED = 0.05
"""while the robot goes through this share of its range."""


class BlankFrames(Check):
    """Pictures that are black or of one colour."""

    title: ClassVar[str] = "blank pictures"

    def __init__(self, subject: Subject) -> None:
        super().__init__(subject)
        self.blank = Tally()

    def see(self, look: Look) -> None:
        """See the base class."""
        for camera, shots in look.shots.items():
            blank = ((shots.level < DARK) & (shots.spread < DARK)) | (shots.spread < PLAIN)
            if blank.any():
                self.blank.add(look, int(np.argmax(blank)), int(blank.sum()), camera)

    def finish(self) -> Finding:
        """See the base class."""
        if not self.blank.count:
            return Finding("ok", "none is black or of one colour")
        return Finding(
            "FAIL",
            "pictures that are black or of one colour",
            self.blank.count,
            self.blank.first,
            "leave these episodes out (data.reading.episodes), or copy the videos again",
        )


class FrozenFrames(Check):
    """Equal pictures in a row while the robot moves; a still scene is not frozen."""

    title: ClassVar[str] = "frozen pictures"

    def __init__(self, subject: Subject) -> None:
        super().__init__(subject)
        self.least = max(STEPS, round(SECONDS * subject.rate_hz))
        self.frozen, self.unsure = Tally(), Tally()

    def see(self, look: Look) -> None:
        """See the base class."""
        for camera, shots in look.shots.items():
            for first, last in runs(shots.change < SAME, self.least):
                moved = self.subject.motion(look, first, last)
                what = f"{camera} stands still for {last - first} steps"
                if moved is None:
                    self.unsure.add(look, first, what=what)
                elif moved > MOVED:
                    self.frozen.add(look, first, what=what)

    def finish(self) -> Finding:
        """See the base class."""
        fix = "cut these steps, or leave the episodes out (data.reading.episodes)"
        if self.frozen.count:
            return Finding(
                "FAIL", "pictures stand still, the robot does not", self.frozen.count, self.frozen.first, fix
            )
        if self.unsure.count:
            said = "pictures stand still, and there are no numbers to tell whether anything moved"
            return Finding("warn", said, self.unsure.count, self.unsure.first, fix)
        return Finding("ok", "pictures change when the robot moves")


def runs(held: NDArray[np.bool_], least: int) -> list[tuple[int, int]]:
    """Find runs of True of a least length: first and one past the last."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], held, [False]]).astype(np.int8)))
    return [(int(first), int(last)) for first, last in edges.reshape(-1, 2) if last - first >= least]
