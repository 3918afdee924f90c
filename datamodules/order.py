"""In which order samples are trained on: a pure function of the batch's number, so that a resume needs no state."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from uva_lightning.datamodules.windows import Index


class Order(ABC):
    """Which samples the batches of a run hold; an epoch has as many batches as fit into the samples.

    Args:
        samples: Number of samples.
        batch_size: Samples of a batch over all processes.
        seed: Seed of the order.

    Raises:
        ValueError: There are fewer samples than one batch.
    """

    def __init__(self, samples: int, batch_size: int, seed: int) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size is {batch_size}, expected at least 1; set data.batch_size.")
        if samples < batch_size:
            raise ValueError(
                f"There are {samples} training windows, fewer than batch_size={batch_size}; "
                f"set data.batch_size to at most {samples}."
            )
        self.samples, self.batch_size, self.seed = samples, batch_size, seed

    def __len__(self) -> int:
        """Batches of an epoch."""
        return self.samples // self.batch_size

    @abstractmethod
    def batch(self, number: int, first: int, count: int) -> Tensor:
        """Name samples of a batch: i64[count].

        Args:
            number: Of the batch, since the start of training.
            first: Place of the first one in the whole batch.
            count: How many.
        """

    def facts(self) -> dict[str, int]:
        """Say what the order follows from."""
        return {"samples": self.samples, "batch_size": self.batch_size, "seed": self.seed}

    def rng(self, *numbers: int) -> torch.Generator:
        """Make a generator that follows from the seed and these numbers."""
        word = np.random.SeedSequence((self.seed, *numbers)).generate_state(1)[0]
        return torch.Generator().manual_seed(int(word))


class Shuffled(Order):
    """All samples in a new random order in each epoch; for data of which any part is at hand."""

    def __init__(self, samples: int, batch_size: int, seed: int) -> None:
        super().__init__(samples, batch_size, seed)
        self._epoch, self._order = -1, torch.empty(0, dtype=torch.int64)

    def batch(self, number: int, first: int, count: int) -> Tensor:
        """See the base class."""
        epoch, within = divmod(number, len(self))
        if epoch != self._epoch:
            self._epoch, self._order = epoch, torch.randperm(self.samples, generator=self.rng(epoch))
        begin = within * self.batch_size + first
        return self._order[begin : begin + count]


class Sharded(Order):
    """Shard by shard on many lanes at once; for data of which each process should need a small part at a time.

    In each epoch the shards are shuffled and their samples, one shard after another, form one sequence. It is cut into
    ``lanes`` stretches. Each lane reads its stretch in blocks of ``buffer`` samples and shuffles within them. A batch
    takes equally many samples from all lanes, or, where there are more lanes than samples in a batch, from every
    ``lanes / batch_size``-th in turn. Processes share the places of a batch, hence the lanes: each needs the shards of
    its own only. No sample comes twice in an epoch, and at most ``batch_size - 1`` do not come.

    Args:
        shards: i64[samples], number of the shard in which each sample lies.
        batch_size: Samples of a batch over all processes.
        seed: Seed of the order.
        lanes: A multiple or a divisor of the batch size. Also a multiple of any number of processes to be used: then
            none needs the shards of another, and the batches stay the same when their number changes, which they do
            for any other number of lanes too.
        buffer: Samples among which a lane shuffles.

    Raises:
        ValueError: Lanes and batch size do not fit, or there are fewer samples than one batch.
    """

    def __init__(self, shards: Index, batch_size: int, seed: int, lanes: int, buffer: int) -> None:
        super().__init__(len(shards), batch_size, seed)
        if lanes < 1 or (lanes % batch_size and batch_size % lanes):
            raise ValueError(
                f"There are {lanes} lanes for batch_size={batch_size}, expected a divisor or a multiple of it; "
                f"set data.reading.streaming.lanes={batch_size}."
            )
        if buffer < 1:
            raise ValueError(f"buffer is {buffer}, expected at least 1; set data.reading.streaming.buffer=4096.")
        self.lanes, self.buffer = lanes, buffer
        self._sorted = np.argsort(shards, kind="stable")
        self._shards, self._counts = np.unique(shards, return_counts=True)
        self._firsts = np.cumsum(self._counts) - self._counts
        self._turns = max(1, lanes // batch_size)  # batches until every lane has served once
        self._each = max(1, batch_size // lanes)  # samples of a lane in a batch
        lengths = self._lengths()
        self._begins, self._ends = np.cumsum(lengths) - lengths, np.cumsum(lengths)
        self._epoch, self._order, self._last = -1, np.empty(0, np.int64), np.empty(0, np.int64)
        self._blocks: dict[tuple[int, int, int], Index] = {}

    def batch(self, number: int, first: int, count: int) -> Tensor:
        """See the base class."""
        epoch, within = divmod(number, len(self))
        places = np.arange(first, first + count)
        lane = self._lane(places, within).tolist()
        step = (within // self._turns * self._each + places % self._each).tolist()
        wanted = sorted({(who, at // self.buffer) for who, at in zip(lane, step, strict=True)})
        blocks = {(who, at): self._block(epoch, who, at) for who, at in wanted}
        self._blocks = {(epoch, who, at): block for (who, at), block in blocks.items()}
        chosen = [blocks[who, at // self.buffer][at % self.buffer] for who, at in zip(lane, step, strict=True)]
        return torch.from_numpy(np.array(chosen, dtype=np.int64))

    def facts(self) -> dict[str, int]:
        """See the base class."""
        return {**super().facts(), "lanes": self.lanes, "buffer": self.buffer, "shards": len(self._shards)}

    def needed(self, number: int, first: int, count: int, ahead: int = 1) -> Iterator[int]:
        """Name the shards that places of a batch need now and soon, each once, those needed first in front.

        Args:
            number: Of the batch, since the start of training.
            first: First place.
            count: How many.
            ahead: Blocks of each lane after the present one.
        """
        epoch, within = divmod(number, len(self))
        places, named = np.arange(first, first + count), set[int]()
        turns = range(within % self._turns, within % self._turns + self._turns)
        lanes = dict.fromkeys(int(who) for turn in turns for who in self._lane(places, turn % self._turns))
        for block in range(ahead + 1):
            for lane in lanes:
                for shard in self._shards_of(epoch, lane, within // self._turns * self._each // self.buffer + block):
                    if shard not in named:
                        named.add(shard)
                        yield shard

    def _lane(self, places: Index, within: int) -> Index:
        lane: Index = places // self._each * self._turns + within % self._turns
        return lane

    def _lengths(self) -> Index:
        """Samples of each lane in an epoch, i64[lanes]."""
        turn = np.arange(self.lanes) % self._turns
        lengths: Index = (len(self) - turn + self._turns - 1) // self._turns * self._each
        return lengths

    def _open(self, epoch: int) -> None:
        if epoch != self._epoch:
            self._epoch, self._order = epoch, torch.randperm(len(self._shards), generator=self.rng(epoch)).numpy()
            self._last = np.cumsum(self._counts[self._order])

    def _bounds(self, lane: int, block: int) -> tuple[int, int]:
        """Give the places of a block in the sequence of the epoch."""
        begin = int(self._begins[lane]) + block * self.buffer
        return begin, min(begin + self.buffer, int(self._ends[lane]))

    def _block(self, epoch: int, lane: int, block: int) -> Index:
        """Name the samples of a block in the order in which they come."""
        if (epoch, lane, block) in self._blocks:
            return self._blocks[epoch, lane, block]
        self._open(epoch)
        begin, end = self._bounds(lane, block)
        places = begin + torch.randperm(end - begin, generator=self.rng(epoch, lane, block)).numpy()
        which = np.searchsorted(self._last, places, side="right")
        shard = self._order[which]
        samples: Index = self._sorted[self._firsts[shard] + places - (self._last[which] - self._counts[shard])]
        return samples

    def _shards_of(self, epoch: int, lane: int, block: int) -> list[int]:
        begin, end = self._bounds(lane, block)
        while begin >= end:  # beyond this epoch: the next one's blocks follow
            epoch, block = epoch + 1, block - max(1, -(-int(self._ends[lane] - self._begins[lane]) // self.buffer))
            if block < 0 or self._begins[lane] == self._ends[lane]:
                return []
            begin, end = self._bounds(lane, block)
        self._open(epoch)
        first, last = np.searchsorted(self._last, [begin, end - 1], side="right")
        return [int(self._shards[shard]) for shard in self._order[first : last + 1]]
