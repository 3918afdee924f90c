"""Shares that follow what is being learned."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from uva_lightning.objective import Objective
from uva_lightning.sampler import ObjectiveSampler

Key = tuple[str, str]
_SEPARATOR = "\t"


class LearningProgress(ObjectiveSampler):
    """Give larger shares to objectives whose training loss falls faster (learning progress; Graves et al. 2017).

    At the end of each interval, the progress of an objective is how far the logarithm of its mean loss fell since the
    interval before, averaged over its terms, and 0 where it rose. Its new share is

        ``(1 - rate) * share + rate * (floor + rest * progress / sum of progress)``

    where ``rest`` is what the floors leave. In between the shares hold as with ``ObjectiveSampler``. An objective whose
    progress is not known, for want of samples, keeps its share, as all do where nothing made any progress.

    The losses are means over all processes, so all have the same shares. What was seen is in the checkpoint; a run that
    goes on from it is the same run.

    Args:
        objectives: Objectives by name.
        shares: Relative share of each at first; equal shares if not given.
        every: Batches of an interval, at least 1.
        floor: Smallest share, above 0: what is not trained makes no progress.
        rate: How far shares move at once, in (0, 1].
        seed: Seed of the assignment.
    """

    def __init__(
        self,
        objectives: Mapping[str, Objective],
        shares: Mapping[str, float] | None = None,
        every: int = 1000,
        floor: float = 0.05,
        rate: float = 0.5,
        seed: int = 0,
    ) -> None:
        super().__init__(objectives, shares, seed)
        if every < 1:
            raise ValueError(f"every is {every}, expected at least 1 batch; 1000 averages over the noise of a batch.")
        if not 0 < rate <= 1:
            raise ValueError(f"rate is {rate}, expected a number in (0, 1]; 0.5 goes half the way.")
        smallest = min(self.shares, key=self.shares.__getitem__)
        if not 0 < floor <= self.shares[smallest]:
            raise ValueError(
                f"floor is {floor}, expected a number above 0 and at most {self.shares[smallest]:.4g}, the first share "
                f"of '{smallest}'; lower the floor or raise that share."
            )
        self.every, self.floor, self.rate = every, floor, rate
        self._since = 0  # batch from which on the shares hold
        self._sums: dict[Key, Tensor] = {}
        self._seen: dict[Key, int] = {}
        self._before: dict[Key, float] = {}

    def observe(self, step: int, means: Mapping[Key, Tensor]) -> None:
        """See the base class; nothing waits for the device but at the end of an interval."""
        for key, mean in means.items():
            value = mean.detach().float()
            self._sums[key] = self._sums[key].to(value.device) + value if key in self._sums else value.clone()
            self._seen[key] = self._seen.get(key, 0) + 1
        if (step + 1) % self.every == 0 and self._sums:
            self._close(step + 1)

    def state(self) -> dict[str, Any]:
        """See the base class."""
        sums = {_SEPARATOR.join(key): float(value) for key, value in self._sums.items()}
        counts = {_SEPARATOR.join(key): count for key, count in self._seen.items()}
        before = {_SEPARATOR.join(key): value for key, value in self._before.items()}
        return {"since": self._since, "shares": dict(self.shares), "sums": sums, "counts": counts, "before": before}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """See the base class.

        Raises:
            ValueError: The state is of other objectives.
        """
        if not state:
            return
        if set(state["shares"]) != set(self.shares):
            raise ValueError(
                f"The checkpoint has shares of {sorted(state['shares'])}, but the objectives are "
                f"{sorted(self.shares)}; train the same objectives, or begin anew with its weights by model.start.path."
            )
        self.shares = {name: state["shares"][name] for name in self.shares}
        self._since = state["since"]
        self._sums = {_key(name): torch.tensor(value) for name, value in state["sums"].items()}
        self._seen = {_key(name): count for name, count in state["counts"].items()}
        self._before = {_key(name): value for name, value in state["before"].items()}

    def _counts(self, step: int, samples: int, usable: Sequence[bool]) -> list[int]:
        """See the base class; the shares hold since they changed."""
        return super()._counts(step - self._since, samples, usable)

    def _close(self, step: int) -> None:
        """End the interval before a batch."""
        means = dict(zip(self._sums, torch.stack([*self._sums.values()]).tolist(), strict=True))
        means = {key: total / self._seen[key] for key, total in means.items()}
        shares = by_progress(self.shares, progress(self._before, means), self.floor, self.rate)
        if shares != self.shares:
            self.shares, self._since = shares, step
        self._before |= {key: mean for key, mean in means.items() if math.isfinite(mean) and mean > 0}
        self._sums, self._seen = {}, {}


def progress(before: Mapping[Key, float], now: Mapping[Key, float]) -> dict[str, float]:
    """Say how far the logarithm of each objective's losses fell on average; only of those of which both are known."""
    falls: dict[str, list[float]] = {}
    for key, mean in now.items():
        if key in before and math.isfinite(mean) and mean > 0:
            falls.setdefault(key[0], []).append(math.log(before[key] / mean))
    return {name: max(0.0, sum(own) / len(own)) for name, own in falls.items()}


def by_progress(
    shares: Mapping[str, float], progress: Mapping[str, float], floor: float, rate: float
) -> dict[str, float]:
    """Move shares towards progress.

    Args:
        shares: Of all objectives, with the sum 1.
        progress: Of those of which it is known, not negative.
        floor: Smallest share.
        rate: How far they move, in (0, 1].

    Returns:
        New shares; what those with known progress had together is split anew among them.
    """
    total = sum(progress.values())
    if total == 0:
        return dict(shares)
    rest = sum(shares[name] for name in progress) - floor * len(progress)
    targets = {name: floor + rest * own / total for name, own in progress.items()}
    return {name: share + rate * (targets.get(name, share) - share) for name, share in shares.items()}


def _key(name: str) -> Key:
    objective, term = name.split(_SEPARATOR)
    return objective, term
