"""Batches of several data sets: who each sample is from, in which order, and how they are put together."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset
from torch.utils.data.distributed import DistributedSampler

from uva_lightning.apportion import owners
from uva_lightning.datamodules.endless import Endless
from uva_lightning.datamodules.rows import Rows
from uva_lightning.datamodules.step_sampler import FixedBatchSampler
from uva_lightning.datamodules.window_batches import WindowBatches
from uva_lightning.types import Batch, DataSpec
from uva_lightning.union import joined


class MixtureOrder:
    """Which samples of which data set the batches of a run hold: a pure function of the batch's number.

    The samples of all batches are one sequence in which every stretch, hence the share of every process in every batch,
    has each data set in its proportion to within one or two samples. The n-th sample of a data set is the n-th of an
    endless order of its own, so that it passes through all of it before it shows anything again.

    Args:
        orders: Order of each data set.
        shares: Relative share of each, by the same names.
        batch_size: Samples of a batch over all processes.
        seed: Seed of random changes of the samples.
    """

    def __init__(self, orders: Mapping[str, Endless], shares: Mapping[str, float], batch_size: int, seed: int) -> None:
        self.orders, self.shares, self.batch_size, self.seed = dict(orders), dict(shares), batch_size, seed

    def __call__(self, number: int, first: int, count: int) -> dict[str, Rows]:
        """Name samples of a batch, by the data set that they are from.

        Args:
            number: Of the batch, since the start of training.
            first: Place of the first one in the whole batch.
            count: How many.
        """
        owner, before = owners([self.shares[name] for name in self.orders], number * self.batch_size, self.batch_size)
        here = np.zeros(self.batch_size, dtype=bool)
        here[first : first + count] = True
        rows = {}
        for index, (name, order) in enumerate(self.orders.items()):
            mine = owner == index
            if (mine & here).any():
                earlier = int(mine[:first].sum())
                windows = torch.from_numpy(order(before[mine & here]))
                rows[name] = Rows(windows, self.seed, number, earlier, int(mine.sum()))
        return rows

    def facts(self) -> dict[str, Any]:
        """Say what the order follows from."""
        return {
            "samples": sum(order.length for order in self.orders.values()),
            "batch_size": self.batch_size,
            "seed": self.seed,
            **{f"share of {name}": round(share, 6) for name, share in self.shares.items()},
        }


class MixtureBatchSampler(DistributedSampler[Any]):
    """Batches of a ``MixtureOrder``, from where the counter stands.

    It is a ``DistributedSampler`` so that Lightning leaves it alone instead of wrapping it in another.

    Args:
        order: Which samples the batches hold.
        batches: Batches of an epoch.
        consumed: Gives the number of batches consumed so far, asked at the begin of each pass.
        rank: Number of this process.
        world: Number of processes.

    Raises:
        ValueError: The batch does not divide among the processes.
    """

    def __init__(
        self, order: MixtureOrder, batches: int, consumed: Callable[[], int], rank: int = 0, world: int = 1
    ) -> None:
        if order.batch_size % world:
            raise ValueError(
                f"batch_size is {order.batch_size} over {world} processes, expected a positive multiple of {world}; "
                "it counts the samples of all processes together."
            )
        self.order, self.batches, self.consumed, self.rank, self.world = order, batches, consumed, rank, world

    def __len__(self) -> int:
        return self.batches

    def __iter__(self) -> Iterator[dict[str, Rows]]:
        first = self.consumed()
        for number in range(first, first + len(self)):
            yield self.share(number)

    def share(self, number: int) -> dict[str, Rows]:
        """Name the samples that this process has in a batch."""
        share = self.order.batch_size // self.world
        return self.order(number, self.rank * share, share)

    def set_epoch(self, epoch: int) -> None:
        """Ignore Lightning's epoch: the counter of batches knows it, also after a resume."""


class HeldOutSampler(DistributedSampler[Any]):
    """All held-out samples in order; each batch is of one data set, and the data sets take turns.

    Args:
        samples: Held-out samples of each data set.
        batch_size: Samples of a batch over all processes.
        rank: Number of this process.
        world: Number of processes.
    """

    def __init__(self, samples: Mapping[str, int], batch_size: int, rank: int = 0, world: int = 1) -> None:
        parts = {name: FixedBatchSampler(count, batch_size, rank, world) for name, count in samples.items()}
        batches = [(at / len(part), name, rows) for name, part in parts.items() for at, rows in enumerate(part)]
        self.batches = [{name: rows} for _, name, rows in sorted(batches, key=lambda batch: batch[0])]

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        yield from self.batches

    def set_epoch(self, epoch: int) -> None:
        """The order is the same in every epoch."""


class MixtureBatches(Dataset[Batch]):
    """Windows of several data sets, indexed by whole batches.

    Args:
        spec: Facts of the mixture.
        parts: Windows of each data set.
    """

    def __init__(self, spec: DataSpec, parts: Mapping[str, WindowBatches]) -> None:
        self.spec, self.parts = spec, dict(parts)

    def __len__(self) -> int:
        return sum(len(part) for part in self.parts.values())

    def __getitem__(self, rows: Mapping[str, Tensor | Rows]) -> Batch:
        """Fetch samples, given for each data set."""
        return joined(self.spec, {name: self.parts[name][part] for name, part in rows.items()})

    def by_set(self) -> dict[str | None, WindowBatches]:
        """Give the windows of each data set, as itself."""
        return {name: part for name, part in self.parts.items()}  # noqa: C416  # the key may be None for others
