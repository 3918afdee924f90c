"""What normalisers are chosen from, gathered block by block, so that memory does not grow with the data."""

from __future__ import annotations

import torch
from torch import Tensor


class Extremes:
    """Smallest and largest value of each dimension.

    Attributes:
        low: f32[w].
        high: f32[w].
    """

    def __init__(self) -> None:
        self.low, self.high = torch.tensor(torch.inf), torch.tensor(-torch.inf)

    def add(self, values: Tensor) -> None:
        """Take f32[n, w]."""
        self.low = torch.minimum(self.low, values.amin(dim=0))
        self.high = torch.maximum(self.high, values.amax(dim=0))


class Moments:
    """Mean and standard deviation of each dimension, in double precision.

    Blocks are merged by Chan, Golub and LeVeque's rule (1979), which keeps the digits that a sum of squares loses where
    the mean is large beside the deviation.

    Attributes:
        count: Values of a dimension.
        mean: f64[w].
    """

    def __init__(self) -> None:
        self.count, self.mean = 0, torch.tensor(0.0, dtype=torch.float64)
        self._squares = torch.tensor(0.0, dtype=torch.float64)  # of the distances from the mean

    @property
    def std(self) -> Tensor:
        """Standard deviation f64[w] with ``count - 1`` in the denominator; 0 for a single value."""
        return (self._squares / max(1, self.count - 1)).sqrt()

    def add(self, values: Tensor) -> None:
        """Take f32[n, w]."""
        block = values.double()
        mean, count = block.mean(dim=0), len(block)
        apart, total = mean - self.mean, self.count + count
        self._squares = self._squares + (block - mean).square().sum(dim=0) + apart**2 * (self.count * count / total)
        self.mean = self.mean + apart * (count / total)
        self.count = total


class Ranks:
    """Quantiles of each dimension: exact up to ``2 * capacity`` values, of bounded error and memory beyond.

    Sorted buffers of ``capacity`` values stand for ``2 ** level`` values each; two of a level are merged, and every
    second value makes a buffer of the next level (Munro and Paterson 1980; Manku, Rajagopalan and Lindsay 1998).
    Deterministic: the result follows from the values and their order.

    The rank of what is found is wrong by at most ``levels / (2 * capacity)`` of all values, with ``levels`` the binary
    logarithm of ``values / capacity``: of a thousand million values with the default, by 0.011 %. Memory is that of
    ``levels + 2`` buffers.

    Args:
        capacity: Values of a buffer.
    """

    def __init__(self, capacity: int = 65536) -> None:
        self.capacity, self.count = capacity, 0
        self._rest = torch.empty(0)
        self._levels: dict[int, Tensor] = {}
        self._second: dict[int, int] = {}

    def add(self, values: Tensor) -> None:
        """Take f32[n, w]."""
        self.count += len(values)
        rest = torch.cat([self._rest, values]) if len(self._rest) else values
        while len(rest) >= self.capacity:
            self._push(rest[: self.capacity].sort(dim=0).values)
            rest = rest[self.capacity :]
        self._rest = rest.clone()  # no view, which would keep the whole block

    def quantile(self, share: float) -> Tensor:
        """Give f32[w], below which this share of the values lies; between two values linear, as NumPy."""
        parts = {0: self._rest} if len(self._rest) else {}
        weights = [torch.full((len(values),), 1 << level) for level, values in (*parts.items(), *self._levels.items())]
        values, order = torch.cat([*parts.values(), *self._levels.values()]).sort(dim=0)  # f32[m, w]
        reached = torch.cat(weights)[order].cumsum(dim=0)  # i64[m, w]
        place = share * (self.count - 1)
        low = int(place)
        below, above = (self._at(values, reached, rank) for rank in (low, min(low + 1, self.count - 1)))
        return torch.lerp(below, above, place - low)

    def _push(self, values: Tensor) -> None:
        level = 0
        while level in self._levels:
            merged = torch.cat([self._levels.pop(level), values]).sort(dim=0).values
            second = self._second.get(level, 0)
            values, self._second[level] = merged[second::2], 1 - second  # by turns, so that errors cancel
            level += 1
        self._levels[level] = values

    @staticmethod
    def _at(values: Tensor, reached: Tensor, rank: int) -> Tensor:
        row = (reached <= rank).sum(dim=0, keepdim=True)
        return values.gather(0, row)[0]
