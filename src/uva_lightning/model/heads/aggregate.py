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
        """Map [b, t, s, d] to [b, conditions, width], also for no samples at all (b = 0)."""


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
        x = self.interpolate(x.unflatten(0, latent.shape[:2]).transpose(1, 2))  # [b, d, h]
        return self.refine(rearrange(x, "b d h -> b h d"))


class ConvOri(Aggregator):
    """UVA's ``conv_ori``: stretch the frames to one per action by a transposed convolution, then average each frame.

    Args:
        shape: Sizes; filled in by the head.
    """

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        d = self.width = shape.width
        self.conditions, self.grid = shape.steps, shape.grid
        if shape.steps % shape.frames:
            raise ValueError(f"ConvOri stretches {shape.frames} frames to {shape.steps} steps, expected a multiple.")
        stretch = (shape.steps // shape.frames, 1, 1)
        self.conv_transpose3d = nn.ConvTranspose3d(d, d, stretch, stretch)

    def forward(self, latent: Tensor) -> Tensor:
        """See the base class."""
        x = self.conv_transpose3d(rearrange(latent, "b t (y x) d -> b d t y x", y=self.grid[0]))
        return rearrange(x.mean(dim=(-2, -1)), "b d h -> b h d")


class TokenConv(Aggregator):
    """UVA's ``conv2``: two convolutions along the width that take the tokens for channels.

    Args:
        shape: Sizes; filled in by the head.
        hidden: Channels between the two.
        kernel: Width of the kernel, odd.
    """

    def __init__(self, shape: Shape, hidden: int = 256, kernel: int = 7) -> None:
        super().__init__()
        self.conditions, self.width = shape.steps, shape.width
        first = nn.Conv1d(shape.frames * shape.places, hidden, kernel, padding=kernel // 2)
        self.conv = nn.Sequential(first, nn.ReLU(), nn.Conv1d(hidden, shape.steps, kernel, padding=kernel // 2))

    def forward(self, latent: Tensor) -> Tensor:
        """See the base class."""
        return self.conv(latent.flatten(1, 2))


class TokenFC(Aggregator):
    """UVA's ``fc2``: two linear layers over the token axis.

    Args:
        shape: Sizes; filled in by the head.
        hidden: Vectors between the two.
    """

    def __init__(self, shape: Shape, hidden: int = 256) -> None:
        super().__init__()
        self.conditions, self.width = shape.steps, shape.width
        tokens = shape.frames * shape.places
        self.fc = nn.Sequential(nn.Linear(tokens, hidden), nn.ReLU(), nn.Linear(hidden, shape.steps))

    def forward(self, latent: Tensor) -> Tensor:
        """See the base class."""
        return self.fc(latent.flatten(1, 2).transpose(1, 2)).transpose(1, 2)


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
