"""Batches addressed by the number of batches consumed, so that a resumed run continues with the very same windows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torch.utils.data.distributed import DistributedSampler

from uva_lightning.datamodules.rows import Rows


class StepBatchSampler(DistributedSampler[Any]):
    """Shuffle by (seed, epoch) and begin where the counter stands; yields the ``Rows`` of each batch.

    Batch ``k`` of the whole run is a pure function of ``seed`` and ``k``: no state to save, and the same global batch
    for any number of processes. One pass has as many batches as fit into the samples, the rest of a permutation is
    dropped; a pass that begins within an epoch runs on into the next, and the trainer stops it at its own end.

    It is a ``DistributedSampler`` so that Lightning leaves it alone instead of wrapping it in another.

    Args:
        samples: Number of samples.
        batch_size: Samples of a batch over all processes.
        seed: Seed of the order.
        consumed: Gives the number of batches consumed so far, asked at the begin of each pass.
        rank: Number of this process.
        world: Number of processes.

    Raises:
        ValueError: The batch does not divide among the processes, or there are fewer samples than one batch.
    """

    def __init__(
        self,
        samples: int,
        batch_size: int,
        seed: int,
        consumed: Callable[[], int],
        rank: int = 0,
        world: int = 1,
    ) -> None:
        if batch_size < 1 or batch_size % world:
            raise ValueError(
                f"batch_size is {batch_size} over {world} processes, expected a positive multiple of {world}; "
                "it counts the samples of all processes together."
            )
        if samples < batch_size:
            raise ValueError(
                f"There are {samples} training windows, fewer than batch_size={batch_size}; "
                f"set data.batch_size to at most {samples}."
            )
        self.samples, self.batch_size, self.seed = samples, batch_size, seed
        self.consumed, self.rank, self.world = consumed, rank, world

    def __len__(self) -> int:
        return self.samples // self.batch_size

    def __iter__(self) -> Iterator[Rows]:
        first, share = self.consumed(), self.batch_size // self.world
        shuffled, order = -1, torch.empty(0, dtype=torch.int64)
        for number in range(first, first + len(self)):
            epoch, batch = divmod(number, len(self))
            if epoch != shuffled:
                shuffled, order = epoch, self.order(epoch)
            place = self.rank * share
            begin = batch * self.batch_size + place
            yield Rows(order[begin : begin + share], self.seed, number, place, self.batch_size)

    def order(self, epoch: int) -> Tensor:
        """Permute the samples for an epoch: i64[samples]."""
        word = np.random.SeedSequence((self.seed, epoch)).generate_state(1)[0]
        return torch.randperm(self.samples, generator=torch.Generator().manual_seed(int(word)))

    def set_epoch(self, epoch: int) -> None:
        """Ignore Lightning's epoch: the counter of batches knows it, also after a resume."""


class StepLoader(DataLoader[Any]):
    """A loader of whole batches in the order of a ``StepBatchSampler``.

    The order needs no state. What is saved says what it follows from, so that a resume with other data is noticed.

    Args:
        data: Indexed by whole batches.
        sampler: Gives the batches.
        workers: Processes that fetch them.
        facts: What the order follows from, where it is not one shuffled data set.
    """

    def __init__(
        self,
        data: Dataset[Any],
        sampler: DistributedSampler[Any],
        workers: int = 0,
        facts: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(data, None, sampler=sampler, num_workers=workers, persistent_workers=workers > 0)
        self._order: dict[str, Any] = dict(facts or {})
        if isinstance(sampler, StepBatchSampler):
            self._order = {"samples": sampler.samples, "batch_size": sampler.batch_size, "seed": sampler.seed}

    def state_dict(self) -> dict[str, Any]:
        """Name what the order follows from."""
        return dict(self._order)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Compare it with the checkpoint's."""
        changed = [
            f"{name} from {state_dict.get(name)} to {now}"
            for name, now in self._order.items()
            if state_dict.get(name) != now
        ]
        if changed:
            rank_zero_warn(
                f"The run resumes with {', '.join(changed)}: it goes on in another order of windows than the run of "
                "the checkpoint would have; set the old values for an exact continuation."
            )


class FixedBatchSampler(DistributedSampler[Any]):
    """All samples in order, for validation; every process gets equally many batches.

    Args:
        samples: Number of samples.
        batch_size: Samples of a batch over all processes; the last batch may be smaller.
        rank: Number of this process.
        world: Number of processes.
    """

    def __init__(self, samples: int, batch_size: int, rank: int = 0, world: int = 1) -> None:
        self.samples, self.share, self.rank, self.world = samples, max(1, batch_size // world), rank, world

    def __len__(self) -> int:
        each = -(-self.samples // self.world)
        return -(-each // self.share)

    def __iter__(self) -> Iterator[Tensor]:
        each = -(-self.samples // self.world)
        mine = (torch.arange(each) * self.world + self.rank) % self.samples
        yield from torch.split(mine, self.share)

    def set_epoch(self, epoch: int) -> None:
        """The order is the same in every epoch."""
