"""Noise of one call, drawn for each sample by itself: a sample's noise does not depend on what else is in the batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from uva_lightning.draws import seeded
from uva_lightning.model.heads.denoiser import StepNoise
from uva_lightning.policy.generation import Noise

ORDER, STEPS = -1, -2
"""Purposes of draws besides the start noise of a round."""


@dataclass(frozen=True)
class RowNoise:
    """Randomness of one call.

    Args:
        seed: Of the policy.
        calls: Number of the call, by sample.
        episodes: Seed of the episode, by sample. Rows beyond the samples are further proposals for the same samples.
    """

    seed: int
    calls: Sequence[int]
    episodes: Sequence[int]

    def order(self, rows: int, places: int) -> Tensor:
        """Draw the order in which the places of a frame are generated: i64[rows, places]."""
        return self._draw((rows, places), torch.rand, ORDER).argsort(dim=1)

    def noise(self, rows: int) -> Noise:
        """Give the noise of a generation of ``rows`` rows."""

        def step(number: int, modality: str) -> StepNoise:
            return self._steps(rows, number)

        return Noise(self._start, step)

    def _start(self, number: int, modality: str, hidden: Tensor, channels: int) -> Tensor:
        """Draw the start noise of one round: f32[n, c] for the hidden places of bool[b, ...]."""
        return self._draw((*hidden.shape, channels), torch.randn, number).to(hidden.device)[hidden]

    def _steps(self, rows: int, number: int) -> StepNoise:
        """Draw the noise of a round's denoising steps; every row has as many hidden places."""
        rngs = [self._rng(row, number, STEPS) for row in range(rows)]

        def draw(step: int, x: Tensor) -> Tensor:
            shape = (len(x) // rows, *x.shape[1:])
            return torch.cat([torch.randn(shape, generator=rng) for rng in rngs]).to(x.device)

        return draw

    def _draw(self, shape: tuple[int, ...], draw: Callable[..., Tensor], number: int) -> Tensor:
        lead = () if number == 0 else (number,)
        return torch.stack([draw(shape[1:], generator=self._rng(row, *lead)) for row in range(shape[0])])

    def _rng(self, row: int, *purpose: int) -> Generator:
        sample, proposal = row % len(self.episodes), row // len(self.episodes)
        return seeded(self.seed, self.calls[sample], *purpose, self.episodes[sample], proposal)
