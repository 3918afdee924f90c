"""Heads: from the joint latent to one modality."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from uva_lightning.draws import Normal
from uva_lightning.model.heads.aggregate import Aggregator
from uva_lightning.model.heads.denoiser import Denoiser, Guide, Noising, StepNoise, fresh_noise
from uva_lightning.model.heads.holding import Held
from uva_lightning.model.streams import Shape
from uva_lightning.types import Tokens, Visible

DenoiserFactory = Callable[[int, int], Denoiser]
AggregatorFactory = Callable[[Shape], Aggregator]
Steps = int | str


class Rows(NamedTuple):
    """What a denoiser works on: the rows of some samples, such as their tokens or actions.

    Args:
        target: f32[n, c], of all rows, or of the hidden ones where the others need not be computed.
        condition: [n, k].
        hidden: bool[b, r], which of each sample's rows count.
        valid: bool[n, c], channels that a row has; all if not given.
    """

    target: Tensor
    condition: Tensor
    hidden: Tensor
    valid: Tensor | None = None


class Errors(NamedTuple):
    """Denoising error of some samples, so that means can be taken over those of all processes.

    Args:
        sums: f32[b], over the hidden rows of each sample.
        counts: i64[b], hidden rows.
    """

    sums: Tensor
    counts: Tensor

    @property
    def means(self) -> Tensor:
        """Mean over the hidden rows of each sample, f32[b]; 0 where there are none."""
        return self.sums / self.counts.clamp(min=1)


@dataclass(frozen=True)
class Sampling:
    """How to sample, where it differs from the head's own way.

    Args:
        temperature: Factor on the random part.
        steps: Denoising steps.
        guide: Guidance by an unconditional latent, [b, t, s, d].
        step_noise: Gives the noise of each denoising step, for the rows that are generated.
        held: What the sample must follow; guidance is then left out.
    """

    temperature: float | None = None
    steps: Steps | None = None
    guide: Guide | None = None
    step_noise: StepNoise = fresh_noise
    held: Held | None = None


USUAL = Sampling()


class Head(nn.Module, ABC):
    """Predict the hidden tokens of one modality.

    Args:
        modality: Name of the tokens it predicts.
        channels: Numbers of a token that it predicts, the first ones.
        denoiser: Process and network that work on its rows.
        steps: Denoising steps when sampling; diffusion also knows spacings such as ``ddim20``.
        temperature: Factor on the random part when sampling.

    Attributes:
        most_rows: Rows of one sample, at most.
    """

    most_rows: int = 1

    def __init__(self, modality: str, channels: int, denoiser: Denoiser, steps: Steps, temperature: float) -> None:
        super().__init__()
        denoiser.check(steps)
        self.modality, self.channels, self.denoiser = modality, channels, denoiser
        self.steps, self.temperature = steps, temperature

    @abstractmethod
    def rows(self, latent: Tensor, tokens: Tokens, seen: Visible) -> Rows:
        """Give what the denoiser is trained on; arguments as ``loss``. All samples have equally many rows."""

    def loss(self, latent: Tensor, tokens: Tokens, seen: Visible, noise: Normal | Noising | None = None) -> Errors:
        """Measure the denoising error on the hidden tokens.

        Args:
            latent: Z, [b, t, s, d], of the samples this head is trained on; there may be none (b = 0).
            tokens: Their tokens, the target among them.
            seen: What was visible to the transformer.
            noise: Draws levels and noise for the samples, or those of all their rows; torch's global generator draws
                if not given.
        """
        rows = self.rows(latent, tokens, seen)
        hidden = rows.hidden
        if not isinstance(noise, Noising):  # one draw for all rows, so that none depends on which are hidden
            shape = (hidden.shape[1], self.denoiser.draws, rows.target.shape[-1] + 1)
            noise = self.denoiser.noising((noise or partial(_fresh, latent))(*shape))
        every = len(rows.target) == hidden.numel()  # rows of visible tokens are there, too, or there are none
        at = Noising(*(x.flatten(0, 1) if every else x[hidden] for x in noise))
        losses = self.denoiser.loss(rows.target, rows.condition, at, rows.valid)  # f32[n]
        if every:
            spread = losses.view(hidden.shape).where(hidden, 0.0)
        else:
            spread = losses.new_zeros(hidden.shape).masked_scatter(hidden, losses)
        return Errors(spread.sum(dim=1), hidden.sum(dim=1))

    def denoise(
        self, condition: Tensor, noise: Tensor, how: Sampling, unguided: Tensor | None, valid: Tensor | None = None
    ) -> Tensor:
        """Sample rows f32[n, c] given their conditions [n, k] and, for guidance, their unconditional ones."""
        guide = None if how.guide is None or unguided is None else Guide(unguided, how.guide.scale)
        temperature = self.temperature if how.temperature is None else how.temperature
        steps = self.steps if how.steps is None else how.steps
        if how.held is not None:
            return self.denoiser.continued(condition, noise, steps, how.held.rows(len(noise)), temperature, valid)
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
        self.residual, self.most_rows = residual, shape.frames * shape.places

    def rows(self, latent: Tensor, tokens: Tokens, seen: Visible) -> Rows:
        """See the base class: the hidden tokens; visible ones never reach the network."""
        hidden = ~seen[self.modality]  # bool[b, t, s]
        target = tokens[self.modality] - self._base(tokens, seen)
        return Rows(target[hidden], latent[hidden], hidden.flatten(1))

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
        self.aggregate, self.conditions, self.most_rows = aggregate, conditions, conditions

    def rows(self, latent: Tensor, tokens: Tokens, seen: Visible) -> Rows:
        """See the base class: all rows, of which one counts if any action in it is hidden."""
        target = tokens[self.modality][..., : self.channels]  # f32[b, h, a]
        target = target.unflatten(1, (self.conditions, -1)).flatten(2).flatten(0, 1)  # f32[b * conditions, c]
        hidden = (~seen[self.modality]).unflatten(1, (self.conditions, -1)).any(dim=-1)  # bool[b, conditions]
        return Rows(target, self._condition(latent), hidden, self._valid(tokens))

    def sample(self, latent: Tensor, tokens: Tokens, seen: Visible, noise: Tensor, how: Sampling = USUAL) -> Tensor:
        """See the base class; visible actions are returned as they are."""
        condition = self._condition(latent)
        rows = noise.reshape(len(condition), -1)
        unguided = None if how.guide is None else self._condition(how.guide.condition)
        action = self.denoise(condition, rows, how, unguided, self._valid(tokens)).view_as(noise)
        return torch.where(seen[self.modality][..., None], tokens[self.modality][..., : self.channels], action)

    def _valid(self, tokens: Tokens) -> Tensor | None:
        """Tell which numbers of each row are there, bool[rows, c]; None where all are."""
        valid = tokens.valid.get(self.modality)  # bool[b, a]
        if valid is None:
            return None
        steps = tokens[self.modality].shape[1]
        return (
            valid[:, None, : self.channels]
            .expand(-1, steps, -1)
            .flatten(1)
            .unflatten(1, (self.conditions, -1))
            .flatten(0, 1)
        )

    def _condition(self, latent: Tensor) -> Tensor:
        """Conditions of all rows, [b * conditions, k]."""
        each: Tensor = self.aggregate(latent).flatten(1)
        return each.unflatten(1, (self.conditions, -1)).flatten(0, 1)

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


def _fresh(samples: Tensor, *shape: int) -> Tensor:
    """Draw for each of these samples from torch's global generator."""
    return torch.randn(len(samples), *shape, device=samples.device)
