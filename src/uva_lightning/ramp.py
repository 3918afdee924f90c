"""Shares that move from one set to another, a warm-up of objectives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from uva_lightning.global_batch import GlobalBatch
from uva_lightning.objective import Objective
from uva_lightning.sampler import ObjectiveSampler, Plan


class Ramp(ObjectiveSampler):
    """Move from some shares to others in a straight line, then stay.

    At any time an objective has been served what its shares so far add up to, to within one or two samples. All follows
    from seed and step alone.

    Args:
        objectives: Objectives by name.
        start: Relative share of each at first; those that are left out begin at 0.
        end: Relative share of each from ``steps`` on; those that are left out end at 0.
        steps: Batches until then, at least 1.
        seed: Seed of the assignment.
    """

    def __init__(
        self,
        objectives: Mapping[str, Objective],
        start: dict[str, float],
        end: dict[str, float],
        steps: int,
        seed: int = 0,
    ) -> None:
        if steps < 1:
            raise ValueError(f"Ramp has {steps} steps, expected at least 1 batch; set model.sampler.init_args.steps.")
        for name, shares in {"start": start, "end": end}.items():
            if unknown := set(shares) - set(objectives):
                raise ValueError(
                    f"Ramp.{name} has shares of {sorted(unknown)}, but the objectives are {sorted(objectives)}; rename "
                    "or remove them."
                )
        nothing = dict.fromkeys(objectives, 0.0)
        self._before = ObjectiveSampler(objectives, nothing | start, seed)
        self._after = ObjectiveSampler(objectives, nothing | end, seed + 1)
        halves = {name: share + self._after.shares[name] for name, share in self._before.shares.items()}
        super().__init__(objectives, halves, seed)
        self.steps = steps

    def __call__(self, step: int, present: Mapping[str, Tensor], whole: GlobalBatch | None = None) -> Plan:
        """See the base class."""
        if step >= self.steps:
            return self._after(step - self.steps, present, whole)
        return super().__call__(step, present, whole)

    def check(self, sets: Mapping[str, Mapping[str, Tensor]]) -> bool:
        """See the base class; what the shares come to is looked at before the first step, too."""
        alike = super().check(sets)
        return self._after.check(sets) and alike

    def _counts(self, step: int, samples: int, usable: Sequence[bool]) -> list[int]:
        """See the base class."""
        start, end = (
            tuple(share * use for share, use in zip(sampler.shares.values(), usable, strict=True))
            for sampler in (self._before, self._after)
        )
        return [int(count) for count in ramp_counts(start, end, self.steps, samples)[step]]


@lru_cache(maxsize=16)
def ramp_counts(start: tuple[float, ...], end: tuple[float, ...], steps: int, samples: int) -> NDArray[np.int64]:
    """Split batches by shares that change with each of them.

    The share of a batch is that in its middle, so that none is 0 on the way to something else. Each objective has as
    many samples as its shares so far add up to, rounded down, and those who lack most one more.

    Args:
        start: Shares at the beginning of the first batch, not negative.
        end: Shares at the end of the last batch, not negative.
        steps: Batches.
        samples: Of each batch.

    Returns:
        i64[steps, k], each row with the sum ``samples``.
    """
    middles = (np.arange(steps)[:, None] + 0.5) / steps
    shares = np.asarray(start) * (1 - middles) + np.asarray(end) * middles  # f64[steps, k]
    due = samples * np.cumsum(shares / shares.sum(axis=1, keepdims=True), axis=0)
    given = np.zeros(len(start), dtype=np.int64)
    counts = np.empty(due.shape, dtype=np.int64)
    for step, wanted in enumerate(due):
        total = np.maximum(given, np.floor(wanted + 1e-9).astype(np.int64))
        missing = samples * (step + 1) - int(total.sum())
        order = np.argsort(total - wanted, kind="stable")  # those who lack most first
        if missing > 0:
            total[order[:missing]] += 1
        for place in order[::-1]:  # rounding up earlier may leave too little for all
            back = min(max(-missing, 0), int(total[place] - given[place]))
            total[place] -= back
            missing += back
        counts[step], given = total - given, total
    return counts
