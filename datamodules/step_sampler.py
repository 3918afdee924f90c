"""Batches addressed by the number of batches consumed, so that a resumed run continues with the very same windows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torch.utils.data.distributed import DistributedSampler

from uva_lightning.datamodules.order import Order
from uva_lightning.datamodules.rows import Rows


class StepBatchSampler(DistributedSampler[Any]):
    """Batches of an ``Order``, from where the counter stands; yields the ``Rows`` of each.

    Batch ``k`` of the whole run is a pure function of the order and ``k``: no state to save, and the same global batch
    for any number of processes. A pass that begins within an epoch runs on into the next, and the trainer stops it at
    its own end.

    It is a ``DistributedSampler`` so that Lightning leaves it alone instead of wrapping it in another.

    Args:
        order: Which samples the batches hold.
        consumed: Gives the number of batches consumed so far, asked at the begin of each pass.
        rank: Number of this process.
        world: Number of processes.
        announce: Told of each batch before it is asked for: its number, its first place here, and how many are ours.

    Raises:
        ValueError: The batch does not divide among the processes.
    """

    def __init__(
        self,
        order: Order,
        consumed: Callable[[], int],
        rank: int = 0,
        world: int = 1,
        announce: Callable[[int, int, int], None] | None = None,
    ) -> None:
        if order.batch_size % world:
            raise ValueError(
                f"batch_size is {order.batch_size} over {world} processes, expected a positive multiple of {world}; "
                "it counts the samples of all processes together."
            )
        self.order, self.consumed, self.rank, self.world, self.announce = order, consumed, rank, world, announce

    def __len__(self) -> int:
        return len(self.order)

    def __iter__(self) -> Iterator[Rows]:
        begin, share = self.consumed(), self.order.batch_size // self.world
        place = self.rank * share
        for number in range(begin, begin + len(self)):
            if self.announce is not None:
                self.announce(number, place, share)
            chosen = self.order.batch(number, place, share)
            yield Rows(chosen, self.order.seed, number, place, self.order.batch_size)

    def set_epoch(self, epoch: int) -> None:
        """Ignore Lightning's epoch: the counter of batches knows it, also after a resume."""


class StepLoader(DataLoader[Any]):
    """A loader of whole batches in an order that is a function of their number.

    The order needs no state. What is saved says what it follows from, so that a resume with other data is noticed.

    Args:
        data: Indexed by whole batches.
        sampler: Gives the batches.
        facts: What the order follows from.
        workers: Processes that fetch them.
    """

    def __init__(
        self,
        data: Dataset[Any],
        sampler: DistributedSampler[Any],
        facts: Mapping[str, Any],
        workers: int = 0,
    ) -> None:
        super().__init__(data, None, sampler=sampler, num_workers=workers, persistent_workers=workers > 0)
        self._order = dict(facts)

    def state_dict(self) -> dict[str, Any]:
        """Name what the order follows from."""
        return dict(self._order)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Compare it with the checkpoint's."""
        changed = [
            f"{name} from {state_dict.get(name)} to {now}"
            for name, now in {**dict.fromkeys(state_dict), **self._order}.items()
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
