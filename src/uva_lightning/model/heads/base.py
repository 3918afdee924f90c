"""Heads: from the joint latent to one modality."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from uva_lightning.model.heads.aggregate import Aggregator
from uva_lightning.model.heads.denoiser import Denoiser, Guide, StepNoise, fresh_noise
from uva_lightning.model.streams import Shape
from uva_lightning.types import Tokens, Visible

DenoiserFactory = Callable[[int, int], Denoiser]
AggregatorFactory = Callable[[Shape], Aggregator]
Steps = int | str
Measure = Callable[[Tensor, Tensor], Tensor]
"""Loss f32[n] of targets f32[n, c] given conditions [n, k]; the rows are the hidden ones, in their order."""


@dataclass(frozen=True)
class Sampling:
    """How to sample, where it differs from the head's own way.

    Args:
        temperature: Factor on the random part.
        steps: Denoising steps.
        guide: Guidance by an unconditional latent, [b, t, s, d].
        step_noise: Gives the noise of each denoising step, for the rows that are generated.
    """

    temperature: float | None = None
    steps: Steps | None = None
    guide: Guide | None = None
    step_noise: StepNoise = fresh_noise


USUAL = Sampling()


class Head(nn.Module, ABC):
    """Predict the hidden tokens of one modality.

    Args:
        modality: Name of the tokens it predicts.
        channels: Numbers of a token that it predicts, the first ones.
        denoiser: Process and network that work on its rows.
        steps: Denoising steps when sampling; diffusion also knows spacings such as ``ddim20``.
        temperature: Factor on the random part when sampling.
    """

    def __init__(self, modality: str, channels: int, denoiser: Denoiser, steps: Steps, temperature: float) -> None:
        super().__init__()
        denoiser.check(steps)
        self.modality, self.channels, self.denoiser = modality, channels, denoiser
        self.steps, self.temperature = steps, temperature

    @abstractmethod
    def loss(self, latent: Tensor, tokens: Tokens, seen: Visible, measure: Measure | None = None) -> Tensor:
        """Measure the denoising error on the hidden tokens.

        Args:
            latent: Z, [b, t, s, d], of the samples this head is trained on.
            tokens: Their tokens, the target among them.
            seen: What was visible to the transformer.
            measure: Loss of the rows; the denoiser's if not given, which draws levels and noise itself.

        Returns:
            f32[b], mean over the hidden tokens of each sample.
        """

    def denoise(
        self, condition: Tensor, noise: Tensor, how: Sampling, unguided: Tensor | None, valid: Tensor | None = None
    ) -> Tensor:
        """Sample rows f32[n, c] given their conditions [n, k] and, for guidance, their unconditional ones."""
        guide = None if how.guide is None or unguided is None else Guide(unguided, how.guide.scale)
        temperature = self.temperature if how.temperature is None else how.temperature
        steps = self.steps if how.steps is None else how.steps
        return self.denoiser.sample(condition, noise, steps, temperature, how.step_noise, guide, valid)

    @abstractmethod
    def sample(self, latent: Tensor, tokens: Tokens, seen: Visible, noise: Tensor, how: Sampling = USUAL) -> Tensor:
        """Generate the modality.

        Args:
            latent: Z, [b, t, s, d].
            tokens: Tokens; only visible ones are read.
            seen: What is visible.
            noise: Standard normal in the shape of the modality's tokens, ``channels`` wide.
            how: Steps, temperature, guidance, noise of the steps.

        Returns:
            f32, like the noise.
        """


class VideoHead(Head):
    """Denoise every hidden video token by itself, given its own latent token (UVA section 3.4).

    Args:
        shape: Sizes; filled in by the model.
        denoiser: Process and network.
        residual: Predict the difference to the last past frame instead of the frame itself; what does not move then
            needs no capacity. UVA predicts the frame.
        steps: Denoising steps when sampling; diffusion also knows spacings such as ``ddim20``.
        temperature: Factor on the random part when sampling.
        modality: Tokens it predicts.
    """

    def __init__(
        self,
        shape: Shape,
        denoiser: DenoiserFactory,
        residual: bool = False,
        steps: Steps = 100,
        temperature: float = 0.95,
        modality: str = "video",
    ) -> None:
        super().__init__(modality, shape.channels, denoiser(shape.channels, shape.width), steps, temperature)
        self.residual = residual

    def loss(self, latent: Tensor, tokens: Tokens, seen: Visible, measure: Measure | None = None) -> Tensor:
        """See the base class; visible tokens never reach the network."""
        hidden = ~seen[self.modality]  # bool[b, t, s]
        target = tokens[self.modality] - self._base(tokens, seen)
        rows = (measure or self.denoiser.loss)(target[hidden], latent[hidden])  # f32[n]
        total = torch.zeros(hidden.shape, device=rows.device).masked_scatter(hidden, rows).flatten(1).sum(dim=1)
        return total / hidden.flatten(1).sum(dim=1).clamp(min=1)

    def sample(self, latent: Tensor, tokens: Tokens, seen: Visible, noise: Tensor, how: Sampling = USUAL) -> Tensor:
        """See the base class; visible tokens are returned as they are, and cost nothing."""
        hidden = ~seen[self.modality]  # bool[b, t, s]
        unguided = None if how.guide is None else how.guide.condition[hidden]
        rows = self.denoise(latent[hidden], noise[hidden], how, unguided)
        base = self._base(tokens, seen).expand_as(tokens[self.modality])[hidden]
        video = tokens[self.modality].to(rows.dtype, copy=True)
        video[hidden] = rows + base
        return video

    def _base(self, tokens: Tokens, seen: Visible) -> Tensor:
        """What the prediction is relative to: f32[b, 1, s, c]."""
        last, shown = tokens[f"past_{self.modality}"][:, -1:], seen[f"past_{self.modality}"][:, -1:, :, None]
        return last.where(shown, 0.0) * float(self.residual)


class ActionHead(Head):
    """Denoise each action of the chunk by itself, given its own condition (UVA section 3.4).

    Args:
        shape: Sizes; filled in by the model.
        denoiser: Process and network.
        aggregator: Turns the latent into ``h`` conditions.
        steps: Denoising steps when sampling; diffusion also knows spacings such as ``ddim20``.
        temperature: Factor on the random part when sampling.
        modality: Tokens it predicts.
    """

    def __init__(
        self,
        shape: Shape,
        denoiser: DenoiserFactory,
        aggregator: AggregatorFactory,
        steps: Steps = 100,
        temperature: float = 0.95,
        modality: str = "action",
    ) -> None:
        aggregate = aggregator(shape)
        channels, conditions, width = self._rows(shape, aggregate)
        super().__init__(modality, shape.channels, denoiser(channels, width), steps, temperature)
        self.aggregate, self.conditions = aggregate, conditions

    def loss(self, latent: Tensor, tokens: Tokens, seen: Visible, measure: Measure | None = None) -> Tensor:
        """See the base class; a row counts if any action in it is hidden."""
        target = tokens[self.modality][..., : self.channels].flatten(1)  # f32[b, h * a]
        condition = self._condition(latent)
        measure = measure or partial(self.denoiser.loss, valid=self._valid(tokens, len(condition)))
        rows = measure(target.reshape(len(condition), -1), condition).view(len(latent), -1)
        hidden = (~seen[self.modality]).view(*rows.shape, -1).any(dim=-1)  # bool[b, rows]
        return rows.where(hidden, 0.0).sum(dim=1) / hidden.sum(dim=1).clamp(min=1)

    def sample(self, latent: Tensor, tokens: Tokens, seen: Visible, noise: Tensor, how: Sampling = USUAL) -> Tensor:
        """See the base class; visible actions are returned as they are."""
        condition = self._condition(latent)
        rows = noise.reshape(len(condition), -1)
        unguided = None if how.guide is None else self._condition(how.guide.condition)
        action = self.denoise(condition, rows, how, unguided, self._valid(tokens, len(rows))).view_as(noise)
        return torch.where(seen[self.modality][..., None], tokens[self.modality][..., : self.channels], action)

    def _valid(self, tokens: Tokens, rows: int) -> Tensor | None:
        """Tell which numbers of each row are there, bool[rows, c]; None where all are."""
        valid = tokens.valid.get(self.modality)  # bool[b, a]
        if valid is None:
            return None
        steps = tokens[self.modality].shape[1]
        return valid[:, None, : self.channels].expand(-1, steps, -1).reshape(rows, -1)

    def _condition(self, latent: Tensor) -> Tensor:
        """Conditions of all rows, [b * conditions, k]."""
        return self.aggregate(latent).reshape(len(latent) * self.conditions, -1)

    def _rows(self, shape: Shape, aggregate: Aggregator) -> tuple[int, int, int]:
        """Width of a denoised row, rows per sample and width of a row's condition."""
        if aggregate.conditions != shape.steps:
            raise ValueError(
                f"{type(aggregate).__name__} gives {aggregate.conditions} conditions for a chunk of {shape.steps} "
                "actions, expected one each; use ConvFC, or ActionChunkHead to denoise the chunk at once."
            )
        return shape.channels, shape.steps, aggregate.width


class ActionChunkHead(ActionHead):
    """Denoise the whole chunk at once as one vector, so that its actions agree with each other."""

    def _rows(self, shape: Shape, aggregate: Aggregator) -> tuple[int, int, int]:
        return shape.channels * shape.steps, 1, aggregate.conditions * aggregate.width
