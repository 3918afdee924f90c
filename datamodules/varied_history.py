"""Draw which steps of the past a model is shown, so that it copes with any rate of pictures (UVA's released code)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from uva_lightning.datamodules.rows import Rows

HISTORY = 1
"""Tells these draws from others of the same batch."""


@dataclass(frozen=True)
class VariedHistory:
    """Uniform draws among the non-decreasing choices of ``frames`` steps that end with the latest one.

    UVA's UMI loader draws differently, without repeats and possibly without the latest step, of which the robot's next
    action depends; here the latest step is always shown.

    Args:
        frames: Frames ``t``.
        horizon: Steps of the past.
        each_sample: Draw for each sample, instead of once for the batch.
    """

    frames: int
    horizon: int
    each_sample: bool

    def __call__(self, rows: Rows) -> Tensor:
        """Draw i64[b, t], steps from 0 to ``horizon - 1``."""
        free = self.frames - 1
        places = self.horizon + free - 1
        if self.each_sample:
            keys = rows.uniform(HISTORY, places)
        else:
            keys = torch.rand(1, places, generator=rows.rng(HISTORY)).expand(len(rows), -1)
        # Choices with repeats are choices without repeats among ``free - 1`` more places, squeezed together.
        chosen = keys.argsort(dim=1)[:, :free].sort(dim=1).values - torch.arange(free)
        return torch.cat([chosen, torch.full((len(rows), 1), self.horizon - 1)], dim=1)
