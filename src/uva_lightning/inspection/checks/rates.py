"""Wrong rates: clocks of the source that disagree with the facts, and pictures that come in twos or threes."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from uva_lightning.inspection.checks.base import Check, Finding, Tally
from uva_lightning.inspection.checks.pictures import SAME
from uva_lightning.inspection.clocks import read_clocks
from uva_lightning.inspection.subject import Look, Subject

TOLERANCE = 0.02
"""Relative error of a rate."""
STILL = 0.01
"""Share of its range by which the robot must move between two pictures for their difference to tell something."""
FURTHEST, ENOUGH = 6, 20
PERIODIC, UNEVEN = 0.8, 0.25


class Clocks(Check):
    """Time stamps and video streams of the source against the rate of the facts."""

    title: ClassVar[str] = "rate of the clocks"

    def finish(self) -> Finding:
        """See the base class."""
        rate, found = self.subject.rate_hz, 0
        wrong = Tally()
        for path in self.subject.data.recordings():
            for clock in read_clocks(path):
                found += 1
                if not abs(clock.rate_hz / rate - 1) <= TOLERANCE:
                    wrong.first = wrong.first or f"{clock.name}: {clock.rate_hz:.4g} Hz"
                    wrong.count += 1
        if not found:
            return Finding("-", "the source has no time stamps and no videos")
        if not wrong.count:
            return Finding("ok", f"{found} clocks run at {rate:g} Hz")
        return Finding(
            "FAIL",
            f"clocks that do not run at the {rate:g} Hz of the facts",
            wrong.count,
            wrong.first,
            "set rate_hz in the facts to what the clocks say, or resample the recordings",
        )


class RepeatedFrames(Check):
    """Pictures that repeat in a regular pattern while the robot moves: the camera was slower than the rate says."""

    title: ClassVar[str] = "repeated pictures"

    def __init__(self, subject: Subject) -> None:
        super().__init__(subject)
        self.intervals = {camera: np.zeros(FURTHEST + 1, dtype=np.int64) for camera in subject.store.video}
        self.first: dict[str, Tally] = {camera: Tally() for camera in subject.store.video}

    def see(self, look: Look) -> None:
        """Count the steps from one new picture to the next."""
        for camera, shots in look.shots.items():
            new = np.flatnonzero(shots.change >= SAME)
            for first, last in zip(new[:-1].tolist(), new[1:].tolist(), strict=True):
                moved = self.subject.motion(look, first, last)
                if moved is None or moved > STILL:
                    self.intervals[camera][min(last - first, FURTHEST)] += 1
                    if 1 < last - first < FURTHEST:
                        self.first[camera].add(look, first + 1)

    def finish(self) -> Finding:
        """See the base class."""
        for camera, counts in self.intervals.items():
            if (total := counts.sum()) < ENOUGH:
                continue
            tally, period = self.first[camera], int(np.argmax(counts))
            if 1 < period < FURTHEST and counts[period] >= PERIODIC * total:
                return Finding(
                    "FAIL",
                    f"{camera} has a new picture every {period} steps only: the rate is {period} times too high",
                    tally.count,
                    tally.first,
                    f"resample to {self.subject.rate_hz / period:g} Hz, or set data.window.every={period}",
                )
            if counts[2:4].sum() >= UNEVEN * total and counts[1:4].sum() >= (1 - UNEVEN / 2) * total:
                mean = float((np.arange(FURTHEST + 1) * counts).sum() / total)
                return Finding(
                    "warn",
                    f"{camera} repeats pictures while the robot moves: about {self.subject.rate_hz / mean:.3g} a "
                    f"second are new, of {self.subject.rate_hz:g}",
                    tally.count,
                    tally.first,
                    "record or convert at the camera's own rate",
                )
        return Finding("ok" if self.intervals else "-", "no pattern of repeated pictures")
