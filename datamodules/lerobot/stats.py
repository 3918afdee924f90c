"""Statistics of fields, gathered episode by episode, as LeRobot keeps them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

PICTURES = 100
"""Pictures of an episode that are looked at."""
SIDE = 150
"""Pixels to which a picture is thinned out, as neighbours say the same."""
WHITE = 255.0


class Moments:
    """Minimum, maximum, mean and spread of each column, over all values seen."""

    def __init__(self) -> None:
        self.count = 0
        self._parts: list[tuple[int, NDArray[Any], NDArray[Any], NDArray[Any], NDArray[Any]]] = []

    def add(self, values: NDArray[Any]) -> None:
        """Take in f[n, width]."""
        values = values.astype(np.float64)
        part = (len(values), values.min(0), values.max(0), values.mean(0), values.var(0))
        self._parts = [part if not self._parts else _joined(self._parts[0], part)]
        self.count += len(values)

    def entry(self, count: int | None = None, shape: tuple[int, ...] = (-1,)) -> dict[str, list[Any]]:
        """Give the statistics by LeRobot's names.

        Args:
            count: What is counted, where a value is not a step.
            shape: Shape of each.
        """
        _, low, high, mean, variance = self._parts[0]
        found = {"min": low, "max": high, "mean": mean, "std": np.sqrt(variance)}
        entry = {name: value.reshape(shape).tolist() for name, value in found.items()}
        return {**entry, "count": [self.count if count is None else count]}


def pixels(pictures: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Thin out u8[n, H, W, 3] and give its pixels as f64[k, 3] from 0 to 1."""
    step = max(1, max(pictures.shape[1:3]) // SIDE)
    thinned: NDArray[np.float64] = pictures[:, ::step, ::step].reshape(-1, 3) / WHITE
    return thinned


def looked_at(steps: int) -> NDArray[np.int64]:
    """Choose the pictures of an episode that are looked at, evenly: i64[k]."""
    return np.unique(np.linspace(0, steps - 1, min(PICTURES, steps)).astype(np.int64))


def _joined(
    one: tuple[int, NDArray[Any], NDArray[Any], NDArray[Any], NDArray[Any]],
    two: tuple[int, NDArray[Any], NDArray[Any], NDArray[Any], NDArray[Any]],
) -> tuple[int, NDArray[Any], NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Merge two groups (Chan et al., 1979)."""
    count = one[0] + two[0]
    delta = two[3] - one[3]
    variance = (one[0] * one[4] + two[0] * two[4] + delta**2 * one[0] * two[0] / count) / count
    mean = one[3] + delta * two[0] / count
    return count, np.minimum(one[1], two[1]), np.maximum(one[2], two[2]), mean, variance
