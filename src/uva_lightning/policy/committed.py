"""What robots are doing while the next chunk is computed, and how closely that chunk must follow it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Rest:
    """Actions of one robot that are still to be run, when the next chunk is asked for.

    Args:
        actions: f32[k, a], rest of the present chunk from the step of the observation on, at least one.
        delay: Steps until the next chunk is there: so many of the actions are run in any case. 0 to ``k``.
    """

    actions: NDArray[np.float32]
    delay: int


@dataclass(frozen=True)
class Committed:
    """The same of ``b`` robots, as long as a chunk.

    Args:
        actions: f32[b, h, a].
        weight: f32[b, h]: 1 where the new chunk must have this action, 0 where it need not care.
    """

    actions: NDArray[np.float32]
    weight: NDArray[np.float32]

    @classmethod
    def of(cls, rests: Sequence[Rest], horizon: int) -> Self:
        """Lay what is left of chunks at the beginning of new ones.

        Raises:
            ValueError: There is nothing left, or more than a chunk, or the delay is longer than what is left.
        """
        actions, weights = [], []
        for rest in rests:
            known = len(rest.actions)
            if not 1 <= known <= horizon or not 0 <= rest.delay <= known:
                raise ValueError(
                    f"{known} actions are committed with a delay of {rest.delay} steps, expected 1 to {horizon} "
                    "actions, the length of a chunk, and a delay from 0 to their number."
                )
            last = np.repeat(rest.actions[-1:], horizon - known, axis=0)  # any value will do: its weight is 0
            actions.append(np.concatenate((rest.actions, last)))
            weights.append(soft_mask(horizon, known, rest.delay))
        return cls(np.stack(actions).astype(np.float32), np.stack(weights))


def soft_mask(horizon: int, known: int, delay: int) -> NDArray[np.float32]:
    """Weigh how closely each step of a new chunk must follow the present one (Black 2025, equation 5).

    Args:
        horizon: Steps ``h`` of a chunk.
        known: Steps of the new chunk about which the present one says something, at most ``h``.
        delay: Steps that will be run in any case, at most ``known``.

    Returns:
        f32[h]: 1 for the first ``delay``, then falling to 0 where the present chunk ends.
    """
    step = np.arange(horizon, dtype=np.float64)
    left = np.clip((known - step) / (known - delay + 1), 0, 1)
    falling = left * np.expm1(left) / np.expm1(1)
    mask: NDArray[np.float32] = np.where(step < delay, 1.0, np.where(step < known, falling, 0.0)).astype(np.float32)
    return mask
