"""Split a run of samples in fixed shares, so that rounding errors never add up."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Counts = NDArray[np.int64]


def apportioned(shares: Sequence[float], samples: Counts | int) -> Counts:
    """Count how many of the first so many samples each share gets.

    No count ever falls as the samples grow, since each is a share of what the larger ones left; so one more sample goes
    to exactly one of them, and any run of samples has every share to within one or two samples.

    Args:
        shares: Not negative, with a positive sum.
        samples: i64[n], or one number.

    Returns:
        i64[k, n], or i64[k], which add up to ``samples``.
    """
    left = np.asarray(samples, dtype=np.int64)
    counts = np.zeros((len(shares), *left.shape), dtype=np.int64)
    order = sorted(range(len(shares)), key=shares.__getitem__, reverse=True)  # small ones last: smallest errors
    for place, index in enumerate(order):
        rest = sum(shares[other] for other in order[place:])
        if rest > 0:  # else only shares of zero are left
            counts[index] = np.rint(left * (shares[index] / rest))
        left = left - counts[index]
    return counts


def owners(shares: Sequence[float], first: int, count: int) -> tuple[Counts, Counts]:
    """Say to whom each sample of a run goes.

    Args:
        shares: Not negative, with a positive sum.
        first: Number of the first sample.
        count: Length of the run.

    Returns:
        i64[count], the owner of each, and i64[count], how many of the owner's came before it.
    """
    counts = apportioned(shares, np.arange(first, first + count + 1))  # [k, count + 1]
    owner: Counts = np.diff(counts, axis=1).argmax(axis=0)
    return owner, counts[owner, np.arange(count)]
