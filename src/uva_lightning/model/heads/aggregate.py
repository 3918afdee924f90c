"""Aggregators: from all latent tokens to the conditions of the action denoiser."""

from __future__ import annotations

from abc import ABC, abstractmethod

from einops import rearrange
from torch import Tensor, nn

from uva_lightning.model.streams import Shape


class Aggregator(nn.Module, ABC):
    """Turn Z into conditions.

    Attributes:
        conditions: Number of conditions per sample.
        width: Width of a condition.
    """

    conditions: int
    width: int

    @abstractmethod
    def forward(self, latent: Tensor) -> Tensor:
        """Map [b, t, s, d] to [b, conditions, width]."""


class ConvFC(Aggregator):
    """UVA's ``conv_fc``: convolve and pool each frame, then mix frames into one condition per action.

    Args:
        shape: Sizes; filled in by the head.
        pooled: Rows and columns after pooling.
    """

    def __init__(self, shape: Shape, pooled: int = 4) -> None:
        super().__init__()
        d = self.width = shape.width
        self.conditions, self.grid = shape.steps, shape.grid
        self.conv = nn.Sequential(nn.Conv2d(d, d, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(pooled))
        self.fc = nn.Sequential(nn.Linear(d * pooled * pooled, d), nn.ReLU(), nn.Linear(d, d))
        self.interpolate = nn.Linear(shape.frames, shape.steps)
        self.refine = nn.Sequential(nn.Linear(d, d), nn.ReLU(), nn.Linear(d, d))

    def forward(self, latent: Tensor) -> Tensor:
        """See the base class."""
        frames = rearrange(latent, "b t (y x) d -> (b t) d y x", y=self.grid[0])
        x = self.fc(self.conv(frames).flatten(1))  # [b * t, d]
        x = self.interpolate(rearrange(x, "(b t) d -> b d t", b=len(latent)))  # [b, d, h]
        return self.refine(rearrange(x, "b d h -> b h d"))


class TokenMLP(Aggregator):
    """Squeeze each token, then an MLP over a frame's tokens: one condition per frame, places kept apart.

    Args:
        shape: Sizes; filled in by the head.
        squeeze: Numbers kept of each token.
        width: Width of a condition.
    """

    def __init__(self, shape: Shape, squeeze: int = 32, width: int = 512) -> None:
        super().__init__()
        self.conditions, self.width = shape.frames, width
        self.squeeze = nn.Linear(shape.width, squeeze)
        self.mlp = nn.Sequential(nn.Linear(squeeze * shape.places, width), nn.GELU(), nn.Linear(width, width))

    def forward(self, latent: Tensor) -> Tensor:
        """See the base class."""
        return self.mlp(rearrange(self.squeeze(latent), "b t s k -> b t (s k)"))
