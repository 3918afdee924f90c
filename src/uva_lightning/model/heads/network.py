"""The denoising network of all heads: an MLP steered by noise level and condition (MAR's DiffLoss network)."""

from __future__ import annotations

import math
from abc import ABC
from collections.abc import Callable, Iterator
from functools import partial
from itertools import repeat

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from uva_lightning.model.heads.denoiser import Guide

NORM_EPS = 1e-6
TIME_FEATURES = 256
MAX_PERIOD = 10_000.0
ROWS_AT_ONCE = 512
"""Rows, over all steps, whose modulations are computed in one pass: 40 MB of float32 in the base model's heads."""
Modulations = tuple[Tensor, ...]
"""What steers a step, [n, 3 w] for each block and [n, 2 w] for the output."""


class TimeEmbedding(nn.Module):
    """Sinusoidal features of the noise level, cosines first, then two linear layers."""

    periods: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(TIME_FEATURES, width), nn.SiLU(), nn.Linear(width, width))
        half = TIME_FEATURES // 2
        self.register_buffer("periods", torch.exp(-math.log(MAX_PERIOD) * torch.arange(half) / half), persistent=False)

    def forward(self, time: Tensor) -> Tensor:
        """Embed f32[n], in 0..1000."""
        angles = time.float()[:, None] * self.periods
        embedded: Tensor = self.mlp(torch.cat((angles.cos(), angles.sin()), dim=-1))
        return embedded


class ResidualBlock(nn.Module):
    """MLP block whose normalisation is shifted, scaled and gated by the steering vector."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, eps=NORM_EPS)
        self.mlp = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))
        self.modulation = nn.Linear(width, 3 * width)

    def forward(self, x: Tensor, steer: Tensor) -> Tensor:
        """Map [n, w] to [n, w]."""
        return self.modulated(x, self.modulation(steer))

    def modulated(self, x: Tensor, modulation: Tensor) -> Tensor:
        """Map [n, w] to [n, w], given shift, scale and gate, [n, 3 w]."""
        shift, scale, gate = modulation.chunk(3, dim=-1)
        return x + gate * self.mlp(self.norm(x) * (1 + scale) + shift)


class SteppedNetwork(nn.Module, ABC):
    """A denoising network as samplers use it: what a step needs besides x may be computed ahead."""

    condition: nn.Module
    """Projects the condition, [n, k] to [n, w]."""

    def prepare(self, times: Tensor, condition: Tensor) -> Iterator[Modulations]:
        """Compute ahead what each step takes; nothing if not overridden.

        Args:
            times: Levels f32[steps] in the order of the steps.
            condition: Already projected, [n, w].
        """
        yield from ((time, condition) for time in times.split(1))

    def step(self, x: Tensor, modulations: Modulations) -> Tensor:
        """Predict f32[n, channels_out] for x f32[n, channels_in], as ``forward`` does."""
        predicted: Tensor = self(x, *modulations)
        return predicted

    def steps(self, times: Tensor, condition: Tensor, guide: Guide | None) -> Iterator[Callable[[Tensor], Tensor]]:
        """Prepare the steps of a sampler.

        Args:
            times: Levels f32[steps] in their order.
            condition: [n, k].
            guide: Moves the prediction away from the unconditional one: its first numbers, as many as ``x`` has.

        Yields:
            For each step what predicts f32[n, channels_out] for x f32[n, channels_in].
        """
        others = repeat(None) if guide is None else self.prepare(times, self.condition(guide.condition))
        scale = 1.0 if guide is None else guide.scale
        for own, other in zip(self.prepare(times, self.condition(condition)), others, strict=False):
            yield partial(self._guided, own=own, other=other, scale=scale)

    def _guided(self, x: Tensor, own: Modulations, other: Modulations | None, scale: float) -> Tensor:
        predicted = self.step(x, own)
        if other is None:
            return predicted
        width = x.shape[-1]
        moved = torch.lerp(self.step(x, other)[:, :width], predicted[:, :width], scale)
        return torch.cat((moved, predicted[:, width:]), dim=-1)


class DenoisingMLP(SteppedNetwork):
    """Predict noise or velocity of rows that are noised independently.

    Args:
        channels_in: Width of a noisy row.
        channels_out: Width of the prediction.
        condition: Width of the condition.
        width: Hidden width.
        depth: Residual blocks.
    """

    def __init__(self, channels_in: int, channels_out: int, condition: int, width: int, depth: int) -> None:
        super().__init__()
        self.input = nn.Linear(channels_in, width)
        self.time = TimeEmbedding(width)
        self.condition = nn.Linear(condition, width)
        self.blocks = nn.ModuleList(ResidualBlock(width) for _ in range(depth))
        self.final_norm = nn.LayerNorm(width, eps=NORM_EPS, elementwise_affine=False)
        self.final_modulation = nn.Linear(width, 2 * width)
        self.output = nn.Linear(width, channels_out)
        self._initialise()

    def forward(self, x: Tensor, time: Tensor, condition: Tensor) -> Tensor:
        """Predict for f32[n, channels_in] at levels f32[n] or f32[1], given a condition already projected to [n, w]."""
        x = self.input(x)
        steer = F.silu(self.time(time).to(x.dtype) + condition)
        for block in self.blocks:
            x = block(x, steer)
        return self._put_out(x, self.final_modulation(steer))

    def prepare(self, times: Tensor, condition: Tensor) -> Iterator[Modulations]:
        """See the base class: three of five multiplications, of many rows at once."""
        embedded = self.time(times).to(condition.dtype)  # [steps, w]
        layers = [*(block.modulation for block in self._blocks), self.final_modulation]
        for some in embedded.split(max(1, ROWS_AT_ONCE // max(1, len(condition)))):
            steer = F.silu(some[:, None] + condition)  # [steps, n, w]
            yield from zip(*(layer(steer).unbind() for layer in layers), strict=True)

    def step(self, x: Tensor, modulations: Modulations) -> Tensor:
        """Predict as ``forward`` does, given what was computed ahead."""
        x = self.input(x)
        *inner, last = modulations
        for block, modulation in zip(self._blocks, inner, strict=True):
            x = block.modulated(x, modulation)
        return self._put_out(x, last)

    def compile_step(self) -> None:
        """Compile ``step`` for fixed shapes; ``Module.compile`` reaches ``forward`` alone."""
        self.step = torch.compile(self.step, dynamic=False)  # type: ignore[method-assign]

    def _put_out(self, x: Tensor, modulation: Tensor) -> Tensor:
        shift, scale = modulation.chunk(2, dim=-1)
        return self.output(self.final_norm(x) * (1 + scale) + shift).float()

    @property
    def _blocks(self) -> list[ResidualBlock]:
        return [block for block in self.blocks if isinstance(block, ResidualBlock)]

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
                if module in set(self.time.mlp):
                    nn.init.normal_(module.weight, std=0.02)
        for layer in (*(block.modulation for block in self._blocks), self.final_modulation, self.output):
            nn.init.zeros_(layer.weight)
