"""What a training run logs: means between two entries of the log."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from uva_lightning.global_batch import GlobalBatch
from uva_lightning.sampler import Plan


class TrainingLog:
    """Collect scalars of every step without waiting for the device; give their means when the log is written.

    Every objective shows, also where one serves a whole batch.

    Args:
        sets: Names of a mixture's data sets; of others none.
    """

    def __init__(self, sets: Sequence[str]) -> None:
        self._sets = list(sets)
        self._values: dict[str, list[Tensor]] = {}
        self._origins: dict[str, Tensor] = {}

    def add(self, plan: Plan, entries: Mapping[str, Tensor | float], source: Tensor | None) -> None:
        """Take the scalars of one step; what an objective without samples would say is left out.

        Args:
            plan: Who serves what.
            entries: ``loss`` of this process, and what ``Balancer.entries`` gives.
            source: i64[b], number of each sample's data set in a mixture.
        """
        for name, value in entries.items():
            self._values.setdefault(name, []).append(torch.as_tensor(value).detach())
        if source is not None:
            for name, counts in plan.origins(source, len(self._sets)).items():
                self._origins[name] = self._origins.get(name, 0) + counts

    def flush(self, whole: GlobalBatch) -> dict[str, Tensor]:
        """Give the mean of each name, f32[], and start anew; processes tell each other where their samples are from.

        Args:
            whole: The batch of all processes.

        Returns:
            ``train/loss`` of this process; of all processes together ``train/OBJECTIVE/TERM``,
            ``train/OBJECTIVE/TERM_factor``, ``train/OBJECTIVE/share`` and, in a mixture, ``train/OBJECTIVE/from_SET``:
            the share of its samples.
        """
        means = {name: torch.stack(values).float().mean() for name, values in self._values.items()}
        means |= self._from_sets(whole)
        self._values.clear()
        self._origins.clear()
        return {f"train/{name}": value for name, value in means.items()}

    def _from_sets(self, whole: GlobalBatch) -> Mapping[str, Tensor]:
        if not self._origins:
            return {}
        counts = whole.sums(torch.stack(list(self._origins.values())).float().to(whole.device))  # [objectives, sets]
        return {
            f"{name}/from_{one}": count / row.sum()
            for name, row, served in zip(self._origins, counts, counts.sum(dim=1).tolist(), strict=True)
            if served
            for one, count in zip(self._sets, row, strict=True)
        }
