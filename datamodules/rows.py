"""Which windows a batch holds, and where it stands in the run: all that is random in it follows from that."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Generator, Tensor


@dataclass(frozen=True)
class Rows:
    """The share of one process in one training batch.

    Draws are made for the whole batch, of which each process takes its share, so that they do not depend on the number
    of processes, and a resumed run repeats them.

    Args:
        windows: i64[b].
        seed: Seed of the run.
        batch: Number of the batch since the start of training.
        first: Place of the first window in the whole batch.
        total: Windows of the whole batch.
    """

    windows: Tensor
    seed: int
    batch: int
    first: int
    total: int

    def __len__(self) -> int:
        return len(self.windows)

    def uniform(self, use: int, *shape: int) -> Tensor:
        """Draw f32[b, ...] in [0, 1); ``use`` is a number that tells the draws of one batch apart."""
        return self._ours(torch.rand(self.total, *shape, generator=self.rng(use)))

    def normal(self, use: int, *shape: int) -> Tensor:
        """Draw f32[b, ...], standard normal."""
        return self._ours(torch.randn(self.total, *shape, generator=self.rng(use)))

    def rng(self, use: int) -> Generator:
        """Make a generator that is the same in every process."""
        word = np.random.SeedSequence((self.seed, self.batch, use)).generate_state(1)[0]
        return Generator().manual_seed(int(word))

    def _ours(self, values: Tensor) -> Tensor:
        return values[self.first : self.first + len(self)]
