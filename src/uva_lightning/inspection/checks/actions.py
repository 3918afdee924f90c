"""Actions that teach nothing: constant or saturated ones."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from uva_lightning.inspection.checks.base import Check, Finding, Tally
from uva_lightning.inspection.checks.jumps import FEW
from uva_lightning.inspection.subject import Look, Subject

CONSTANT = 1e-5
"""Standard deviation, as a share of the largest size, below which a column is constant."""
SATURATED = 0.2
"""Share of the steps at one bound of a column from which it looks clipped."""
ACTION = "action"


class ConstantActions(Check):
    """Columns that never change, and episodes in which nothing is asked of the robot."""

    title: ClassVar[str] = "constant actions"

    def __init__(self, subject: Subject) -> None:
        super().__init__(subject)
        self.idle = Tally()

    def see(self, look: Look) -> None:
        """See the base class."""
        if ACTION in look.numbers and len(look.numbers[ACTION]) > 1 and not np.ptp(look.numbers[ACTION], axis=0).any():
            self.idle.add(look)

    def finish(self) -> Finding:
        """See the base class."""
        action = self.subject.store.action
        if action is None:
            return Finding("-", "no actions are recorded")
        still = np.flatnonzero(action.std(axis=0, dtype=np.float64) <= CONSTANT * np.abs(action).max(axis=0))
        fix = "check which field holds the actions, or record them anew"
        if len(still) == action.shape[1]:
            return Finding("FAIL", "no action ever changes", len(still), self.idle.first, fix)
        if len(still):
            return Finding("warn", f"columns {still.tolist()} of the action never change", len(still), "", fix)
        if self.idle.count:
            return Finding(
                "warn", "episodes in which no action changes", self.idle.count, self.idle.first, "leave them out"
            )
        return Finding("ok", "all columns change")


class SaturatedActions(Check):
    """Columns that lie at their smallest or largest value for a good part of the time; switches may."""

    title: ClassVar[str] = "saturated actions"

    def __init__(self, subject: Subject) -> None:
        super().__init__(subject)
        action = subject.store.action
        self.bounds = None if action is None else (action.min(axis=0), action.max(axis=0))
        self.hits = np.zeros((2, 0 if action is None else action.shape[1]), dtype=np.int64)
        self.first: dict[int, str] = {}

    def see(self, look: Look) -> None:
        """See the base class."""
        if self.bounds is None:
            return
        at = np.stack([look.numbers[ACTION] == bound for bound in self.bounds])  # bool[2, n, a]
        self.hits += at.sum(axis=1)
        for column in np.flatnonzero(at.any(axis=(0, 1))).tolist():
            self.first.setdefault(column, f"{look.name}, step {int(np.argmax(at[:, :, column].any(axis=0)))}")

    def finish(self) -> Finding:
        """See the base class."""
        if self.bounds is None:
            return Finding("-", "no actions are recorded")
        share = self.hits.max(axis=0) / self.subject.store.steps
        full = np.flatnonzero((share > SATURATED) & (self.subject.scales[ACTION].levels > FEW))
        if not len(full):
            return Finding("ok", "bounds are rarely reached")
        return Finding(
            "warn",
            f"columns {full.tolist()} of the action lie at a bound in {share[full].max():.0%} of the steps",
            int(self.hits.max(axis=0)[full].sum()),
            self.first[int(full[0])],
            "check whether they were clipped when recorded",
        )
