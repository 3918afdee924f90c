"""Samples of one data set of a mixture, one after another without end: a pure function from position to sample."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np

from uva_lightning.datamodules.windows import Index


class Endless(ABC):
    """An endless order of samples; it needs no state, so that any position can be asked for.

    Args:
        length: Positions of a pass.
        seed: Numbers that the order follows from.
    """

    def __init__(self, length: int, *seed: int) -> None:
        self.length, self.seed = length, seed

    def __call__(self, positions: Index) -> Index:
        """Name the samples at i64[n] positions, not negative: i64[n]."""
        passes, places = np.divmod(positions, self.length)
        samples = np.empty_like(positions)
        for number in np.unique(passes).tolist():
            mine = passes == number
            samples[mine] = self._pass(number)[places[mine]]
        return samples

    def _pass(self, number: int) -> Index:
        """Give the samples of a pass, i64[length]; that of the last call is kept."""
        if getattr(self, "_kept", None) != number:
            self._kept, self._order = number, self._shuffled(np.random.default_rng((*self.seed, number)))
        return self._order

    @abstractmethod
    def _shuffled(self, rng: np.random.Generator) -> Index:
        """Draw the samples of a pass."""


class EachWindow(Endless):
    """Every window once in each pass.

    Args:
        windows: Number of windows.
        seed: Numbers that the order follows from.
    """

    def __init__(self, windows: int, *seed: int) -> None:
        super().__init__(windows, *seed)

    def _shuffled(self, rng: np.random.Generator) -> Index:
        return rng.permutation(self.length)


class EachEpisode(Endless):
    """Every episode once in each pass, by one of its windows, so that long episodes do not count for more.

    Args:
        episodes: i64[n], the episode of each window.
        seed: Numbers that the order follows from.
    """

    def __init__(self, episodes: Index, *seed: int) -> None:
        self._windows = np.argsort(episodes, kind="stable")
        _, self._counts = np.unique(episodes, return_counts=True)
        self._firsts = np.cumsum(self._counts) - self._counts
        super().__init__(len(self._counts), *seed)

    def _shuffled(self, rng: np.random.Generator) -> Index:
        within = (rng.random(self.length) * self._counts).astype(np.int64)
        chosen: Index = self._windows[self._firsts + within]
        return rng.permutation(chosen)
