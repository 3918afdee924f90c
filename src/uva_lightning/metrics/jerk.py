"""How smooth motions are: the third derivative of what a robot was told."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def jerks(positions: NDArray[np.floating], rate_hz: float) -> NDArray[np.float64]:
    """Give the length of the third difference of f[k, a] at every step, over the period cubed: f64[max(0, k - 3)].

    Unit: that of the positions per s^3.
    """
    thirds = np.diff(np.asarray(positions, np.float64), n=3, axis=0) * rate_hz**3
    lengths: NDArray[np.float64] = np.linalg.norm(thirds, axis=1)
    return lengths


def mean_jerk(actions: Sequence[NDArray[np.floating]], columns: Sequence[int], rate_hz: float) -> float | None:
    """Average over an episode.

    Args:
        actions: What was run, f[a] each, in order.
        columns: Those that are positions.
        rate_hz: Control rate.

    Returns:
        The mean; None where fewer than four actions were run.
    """
    found = jerks(np.stack(actions)[:, list(columns)], rate_hz) if len(actions) > 3 else ()
    return float(np.mean(found)) if len(found) else None
