"""Which sample serves which objective: a pure function of (seed, step), so that resuming is exact by construction."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from uva_lightning.apportion import apportioned
from uva_lightning.objective import Objective
from uva_lightning.types import Tokens, Visible


def seeded(*numbers: int) -> Generator:
    """Make a CPU generator from whole numbers; equal numbers, equal draws."""
    mixed = 0x9E3779B97F4A7C15
    for number in numbers:
        mixed = ((mixed ^ (number & 0xFFFFFFFFFFFFFFFF)) * 0xBF58476D1CE4E5B9 + 0x94D049BB133111EB) % 2**64
        mixed ^= mixed >> 31
    return Generator().manual_seed(mixed % 2**63)


@dataclass(frozen=True)
class Plan:
    """Rows of one batch, in the order in which the model sees them.

    Attributes:
        order: i64[b], which sample of the batch stands in each row.
        served: Rows of each objective, by its name in the config; contiguous.
        objectives: The objectives by the same names.
    """

    order: Tensor
    served: Mapping[str, slice]
    objectives: Mapping[str, Objective]

    @property
    def predicts(self) -> dict[str, slice | Tensor]:
        """Rows that train each head; a slice where they are contiguous, as they are for UVA's five functions."""
        rows: dict[str, list[int]] = {}
        for name, part in self.served.items():
            for modality in self.objectives[name].predicts:
                rows.setdefault(modality, []).extend(range(part.start, part.stop))
        return {modality: _slice(index) for modality, index in rows.items()}

    def origins(self, source: Tensor, names: Sequence[str]) -> dict[str, Tensor]:
        """Give the share of each objective's rows that each data set has, f32[], as ``train/objective/from_set``.

        Args:
            source: i64[b], number of each sample's data set.
            names: Of the data sets.
        """
        shares: dict[str, Tensor] = {}
        for name, rows in self.served.items():
            counts = torch.bincount(source[self.order[rows]], minlength=len(names))
            shares |= {f"train/{name}/from_{one}": n / counts.sum() for one, n in zip(names, counts, strict=True)}
        return shares

    def visible(self, tokens: Tokens, rng: Generator) -> Visible:
        """Ask each objective what its rows may see; ``tokens`` are in the plan's order."""
        seen = Visible.only(tokens)
        for name, part in self.served.items():
            shown = self.objectives[name].visible(tokens.rows(part), rng)
            for modality, mask in shown.items():
                seen[modality][part] = mask
        return seen


class ObjectiveSampler:
    """Serve several objectives in every batch, in fixed shares.

    Each step gives every objective its share of the samples that have what it needs. At any time an objective has been
    served its share of all samples so far to within one or two.

    Args:
        objectives: Objectives by name.
        shares: Relative share of each, not negative; equal shares if not given.
        seed: Seed of the assignment.
    """

    serves_all = True
    """Whether every step serves all objectives, so that every head gets gradients."""
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
        served = {modality for name in names if shares[name] for modality in objectives[name].predicts}
        self.serves_all = self.serves_all and served == {m for o in objectives.values() for m in o.predicts}
        self.seed = seed

    def __call__(self, step: int, present: Mapping[str, Tensor], rank: int = 0) -> Plan:
        """Assign the samples of one batch.

        Args:
            step: Number of the batch since the start of training.
            present: bool[b] per modality: what each sample has.
            rank: Rank of this process; ranks draw different samples for the same shares.

        Raises:
            ValueError: A sample has what no objective needs.
        """
        if not present:
            raise ValueError("Batch.present is empty, expected bool[b] per modality; the datamodule must fill it.")
        samples = len(next(iter(present.values())))
        fits = self._fits(present, samples)
        shuffled = torch.randperm(samples, generator=seeded(self.seed, step, rank))
        usable = [name for name, fit in zip(self.objectives, fits.any(dim=1).tolist(), strict=True) if fit]
        counts = self._counts(step, samples, usable)
        groups = self._assign(fits, shuffled, counts)
        served, start = {}, 0
        for name, group in zip(self.objectives, groups, strict=True):
            served[name] = slice(start, start + len(group))
            start += len(group)
        kept = {name: rows for name, rows in served.items() if rows.start < rows.stop}
        return Plan(torch.cat(groups), kept, self.objectives)

    def check(self, sets: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Make sure before the first step that every objective has data, and all data an objective.

        Args:
            sets: bool[n] per modality for each data set: what its samples have.

        Raises:
            ValueError: No data set has what an objective needs, or a data set lacks what any of them needs.
        """
        trained = {name: objective for name, objective in self.objectives.items() if self.shares[name] > 0}
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

    def _counts(self, step: int, samples: int, usable: list[str]) -> list[int]:
        """Samples per objective, 0 for one that is not usable; rounding errors never add up over the steps."""
        before, after = (self._until(batches * samples, usable) for batches in (step, step + 1))
        return [after.get(name, 0) - before.get(name, 0) for name in self.objectives]

    def _until(self, samples: int, usable: list[str]) -> dict[str, int]:
        """Split the first so many samples."""
        counts = apportioned([self.shares[name] for name in usable], samples)
        return dict(zip(usable, counts.tolist(), strict=True))

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

    def _assign(self, fits: Tensor, shuffled: Tensor, counts: list[int]) -> list[Tensor]:
        """Split the shuffled samples into one group per objective, as near to ``counts`` as eligibility allows."""
        if fits.any(dim=1).equal(fits.all(dim=1)):  # every sample fits the same objectives
            return list(shuffled.split(counts))
        groups: list[list[int]] = [[] for _ in counts]
        eligible = [[k for k, fit in enumerate(column) if fit] for column in fits.T.tolist()]
        for sample in sorted(shuffled.tolist(), key=lambda sample: len(eligible[sample])):  # choosy ones first
            options = eligible[sample]
            groups[max(options, key=lambda k: counts[k] - len(groups[k]))].append(sample)
        return [torch.tensor(group, dtype=torch.long) for group in groups]


class OneObjectivePerBatch(ObjectiveSampler):
    """UVA's original rule: one objective per step, the same on all ranks, but in turns instead of at random.

    The shares hold in every stretch of steps, as they do for the samples of a batch.
    """

    serves_all = False

    def _counts(self, step: int, samples: int, usable: list[str]) -> list[int]:
        """All samples for the objective whose turn it is."""
        return [samples * turn for turn in super()._counts(step, 1, usable)]


def _head_order(objective: Objective) -> tuple[bool, int, tuple[str, ...]]:
    """Objectives with video only, then with both, then without: UVA's five then train each head on one slice."""
    return "video" not in objective.predicts, len(objective.predicts), objective.predicts


def _slice(index: list[int]) -> slice | Tensor:
    contiguous = index == list(range(index[0], index[0] + len(index)))
    return slice(index[0], index[-1] + 1) if contiguous else torch.tensor(index)
