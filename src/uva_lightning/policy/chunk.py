"""What a policy decides: actions with their unit, rate and times."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self

import numpy as np
from numpy.typing import DTypeLike, NDArray

from uva_lightning.policy.history import TimeStep
from uva_lightning.types import DataSpec


@dataclass(frozen=True)
class ActionChunk:
    """Actions to come, of one environment or of ``n``; ``numpy.asarray`` gives the numbers.

    Args:
        actions: f32[h, a] or f32[n, h, a], physical units.
        unit: What an action is, with its unit, as the data set says.
        rate_hz: Control rate in Hz.
        steps: i64[h] or i64[n, h], control step of each action, counted as in the observations.
        times: f64[h] or f64[n, h], time of each action in s, by the clock of the observations.
        timing: How long the stages of the decision took, in ms.
    """

    actions: NDArray[np.float32]
    unit: str
    rate_hz: float
    steps: NDArray[np.int64]
    times: NDArray[np.float64]
    timing: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def after(
        cls, now: Sequence[TimeStep], actions: NDArray[np.float32], spec: DataSpec, timing: Mapping[str, float]
    ) -> Self:
        """Give the chunks f32[n, h, a] that follow these ``n`` observations.

        Raises:
            ValueError: An action is no number, which nobody must run.
        """
        if not np.isfinite(actions).all():
            raise ValueError(
                "The model gave actions with NaN or infinity, expected finite numbers; look at its weights and its "
                "normaliser (uva replay --ckpt tells which of the two)."
            )
        late = int("chunk" in spec.conventions)  # the chunk begins one step after the last frame
        ahead = np.arange(spec.horizon) + late
        steps = np.array([at.step for at in now], dtype=np.int64)[:, None] + ahead
        times = np.array([at.time for at in now])[:, None] + ahead / spec.rate_hz
        return cls(actions, spec.action_meaning, spec.rate_hz, steps, times, timing)

    def row(self, index: int) -> Self:
        """Give the chunk of one of ``n`` environments."""
        return replace(self, actions=self.actions[index], steps=self.steps[index], times=self.times[index])

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> NDArray[Any]:
        """Give the actions."""
        return np.array(self.actions, dtype=dtype) if copy else np.asarray(self.actions, dtype=dtype)

    def __len__(self) -> int:
        """Actions ``h`` of a chunk."""
        return int(self.actions.shape[-2])
