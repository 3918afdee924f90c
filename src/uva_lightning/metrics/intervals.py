"""How sure one may be of a mean or a share that comes from a few episodes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

LEVEL = 0.95
RESAMPLES = 10_000
_AT_ONCE = 1 << 20
"""Numbers that are drawn at a time."""


class Interval(NamedTuple):
    """Bounds that hold the true value with 95 % confidence."""

    low: float
    high: float


def bootstrap_mean(values: Sequence[float] | NDArray[np.float64], seed: int = 0) -> Interval:
    """Give the percentile bootstrap interval of a mean.

    Args:
        values: One per episode or sample, at least one.
        seed: Seed of the resampling; the same values and seed give the same interval.
    """
    numbers = np.asarray(values, dtype=np.float64)
    if numbers.ndim != 1 or not len(numbers) or not np.isfinite(numbers).all():
        raise ValueError(
            f"The values have shape {numbers.shape}, {np.isfinite(numbers).sum()} of them finite, expected a list of "
            "at least one finite number."
        )
    return _quantiles(resampled_means(numbers[:, None], seed)[:, 0])


def bootstrap_columns(values: NDArray[np.float64], seed: int = 0) -> list[Interval]:
    """Give ``bootstrap_mean`` of each column of f64[n, k], which resamples the rows of all columns alike."""
    return [_quantiles(means) for means in resampled_means(np.asarray(values, dtype=np.float64), seed).T]


def bootstrap_ratio(values: NDArray[np.float64], other: NDArray[np.float64], seed: int = 0) -> Interval | None:
    """Give the percentile bootstrap interval of the mean of f64[n] over that of ``other`` f64[n], in pairs.

    Returns:
        The interval; nothing where more than one in forty of the resampled means below is not positive: the ratio then
        has no bounds.
    """
    means = resampled_means(np.stack((values, other), axis=1), seed)
    if np.quantile(means[:, 1], (1 - LEVEL) / 2) <= 0:
        return None
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = means[:, 0] / means[:, 1]
    return _quantiles(ratios[means[:, 1] > 0])


def resampled_means(values: NDArray[np.float64], seed: int = 0) -> NDArray[np.float64]:
    """Draw as many rows of f64[n, k] as there are, with replacement, and average, over and over: f64[RESAMPLES, k]."""
    count, random = len(values), np.random.default_rng(seed)
    block = max(1, _AT_ONCE // count)
    parts = []
    for first in range(0, RESAMPLES, block):
        rows = min(block, RESAMPLES - first)
        drawn = random.integers(count, size=(rows, count)) + count * np.arange(rows)[:, None]
        times = np.bincount(drawn.ravel(), minlength=rows * count).reshape(rows, count)
        parts.append(times @ values / count)
    means: NDArray[np.float64] = np.concatenate(parts)
    return means


def _quantiles(means: NDArray[np.float64]) -> Interval:
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(float(low), float(high))


def student_mean(values: Sequence[float] | NDArray[np.float64]) -> Interval | None:
    """Give Student's t interval of a mean: for a few values, such as one per training seed, that scatter normally.

    A bootstrap of three values would never leave the range of these three.

    Returns:
        The interval; nothing for a single value, which says nothing about its scatter.
    """
    numbers = np.asarray(values, dtype=np.float64)
    if numbers.ndim != 1 or not len(numbers) or not np.isfinite(numbers).all():
        raise ValueError(f"The values are {numbers.tolist()}, expected a list of at least one finite number.")
    if len(numbers) == 1:
        return None
    centre = float(numbers.mean())
    reach = student_quantile(len(numbers) - 1) * float(numbers.std(ddof=1)) / math.sqrt(len(numbers))
    return Interval(centre - reach, centre + reach)


def student_quantile(freedom: int) -> float:
    """Give the t within which Student's distribution lies with 95 % probability, ``freedom`` >= 1 degrees of it.

    The distribution function is a finite sum in the angle atan(t / sqrt(freedom)) (Abramowitz and Stegun, 26.7.3 and
    26.7.4), which rises with the angle.
    """
    low, high = 0.0, math.pi / 2
    while (angle := (low + high) / 2) not in (low, high):
        low, high = (angle, high) if _student_within(angle, freedom) < LEVEL else (low, angle)
    return math.tan(angle) * math.sqrt(freedom)


def _student_within(angle: float, freedom: int) -> float:
    odd, cosine = freedom % 2, math.cos(angle)
    term, total = (cosine if odd else 1.0), 0.0
    for power in range(2 + odd, freedom + 1, 2):
        total += term
        term *= (power - 1) / power * cosine * cosine
    return 2 / math.pi * (angle + math.sin(angle) * total) if odd else math.sin(angle) * total


def wilson(successes: int, total: int) -> Interval:
    """Give the Wilson score interval of a share; it holds near 0 and 1 and for few episodes too."""
    if total < 1 or not 0 <= successes <= total:
        raise ValueError(f"{successes} of {total} were successful, expected 0 to {total} of at least 1.")
    share, z = successes / total, NormalDist().inv_cdf((1 + LEVEL) / 2)
    shrink = 1 + z * z / total
    centre = (share + z * z / (2 * total)) / shrink
    reach = z * math.sqrt(share * (1 - share) / total + z * z / (4 * total * total)) / shrink
    return Interval(max(0.0, centre - reach), min(1.0, centre + reach))
