"""Losses divided by their running means."""

from __future__ import annotations

import torch
from torch import Tensor

from uva_lightning.balancers.running import RunningBalancer, Served, positive


class LossScale(RunningBalancer):
    """Divide each term by its running mean, so that all count alike whatever their units.

    The factor of a term is ``1 / m`` with ``m = decay * m + (1 - decay) * |L|``; its first value is its first mean.

    Args:
        decay: Of the running mean, in [0, 1).
    """

    keeps = ("scale",)

    def __init__(self, decay: float = 0.99) -> None:
        super().__init__()
        if not 0 <= decay < 1:
            raise ValueError(f"decay is {decay}, expected a number in [0, 1); 0.99 averages about 100 steps.")
        self.decay = decay

    def weigh(self, served: Served) -> Tensor:
        """See the base class."""
        values = served.means.abs()
        values = values.where(positive(values), torch.nan)
        scale = self.recall("scale", served)
        scale = scale.where(~scale.isnan(), values)
        if self.training:
            moved = self.decay * scale + (1 - self.decay) * values
            scale = moved.where(~moved.isnan(), scale)
            self.keep("scale", served, scale)
        return 1.0 / scale.clamp(min=torch.finfo(torch.float32).tiny)
