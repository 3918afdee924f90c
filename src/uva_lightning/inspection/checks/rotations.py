"""Rotations that are none: quaternions of another length than 1, rotation-6d that is not orthonormal."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from uva_lightning.inspection.checks.base import Check, Finding, Tally
from uva_lightning.inspection.subject import Look, Numbers, Subject

SHARE = 0.95
"""Columns hold a rotation where so many of their steps are one."""
EXACT, OFF = 0.002, 0.05
"""Error of a length that a rotation may have, and from which it is none."""
ROWS = 20_000
QUATERNION, SIX = 4, 6


class Rotations(Check):
    """Columns that hold rotations nearly everywhere, and steps where they do not. What columns mean is not asked."""

    title: ClassVar[str] = "rotations"

    def __init__(self, subject: Subject) -> None:
        super().__init__(subject)
        self.places = {name: rotation_columns(values) for name, values in subject.store.numbers().items()}
        self.bad = Tally()

    def see(self, look: Look) -> None:
        """See the base class."""
        for name, places in self.places.items():
            for first, width in places:
                off = np.flatnonzero(error(look.numbers[name][:, first : first + width]) > OFF)
                if len(off):
                    self.bad.add(look, int(off[0]), len(off), f"{name}[{first}:{first + width}]")

    def finish(self) -> Finding:
        """See the base class."""
        found = [f"{name}[{at}:{at + width}]" for name, places in self.places.items() for at, width in places]
        if not found:
            return Finding("-", "no columns that are unit quaternions or rotation-6d")
        if not self.bad.count:
            return Finding("ok", f"rotations in {', '.join(found)}")
        return Finding(
            "FAIL",
            "steps whose rotation is none",
            self.bad.count,
            self.bad.first,
            "normalise them where they are recorded, or leave the episodes out",
        )


def rotation_columns(values: Numbers) -> list[tuple[int, int]]:
    """Find columns of f32[n, w] that hold unit quaternions or rotation-6d: first column and width, 4 or 6."""
    rows = values[:: -(-len(values) // ROWS)]
    moving = rows.std(axis=0) > 1e-4
    candidates = []
    for width in (SIX, QUATERNION):
        for first in range(values.shape[1] - width + 1):
            own, wrong = slice(first, first + width), error(rows[:, first : first + width])
            if moving[own].sum() >= 2 and (wrong < EXACT).mean() >= SHARE:
                candidates.append((-width, float(np.median(wrong)), first))
    places: list[tuple[int, int]] = []
    for width, _, first in sorted(candidates):  # neighbours that are nearly one by chance have larger errors
        if all(first - width <= at or at + taken <= first for at, taken in places):
            places.append((first, -width))
    return sorted(places)


def error(values: Numbers) -> NDArray[np.float32]:
    """Say how far f32[n, 4] or f32[n, 6] are from rotations: f32[n]."""
    if values.shape[1] == QUATERNION:
        return np.abs(np.linalg.norm(values, axis=1) - 1)
    one, two = values[:, :3], values[:, 3:]
    lengths = [np.abs(np.linalg.norm(part, axis=1) - 1) for part in (one, two)]
    return np.maximum.reduce([*lengths, np.abs((one * two).sum(axis=1))])
