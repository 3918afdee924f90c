"""Streams: how each modality enters the sequence of latent tokens (UVA section 3.2)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor, nn

OWN = "own"


@dataclass(frozen=True)
class Shape:
    """Sizes that the model's parts share; they follow from the data and the tokenizer.

    Args:
        frames: Future frames ``t``.
        grid: Tokens of a frame, rows and columns; ``s`` is their product.
        channels: Width of one token of the modality at hand.
        steps: Steps of the modality at hand: ``h`` for actions, ``t`` for frames, 1 for an instruction.
        width: Width ``d`` of the transformer, which fills it in.
    """

    frames: int
    grid: tuple[int, int]
    channels: int
    steps: int
    width: int = 0

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


class Entry(nn.Module, ABC):
    """How one modality becomes vectors of the transformer's width, or a placeholder where it is hidden.

    Args:
        shape: Sizes; filled in by the model.
        octaves: Fourier features per coordinate for low-dimensional input; 0 is UVA's plain linear projection.
        hidden: Width of a hidden layer of the projection; 0 is UVA's plain linear projection.
        placeholder: What stands for a hidden step: ``own``, a learned vector; another modality's name, the vector of
            that one (the official code marks hidden past and hidden future frames alike); null, the projection of
            zeros (the official code has nothing for proprioception, which it never hides).
        drop: Probability of hiding a visible step in training, see ``LatentTransformer.dropped``.
    """

    def __init__(self, shape: Shape, octaves: int, hidden: int, placeholder: str | None, drop: float) -> None:
        super().__init__()
        if not 0 <= drop < 1:
            raise ValueError(f"drop is {drop}, expected a probability in [0, 1); UVA drops 0.1 of the instructions.")
        self.drop, self.length = drop, shape.frames * shape.places
        self.borrows = None if placeholder in (OWN, None) else placeholder
        features = Fourier(shape.channels, octaves) if octaves else nn.Identity()
        width = features.width if isinstance(features, Fourier) else shape.channels
        layers = [nn.Linear(width, hidden), nn.GELU()] if hidden else []
        self.project = nn.Sequential(features, *layers, nn.Linear(hidden or width, shape.width))
        self.placeholder: nn.Parameter | None = None
        if placeholder == OWN:
            self.placeholder = nn.Parameter(torch.randn(1, shape.width) * 0.02)

    def embed(self, values: Tensor, visible: Tensor) -> Tensor:
        """Project what is visible.

        Args:
            values: f32[b, ..., w], steps or frames and their tokens; what lies at hidden places never matters.
            visible: bool[b, ...].

        Returns:
            [b, n, d], the axes between flattened.
        """
        visible = visible.flatten(1)[..., None]
        values = values.flatten(1, -2).where(visible, 0.0)  # a NaN at a hidden place would reach the gradients
        x = self.project(values)
        return x if self.placeholder is None else torch.where(visible, x, self.placeholder.to(values.dtype))

    @abstractmethod
    def forward(self, values: Tensor, visible: Tensor) -> Tensor:
        """Give this modality's part of the transformer's input; arguments as ``embed``."""


class Stream(Entry):
    """A modality that is added to every token: embed each step, fuse, spread over the sequence.

    The input of the transformer is the sum of all fused streams. That is UVA's concatenation of features and one
    linear layer, whose column blocks are our ``fuse`` layers; projecting the few steps before they are spread gives
    the same numbers for far less work.

    Args:
        shape: Sizes; filled in by the model.
        octaves: See ``Entry``.
        hidden: See ``Entry``.
        placeholder: See ``Entry``.
        drop: See ``Entry``; UVA drops half of the past actions.
        zero_init: Start with no influence, so that a trained model gives the same output when this stream is added.
    """

    def __init__(
        self,
        shape: Shape,
        octaves: int = 0,
        hidden: int = 0,
        placeholder: str | None = OWN,
        drop: float = 0.0,
        zero_init: bool = False,
    ) -> None:
        super().__init__(shape, octaves, hidden, placeholder, drop)
        self.fuse = nn.Linear(shape.width, shape.width, bias=False)
        if zero_init:
            nn.init.zeros_(self.fuse.weight)

    def forward(self, values: Tensor, visible: Tensor) -> Tensor:
        """Give this modality's share of every token, [b, t * s, d]."""
        return self.spread(self.fuse(self.embed(values, visible)))

    def placeholder_share(self, samples: int, channels: int) -> Tensor:
        """Give the share of every token, [b, t * s, d], of samples of which nothing of this modality is visible.

        Args:
            samples: Samples ``b``.
            channels: Width of one token of the modality.
        """
        step = torch.zeros(1, 1, channels, device=self.fuse.weight.device)
        hidden = torch.zeros(1, 1, dtype=torch.bool, device=step.device)
        return self.fuse(self.embed(step, hidden)).expand(samples, self.length, -1)

    def spread(self, x: Tensor) -> Tensor:
        """Repeat each step consecutively: a chunk of 16 actions covers 4 frames of 256 tokens, 64 tokens each."""
        if self.length % x.shape[1]:
            raise ValueError(
                f"{x.shape[1]} steps cannot be spread evenly over {self.length} tokens; "
                "the tokens (frames times tokens of a frame) must be a multiple of the steps."
            )
        return rearrange(x[:, :, None].expand(-1, -1, self.length // x.shape[1], -1), "b n r d -> b (n r) d")


class Prefix(Entry):
    """A modality with tokens of its own in front of the sequence, as UVA's instruction (section 3.3).

    Args:
        shape: Sizes; filled in by the model.
        tokens: Tokens in front, a multiple of the modality's steps.
        placeholder: See ``Entry``.
        drop: See ``Entry``; UVA drops one instruction in ten.
    """

    def __init__(self, shape: Shape, tokens: int = 64, placeholder: str | None = OWN, drop: float = 0.1) -> None:
        super().__init__(shape, 0, 0, placeholder, drop)
        if tokens < 1 or tokens % shape.steps:
            raise ValueError(f"tokens is {tokens}, expected a positive multiple of the modality's {shape.steps} steps.")
        self.tokens = tokens
        self.encoder_positions = nn.Parameter(torch.randn(1, tokens, shape.width) * 0.02)
        self.decoder_positions = nn.Parameter(torch.randn(1, tokens, shape.width) * 0.02)

    def forward(self, values: Tensor, visible: Tensor) -> Tensor:
        """Give the tokens in front, [b, tokens, d], without their positions."""
        x = self.embed(values, visible)
        return x.repeat_interleave(self.tokens // x.shape[1], dim=1)
