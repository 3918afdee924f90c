"""Streams: how each modality enters the sequence of latent tokens (UVA section 3.2)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor, nn


@dataclass(frozen=True)
class Shape:
    """Sizes that the model's parts share; they follow from the data and the tokenizer.

    Args:
        frames: Future frames ``t``.
        grid: Tokens of a frame, rows and columns; ``s`` is their product.
        width: Width ``d`` of the transformer.
        channels: Width of one token of the modality at hand.
        steps: Steps of the modality at hand: ``h`` for actions, ``t`` for frames and proprioception.
    """

    frames: int
    grid: tuple[int, int]
    width: int
    channels: int
    steps: int

    @property
    def places(self) -> int:
        """Tokens ``s`` of a frame."""
        return self.grid[0] * self.grid[1]


class Fourier(nn.Module):
    """Add sines and cosines of a coordinate, so that a linear layer can tell places apart (Tancik 2020).

    Args:
        channels: Width of the input.
        octaves: Frequencies pi, 2 pi, 4 pi ... per coordinate; inputs are about in [-1, 1].
    """

    frequencies: Tensor

    def __init__(self, channels: int, octaves: int) -> None:
        super().__init__()
        self.width = channels * (1 + 2 * octaves)
        self.register_buffer("frequencies", torch.pi * 2.0 ** torch.arange(octaves), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map f32[..., w] to f32[..., w * (1 + 2 * octaves)]."""
        angles = (x.float()[..., None] * self.frequencies).flatten(-2)
        return torch.cat((x.float(), angles.sin(), angles.cos()), dim=-1)


class Stream(nn.Module):
    """One modality: project each step, show a placeholder where it is hidden, fuse, spread over the sequence.

    The input of the transformer is the sum of all fused streams. That is UVA's concatenation of features and one
    linear layer, whose column blocks are our ``fuse`` layers; projecting the few steps before they are spread gives
    the same numbers for far less work.

    Args:
        shape: Sizes; filled in by the model.
        octaves: Fourier features per coordinate for low-dimensional input; 0 is UVA's plain linear projection.
        hidden: Width of a hidden layer of the projection; 0 is UVA's plain linear projection.
        zero_init: Start with no influence, so that a trained model gives the same output when this stream is added.
    """

    def __init__(self, shape: Shape, octaves: int = 0, hidden: int = 0, zero_init: bool = False) -> None:
        super().__init__()
        self.length = shape.frames * shape.places
        features = Fourier(shape.channels, octaves) if octaves else nn.Identity()
        width = features.width if isinstance(features, Fourier) else shape.channels
        layers = [nn.Linear(width, hidden), nn.GELU()] if hidden else []
        self.project = nn.Sequential(features, *layers, nn.Linear(hidden or width, shape.width))
        self.placeholder = nn.Parameter(torch.randn(1, shape.width) * 0.02)
        self.fuse = nn.Linear(shape.width, shape.width, bias=False)
        if zero_init:
            nn.init.zeros_(self.fuse.weight)

    def forward(self, values: Tensor, visible: Tensor) -> Tensor:
        """Give this modality's share of the transformer's input.

        Args:
            values: f32[b, ..., w], steps or frames and their tokens; what lies at hidden places never matters.
            visible: bool[b, ...].

        Returns:
            [b, t * s, d].
        """
        visible = visible.flatten(1)[..., None]
        values = values.flatten(1, -2).where(visible, 0.0)  # a NaN at a hidden place would reach the gradients
        x = torch.where(visible, self.project(values), self.placeholder.to(values.dtype))
        return self.spread(self.fuse(x))

    def spread(self, x: Tensor) -> Tensor:
        """Repeat each step consecutively: a chunk of 16 actions covers 4 frames of 256 tokens, 64 tokens each."""
        if self.length % x.shape[1]:
            raise ValueError(
                f"{x.shape[1]} steps cannot be spread evenly over {self.length} tokens; "
                "the tokens (frames times tokens of a frame) must be a multiple of the steps."
            )
        return rearrange(x[:, :, None].expand(-1, -1, self.length // x.shape[1], -1), "b n r d -> b (n r) d")
