"""Jumps: a step far beyond what is ordinary in its column."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from uva_lightning.inspection.checks.base import Check, Finding, Tally
from uva_lightning.inspection.subject import Look, Numbers, Scale, Subject

TIMES_STEP = 15.0
"""A jump is so many times the median step (which is 1.5 standard deviations of a bell curve's),"""
TIMES_STRIDE = 3.0
"""so many times the size that 99 % of the steps do not exceed,"""
SHARE, ACTION_SHARE = 0.2, 0.5
"""and this share of the ordinary range; more of it in actions, as a person's hand is quicker than a robot."""
FEW = 8
"""A column with no more distinct values is a switch, such as a gripper's command."""
NEAR = 0.5
"""Rotations this near to each other, in rad, are neighbours."""


class Jumps(Check):
    """Steps of action or state that the robot cannot have made. In an action alone they may be meant: a warning."""

    title: ClassVar[str] = "jumps"

    def __init__(self, subject: Subject) -> None:
        super().__init__(subject)
        self.states, self.actions = Tally(), Tally()

    def see(self, look: Look) -> None:
        """See the base class."""
        for name, values in look.numbers.items():
            measured = name in self.subject.store.state
            found = jumps(values, self.subject.scales[name], SHARE if measured else ACTION_SHARE)
            if len(found):
                step, column = (int(number) for number in found[0])
                what = f"{name}[{column}] goes from {values[step - 1, column]:.4g} to {values[step, column]:.4g}"
                tally = self.states if measured else self.actions
                tally.add(look, step, len(np.unique(found[:, 0])), what)

    def finish(self) -> Finding:
        """See the base class."""
        states, actions = self.states, self.actions
        if not states.count + actions.count:
            return Finding("ok", "no step stands out")
        said = " and ".join(f"{tally.count} in {what}" for what, tally in (("states", states), ("actions", actions)))
        return Finding(
            "FAIL" if states.count else "warn",
            f"steps beyond anything ordinary, {said}",
            states.count + actions.count,
            states.first or actions.first,
            "look at these steps; cut the episode there, or leave it out",
        )


def jumps(values: Numbers, scale: Scale, share: float = SHARE) -> NDArray[np.int64]:
    """Find jumps, i64[k, 2]: step and column; full turns of angles, sign flips of quaternions and switches are none.

    Args:
        values: f32[n, w], one episode.
        scale: What is ordinary.
        share: Share of the ordinary range from which a step may be a jump.
    """
    change = np.diff(values.astype(np.float64), axis=0)
    bound = np.maximum.reduce([TIMES_STEP * scale.step, TIMES_STRIDE * scale.stride, share * scale.span])
    found = (np.abs(change) > bound) & (scale.levels > FEW)
    places = np.argwhere(found)
    real = [not _same_pose(values[step].astype(np.float64), change[step], column) for step, column in places.tolist()]
    return (places + (1, 0))[np.array(real, dtype=bool)] if len(places) else places


def _same_pose(before: NDArray[np.float64], change: NDArray[np.float64], column: int) -> bool:
    """Tell whether the column may belong to a rotation that is written another way, but is nearly the same."""
    if abs(abs(change[column]) - 2 * np.pi) < NEAR and abs(before[column]) <= 2 * np.pi:
        return True  # a full turn
    for first in range(max(0, column - 2), min(column, len(before) - 3) + 1):  # axis times angle
        old = before[first : first + 3]
        new = old + change[first : first + 3]
        if _near(_quaternion(old), _quaternion(new)) and min(np.linalg.norm(old), np.linalg.norm(new)) > np.pi - NEAR:
            return True
    for first in range(max(0, column - 3), min(column, len(before) - 4) + 1):
        old = before[first : first + 4]
        new = old + change[first : first + 4]
        if abs(np.linalg.norm(old) - 1) < 0.01 and abs(np.linalg.norm(new) - 1) < 0.01 and _near(old, new):
            return True
    return False


def _quaternion(vector: NDArray[np.float64]) -> NDArray[np.float64]:
    angle = float(np.linalg.norm(vector))
    return np.concatenate([[np.cos(angle / 2)], np.sinc(angle / (2 * np.pi)) * vector / 2])


def _near(one: NDArray[np.float64], other: NDArray[np.float64]) -> bool:
    return 2 * float(np.arccos(min(1.0, abs(float(one @ other))))) < NEAR
