"""Random numbers of a sample: they follow from the seed, the step and its place in the batch of all processes."""

from __future__ import annotations

import zlib
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor

ODD, START, FACTOR, STEP = 0xFFFFFFFFFFFFFFFF, 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB

Normal = Callable[..., Tensor]
"""Gives standard normal numbers f32[b, ...] for the samples at hand, by the shape of one of them."""


def seeded(*numbers: int) -> Generator:
    """Make a CPU generator from whole numbers; equal numbers, equal draws."""
    return Generator().manual_seed(int(mixed(*numbers)))


def mixed(*numbers: int | NDArray[np.int64]) -> NDArray[np.uint64]:
    """Mix whole numbers, or arrays of them, to seeds below 2^63."""
    seed = np.asarray(START, dtype=np.uint64)
    with np.errstate(over="ignore"):
        for number in numbers:
            word = number.astype(np.uint64) if isinstance(number, np.ndarray) else np.uint64(number & ODD)
            seed = (seed ^ word) * np.uint64(FACTOR) + np.uint64(STEP)
            seed = seed ^ (seed >> np.uint64(31))
    return seed & np.uint64(ODD >> 1)


class Draws:
    """Streams of random numbers, one for each sample and purpose.

    A sample draws the same whoever else is in the batch and whichever process it is on; so a step of several processes
    is the step of one on all their samples, and a run may go on with another number of processes.

    Args:
        seed: Seed of the run.
        step: Number of the batch.
        places: i64[b] on the CPU, places of the samples in the batch of all processes.
        device: Where numbers are drawn. The numbers of a device are its own.
    """

    def __init__(self, seed: int, step: int, places: Tensor, device: torch.device | str = "cpu") -> None:
        self.seed, self.step, self.places, self.device = seed, step, places, torch.device(device)

    def __len__(self) -> int:
        return len(self.places)

    def rows(self, index: Tensor | slice) -> Draws:
        """Take samples."""
        return Draws(self.seed, self.step, self.places[index], self.device)

    def normal(self, purpose: str, *shape: int) -> Tensor:
        """Draw f32[b, ...], standard normal; ``purpose`` tells the streams of a sample apart."""
        return self._each(torch.randn, purpose, shape)

    def uniform(self, purpose: str, *shape: int) -> Tensor:
        """Draw f32[b, ...], in [0, 1)."""
        return self._each(torch.rand, purpose, shape)

    def generator(self, row: int, purpose: str) -> Generator:
        """Make the generator of one sample, on the CPU."""
        return Generator().manual_seed(int(self._seeds(purpose)[row]))

    def _each(self, draw: Callable[..., Tensor], purpose: str, shape: tuple[int, ...]) -> Tensor:
        values = torch.empty(len(self), *shape, device=self.device)
        rng = Generator(self.device)
        for row, seed in zip(values, self._seeds(purpose).tolist(), strict=True):
            rng.manual_seed(seed)  # much cheaper than a new generator
            draw(shape, generator=rng, out=row)
        return values

    def _seeds(self, purpose: str) -> NDArray[np.uint64]:
        return mixed(self.seed, self.step, zlib.crc32(purpose.encode()), self.places.numpy())


class SampleGenerator(Generator):
    """A generator that also knows the stream of each sample, see ``uniform_by_sample``."""

    draws: Draws
    purpose: str
    calls: int

    @classmethod
    def of(cls, draws: Draws, purpose: str) -> SampleGenerator:
        """Make the generator that stands for all samples of ``draws``."""
        rng = cls()
        rng.draws, rng.purpose, rng.calls = Draws(draws.seed, draws.step, draws.places), purpose, 0
        return rng

    def uniform(self, *shape: int) -> Tensor:
        """Draw f32[b, ...] in [0, 1), each sample from its own stream; other numbers in every call."""
        self.calls += 1
        return self.draws.uniform(self.purpose if self.calls == 1 else f"{self.purpose} {self.calls}", *shape)


def uniform_by_sample(rng: Generator, samples: int, *shape: int) -> Tensor:
    """Draw f32[b, ...] in [0, 1), each sample from its own stream where ``rng`` knows them.

    Args:
        rng: CPU generator.
        samples: Samples ``b``.
        shape: Of one sample.
    """
    if isinstance(rng, SampleGenerator):
        return rng.uniform(*shape)
    return torch.rand(samples, *shape, generator=rng)
