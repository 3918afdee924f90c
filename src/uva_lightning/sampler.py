"""Which sample serves which objective: a pure function of (seed, step), so that resuming is exact by construction."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from uva_lightning.apportion import apportioned
from uva_lightning.draws import Draws, SampleGenerator, mixed
from uva_lightning.global_batch import GlobalBatch
from uva_lightning.objective import Objective
from uva_lightning.types import Tokens, Visible


@dataclass(frozen=True)
class Plan:
    """Rows of one batch, in the order in which the model sees them.

    Attributes:
        order: i64[b], which sample of this process stands in each row.
        served: Rows of each objective, by its name in the config; contiguous, and none where the slice is empty.
        objectives: The objectives by the same names.
        share: Share of each objective in the batch of all processes; of this process's rows if not given.
    """

    order: Tensor
    served: Mapping[str, slice]
    objectives: Mapping[str, Objective]
    share: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.share:
            own = {name: (rows.stop - rows.start) / len(self.order) for name, rows in self.served.items()}
            object.__setattr__(self, "share", own)

    @property
    def predicts(self) -> dict[str, slice | Tensor]:
        """Rows that train each head; a slice where they are contiguous, as they are for UVA's five functions."""
        rows: dict[str, list[int]] = {}
        for name, part in self.served.items():
            for modality in self.objectives[name].predicts:
                rows.setdefault(modality, []).extend(range(part.start, part.stop))
        return {modality: _slice(index) for modality, index in rows.items()}

    def origins(self, source: Tensor, sets: int) -> dict[str, Tensor]:
        """Count the rows that each objective has of each data set in this process: i64[sets] per objective.

        Args:
            source: i64[b], number of each sample's data set.
            sets: Number of data sets.
        """
        return {n: torch.bincount(source[self.order[rows]], minlength=sets) for n, rows in self.served.items()}

    def visible(self, tokens: Tokens, draws: Draws) -> Visible:
        """Ask each objective what its rows may see.

        An objective is asked about all of its rows at once. If it takes random numbers other than by
        ``uniform_by_sample``, it is asked about each sample anew with that one's own generator, so that what a sample
        may see does not depend on who else is in the batch.

        Args:
            tokens: In the plan's order.
            draws: Of the same rows.
        """
        seen = Visible.only(tokens)
        for name, part in self.served.items():
            if part.start == part.stop:
                continue
            objective, purpose = self.objectives[name], f"visible {name}"
            rng = SampleGenerator.of(draws.rows(part), purpose)
            before = rng.get_state()
            shown = objective.visible(tokens.rows(part), rng)
            if not rng.get_state().equal(before):
                rows = range(part.start, part.stop)
                each = [objective.visible(tokens.rows(slice(r, r + 1)), draws.generator(r, purpose)) for r in rows]
                shown = Visible({modality: torch.cat([one[modality] for one in each]) for modality in shown})
            for modality, mask in shown.items():
                seen[modality][part] = mask
        return seen


class ObjectiveSampler:
    """Serve several objectives in every batch, in fixed shares.

    Each step gives every objective its share of the samples of all processes together that have what it needs, and
    spreads them evenly over the processes. At any time an objective has been served its share of all samples so far to
    within one or two. Who serves what does not depend on the number of processes.

    Args:
        objectives: Objectives by name.
        shares: Relative share of each, not negative; equal shares if not given.
        seed: Seed of the assignment.
    """

    starts: tuple[int, ...] = (0,)
    """Batches at which a stage of training begins; the learning rate and ``StageStart`` begin anew there."""

    def __init__(
        self, objectives: Mapping[str, Objective], shares: Mapping[str, float] | None = None, seed: int = 0
    ) -> None:
        shares = dict.fromkeys(objectives, 1.0) if shares is None else dict(shares)
        if not objectives:
            raise ValueError("There is no objective to train; set model.objectives, e.g. policy: RobotPolicy.")
        if set(shares) != set(objectives):
            raise ValueError(
                f"Shares are given for {sorted(shares)} but the objectives are {sorted(objectives)}; name each once."
            )
        if any(not math.isfinite(share) or share < 0 for share in shares.values()) or not sum(shares.values()) > 0:
            raise ValueError(f"Shares are {shares}, expected numbers that are not negative with a positive sum.")
        total = sum(shares.values())
        # Objectives that train the same heads stand together, so that each head runs once, on one slice.
        names = sorted(objectives, key=lambda name: _head_order(objectives[name]))
        self.objectives = {name: objectives[name] for name in names}
        self.shares = {name: shares[name] / total for name in names}
        self.seed = seed

    @property
    def trained(self) -> list[str]:
        """Objectives that have a share at some time of training."""
        return [name for name, share in self.shares.items() if share > 0]

    def __call__(self, step: int, present: Mapping[str, Tensor], whole: GlobalBatch | None = None) -> Plan:
        """Assign the samples of one batch.

        Args:
            step: Number of the batch since the start of training.
            present: bool[b] per modality: what each sample of this process has.
            whole: Where these samples stand among those of all processes; they are all if not given.

        Raises:
            ValueError: A sample has what no objective needs.
        """
        if not present:
            raise ValueError("Batch.present is empty, expected bool[b] per modality; the datamodule must fill it.")
        whole = whole or GlobalBatch(len(next(iter(present.values()))))
        owners = self._owners(step, whole.every(self._fits(present, whole.samples)))  # i64[total]
        counts = torch.bincount(owners, minlength=len(self.objectives)).tolist()
        mine = owners[whole.places]
        served, start = {}, 0
        for name, count in zip(self.objectives, torch.bincount(mine, minlength=len(counts)).tolist(), strict=True):
            served[name] = slice(start, start + count)
            start += count
        share = {name: count / whole.total for name, count in zip(self.objectives, counts, strict=True)}
        return Plan(mine.argsort(stable=True), served, self.objectives, share)

    def observe(self, step: int, means: Mapping[tuple[str, str], Tensor]) -> None:
        """Take note of the losses of a training step; for samplers whose shares follow them.

        Args:
            step: Number of the batch, counted as in a call.
            means: f32[] of each (objective, term) that had samples: the mean over all processes, the same on each.
        """

    def state(self) -> dict[str, Any]:
        """Give what was learned from ``observe``, for the checkpoint: numbers, text, and mappings of them."""
        return {}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Take what ``state`` gave."""

    def check(self, sets: Mapping[str, Mapping[str, Tensor]]) -> bool:
        """Make sure before the first step that every objective has data, and all data an objective.

        Args:
            sets: bool[n] per modality for each data set: what its samples have.

        Returns:
            Whether all samples can serve the same objectives, so that processes need not ask each other.

        Raises:
            ValueError: No data set has what an objective needs, or a data set lacks what any of them needs.
        """
        trained = {name: self.objectives[name] for name in self.trained}
        has = {name: {modality for modality, there in flags.items() if there.any()} for name, flags in sets.items()}
        found = "; ".join(f"{name} has {', '.join(sorted(own)) or 'nothing'}" for name, own in has.items())
        for name, objective in trained.items():
            if not any(objective.eligible() <= own for own in has.values()):
                needs = ", ".join(sorted(objective.eligible()))
                raise ValueError(
                    f"Objective '{name}' needs {needs}, but no data set has it: {found}; add data that has it, or take "
                    f"the objective out with model.objectives.{name}: null."
                )
        for name, own in has.items():
            if not any(objective.eligible() <= own for objective in trained.values()):
                needs = "; ".join(f"{one} {', '.join(sorted(o.eligible()))}" for one, o in trained.items())
                raise ValueError(
                    f"The samples of {name} fit no objective: it has {', '.join(sorted(own)) or 'nothing'}, the "
                    f"objectives need: {needs}; add an objective that they can serve, such as VideoModel, or leave "
                    "the data out."
                )
        fitting = [self._fits(flags, len(next(iter(flags.values()), [0]))) for flags in sets.values()]
        return len(torch.cat(fitting, dim=1).unique(dim=1).T) == 1

    def _owners(self, step: int, fits: Tensor) -> Tensor:
        """Give each sample of the whole batch the number of its objective, i64[total], from bool[objectives, total]."""
        samples, rng = fits.shape[1], np.random.default_rng(int(mixed(self.seed, step)))
        kinds: dict[tuple[bool, ...], list[int]] = {}  # samples that can serve the same are alike
        for sample, kind in enumerate(zip(*fits.tolist(), strict=True)):
            kinds.setdefault(kind, []).append(sample)
        missing = self._counts(step, samples, [any(column) for column in zip(*kinds, strict=True)])
        owners = np.empty(samples, dtype=np.int64)
        for kind in sorted(kinds, key=lambda kind: (sum(kind), kind)):  # choosy ones first
            part = self._part(step, len(kinds[kind]), kind, missing)
            missing = [wanted - given for wanted, given in zip(missing, part, strict=True)]
            owners[kinds[kind]] = spread(part, rng)
        return torch.from_numpy(owners)

    def _part(self, step: int, samples: int, fits: Sequence[bool], missing: Sequence[int]) -> list[int]:
        """Split alike samples among the objectives that they fit, as near to what is missing as can be."""
        if sum(missing) == samples and all(
            count == 0 or (fit and count > 0) for fit, count in zip(fits, missing, strict=True)
        ):
            return list(missing)
        counts, left = [0] * len(missing), list(missing)
        options = [number for number, fit in enumerate(fits) if fit]
        for _ in range(samples):
            best = max(options, key=left.__getitem__)
            left[best] -= 1
            counts[best] += 1
        return counts

    def _counts(self, step: int, samples: int, usable: Sequence[bool]) -> list[int]:
        """Samples per objective, 0 for one that is not usable; rounding errors never add up over the steps."""
        shares = [share if use else 0.0 for share, use in zip(self.shares.values(), usable, strict=True)]
        before, after = apportioned(shares, np.array([step * samples, (step + 1) * samples])).T
        return [int(count) for count in after - before]

    def _fits(self, present: Mapping[str, Tensor], samples: int) -> Tensor:
        """bool[objectives, b]: which sample can serve which objective."""
        missing = torch.zeros(samples, dtype=torch.bool)
        rows = []
        for name, objective in self.objectives.items():
            has = [present.get(modality, missing) for modality in sorted(objective.eligible())]
            usable = self.shares[name] > 0
            rows.append(torch.stack(has).all(dim=0) & usable if has else torch.full((samples,), usable))
        fits = torch.stack(rows)
        if homeless := int((~fits.any(dim=0)).sum()):
            has_now = sorted(name for name, flags in present.items() if flags.any())
            raise ValueError(
                f"{homeless} of {samples} samples fit no objective: the batch has {has_now}, the objectives need "
                f"{ {n: sorted(o.eligible()) for n, o in self.objectives.items()} }; add an objective they can serve."
            )
        return fits


class OneObjectivePerBatch(ObjectiveSampler):
    """UVA's original rule: one objective per step, the same on all ranks, but in turns instead of at random.

    The shares hold in every stretch of steps, as they do for the samples of a batch. Samples that cannot serve the
    objective whose turn it is all serve the one whose turn it is among those that they can.
    """

    def _counts(self, step: int, samples: int, usable: Sequence[bool]) -> list[int]:
        """All samples for the objective whose turn it is."""
        return [samples * turn for turn in super()._counts(step, 1, usable)]

    def _part(self, step: int, samples: int, fits: Sequence[bool], missing: Sequence[int]) -> list[int]:
        """See the base class; all of them together."""
        chosen = [samples * (fit and count > 0) for fit, count in zip(fits, missing, strict=True)]
        return chosen if any(chosen) else self._counts(step, samples, fits)


def spread(counts: Sequence[int], rng: np.random.Generator) -> NDArray[np.int64]:
    """Put objectives in a random order in which any half, quarter or eighth has its share of each to within one.

    So two, four or eight processes, each with its stretch of the batch, have nearly equal work.

    Args:
        counts: Times that each number from 0 on is to appear.
        rng: Random numbers.

    Returns:
        i64[sum of counts].
    """
    parts, length = np.array([counts]), sum(counts)  # i64[stretches, k]
    while length > 1 and length % 2 == 0:
        odd = parts % 2  # in each stretch an even number of objectives cannot be halved: half of them get one more
        ranks = (rng.random(parts.shape) + 1 - odd).argsort(axis=1).argsort(axis=1)
        first = parts // 2 + odd * (ranks < odd.sum(axis=1, keepdims=True) // 2)
        parts, length = np.stack((first, parts - first), axis=1).reshape(-1, len(counts)), length // 2
    numbers = np.repeat(np.tile(np.arange(len(counts)), len(parts)), parts.ravel())
    order: NDArray[np.int64] = rng.permuted(numbers.reshape(len(parts), -1), axis=1).ravel()
    return order


def _head_order(objective: Objective) -> tuple[bool, int, tuple[str, ...]]:
    """Objectives with video only, then with both, then without: UVA's five then train each head on one slice."""
    return "video" not in objective.predicts, len(objective.predicts), objective.predicts


def _slice(index: list[int]) -> slice | Tensor:
    if not index:
        return slice(0, 0)
    contiguous = index == list(range(index[0], index[0] + len(index)))
    return slice(index[0], index[-1] + 1) if contiguous else torch.tensor(index)
