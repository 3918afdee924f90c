"""UVA's diffusion: cosine schedule, predicted noise, learned-range variance, respaced sampling (Nichol 2021; MAR)."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from diffusers import DDPMScheduler
from torch import Tensor, nn

from uva_lightning.model.heads.denoiser import Denoiser, Guide, Noising, StepNoise, fresh_noise, mean_over, only
from uva_lightning.model.heads.network import DenoisingMLP
from uva_lightning.model.heads.spacing import spaced

TRAIN_STEPS = 1000
MAX_BETA = 0.999  # in float32 it is 1.3e-8 larger, which would move the last alpha_bar by 1.3e-5
BIN_HALF_WIDTH = 1 / 255
EDGE = 0.999
SMALLEST = 1e-12


class Schedule(nn.Module):
    """Tables of the diffusion at a chosen subset of the training steps, from diffusers' betas.

    Every coefficient is computed in float64: in float32, 1 - alpha_bar at the first steps keeps three digits only.

    Args:
        timesteps: Increasing subset of 0..999.
    """

    timesteps: Tensor
    places: Tensor
    signal: Tensor
    noise: Tensor
    inverse_signal: Tensor
    inverse_noise: Tensor
    previous_signal: Tensor
    previous_noise: Tensor
    mean_of_clean: Tensor
    mean_of_x: Tensor
    low_log_variance: Tensor
    high_log_variance: Tensor

    def __init__(self, timesteps: list[int]) -> None:
        super().__init__()
        scheduler: Any = DDPMScheduler(TRAIN_STEPS, beta_schedule="squaredcos_cap_v2")
        full = scheduler.betas.double().clamp(max=MAX_BETA)
        alpha_bar = torch.cumprod(1 - full, dim=0)[timesteps]
        previous = torch.cat((torch.ones(1, dtype=torch.float64), alpha_bar[:-1]))
        beta = 1 - alpha_bar / previous
        variance = beta * (1 - previous) / (1 - alpha_bar)
        clipped = torch.cat((variance[1:2], variance[1:])) if len(variance) > 1 else beta  # the first would be 0
        tables = {
            "signal": alpha_bar.sqrt(),
            "noise": (1 - alpha_bar).sqrt(),
            "inverse_signal": (1 / alpha_bar).sqrt(),
            "inverse_noise": (1 / alpha_bar - 1).sqrt(),
            "previous_signal": previous.sqrt(),
            "previous_noise": (1 - previous).sqrt(),
            "mean_of_clean": previous.sqrt() * beta / (1 - alpha_bar),
            "mean_of_x": (1 - beta).sqrt() * (1 - previous) / (1 - alpha_bar),
            "low_log_variance": clipped.log(),
            "high_log_variance": beta.log(),
        }
        for name, table in tables.items():
            self.register_buffer(name, table.float(), persistent=False)
        self.register_buffer("timesteps", torch.tensor(timesteps), persistent=False)
        self.register_buffer("places", torch.arange(len(timesteps)), persistent=False)

    def noised(self, clean: Tensor, noise: Tensor, index: Tensor) -> Tensor:
        """Mix x0 and noise to x_t."""
        return self.signal[index] * clean + self.noise[index] * noise

    def clean(self, x: Tensor, noise: Tensor, index: Tensor) -> Tensor:
        """Estimate x0 from x_t and the noise in it."""
        return self.inverse_signal[index] * x - self.inverse_noise[index] * noise  # rounds as the official code does

    def posterior_mean(self, clean: Tensor, x: Tensor, index: Tensor) -> Tensor:
        """Mean of q(x_{t-1} | x_t, x0)."""
        return self.mean_of_clean[index] * clean + self.mean_of_x[index] * x

    def log_variance(self, fraction: Tensor, index: Tensor) -> Tensor:
        """Interpolate between the smallest and largest sensible variance; ``fraction`` in [-1, 1]."""
        part = (fraction + 1) / 2
        return part * self.high_log_variance[index] + (1 - part) * self.low_log_variance[index]


Draw = Callable[[Tensor], Tensor]
"""Gives the scaled noise of a step for x f32[n, c]."""


class Update(ABC):
    """One step of a sampler."""

    @abstractmethod
    def __call__(
        self, schedule: Schedule, x: Tensor, output: tuple[Tensor, Tensor], index: Tensor, draw: Draw
    ) -> Tensor:
        """Go from step ``index`` to the one before.

        Args:
            schedule: Tables.
            x: f32[n, c].
            output: Estimated x0 and variance fraction, f32[n, c] each.
            index: i64[1], position in the schedule.
            draw: Gives the step's noise.
        """


class Ancestral(Update):
    """DDPM's random walk with the learned variance, as UVA."""

    def __call__(
        self, schedule: Schedule, x: Tensor, output: tuple[Tensor, Tensor], index: Tensor, draw: Draw
    ) -> Tensor:
        """See the base class."""
        clean, fraction = output
        noise = draw(x) * (index > 0)
        return schedule.posterior_mean(clean, x, index) + (0.5 * schedule.log_variance(fraction, index)).exp() * noise


class DDIM(Update):
    """Deterministic steps, far fewer are enough (Song 2021)."""

    def __call__(
        self, schedule: Schedule, x: Tensor, output: tuple[Tensor, Tensor], index: Tensor, draw: Draw
    ) -> Tensor:
        """See the base class; nothing is drawn."""
        clean, _ = output
        noise = (x - schedule.signal[index] * clean) / schedule.noise[index]
        return schedule.previous_signal[index] * clean + schedule.previous_noise[index] * noise


class GaussianDiffusion(Denoiser):
    """Predict noise and variance of rows noised at 1,000 levels.

    Args:
        channels: Width of a row; filled in by the head.
        condition: Width of the condition; filled in by the head.
        width: Hidden width of the network.
        depth: Residual blocks of the network.
        draws: Noise draws per row and training step.
        clip: Largest magnitude of an estimated x0 when sampling; UVA clips actions at 1 and video not at all.
        variational_weight: Factor on the variational term, in bits; UVA uses 1.
        update: One step of the sampler; UVA's ancestral one if not given.
    """

    def __init__(
        self,
        channels: int,
        condition: int,
        width: int = 1024,
        depth: int = 6,
        draws: int = 1,
        clip: float | None = None,
        variational_weight: float = 1.0,
        update: Update | None = None,
    ) -> None:
        super().__init__()
        self.net = DenoisingMLP(channels, 2 * channels, condition, width, depth)
        self.draws, self.clip, self.variational_weight = draws, clip, variational_weight
        self.update = update or Ancestral()
        self.schedule = Schedule(list(range(TRAIN_STEPS)))
        self._respaced: dict[str, Schedule] = {}

    def levels(self, normal: Tensor) -> Tensor:
        """See the base class: every level is as likely, i64[...]."""
        return (TRAIN_STEPS * torch.special.ndtr(normal)).long().clamp(max=TRAIN_STEPS - 1)

    def loss(self, target: Tensor, condition: Tensor, at: Noising, valid: Tensor | None = None) -> Tensor:
        """See the base class: squared error of the noise plus the variational term that trains the variance."""
        draws = at.level.shape[1]
        target = target.float().repeat_interleave(draws, dim=0)  # f32[n * draws, c]
        condition = self.net.condition(condition).repeat_interleave(draws, dim=0)
        valid = None if valid is None else valid.repeat_interleave(draws, dim=0)
        rows = self.loss_at(target, condition, at.level.flatten(), at.noise.flatten(0, 1), valid)
        return rows.view(-1, draws).mean(dim=1)

    def loss_at(
        self, target: Tensor, condition: Tensor, time: Tensor, noise: Tensor, valid: Tensor | None = None
    ) -> Tensor:
        """Loss f32[n] at given levels i64[n] and noise f32[n, c]; the condition is already projected."""
        error, variational = self.terms_at(target, condition, time, noise, valid)
        return error + self.variational_weight * variational

    def terms_at(
        self, target: Tensor, condition: Tensor, time: Tensor, noise: Tensor, valid: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Squared error of the noise and variational term in bits, f32[n] each; arguments as ``loss_at``."""
        x = only(self.schedule.noised(target, noise, time[:, None]), valid)
        predicted, fraction = self.net(x, time, condition).chunk(2, dim=-1)
        error = mean_over((noise - predicted).square(), valid)
        variational = self._variational(target, x, predicted.detach(), fraction, time)
        return error, mean_over(variational, valid) / math.log(2)

    def sample(
        self,
        condition: Tensor,
        noise: Tensor,
        steps: int | str,
        temperature: float = 1.0,
        step_noise: StepNoise = fresh_noise,
        guide: Guide | None = None,
        valid: Tensor | None = None,
    ) -> Tensor:
        """See the base class; the start keeps its scale, ``temperature`` scales the steps' noise.

        Args:
            condition: [n, k].
            noise: f32[n, c].
            steps: A number, or a spacing such as ``10,15,25`` or ``ddim20``, see ``spacing.spaced``.
            temperature: Factor on the noise of the steps.
            step_noise: Gives that noise; called for the ancestral update only.
            guide: Guidance of the predicted noise; the variance is the conditional one.
            valid: bool[n, c], channels that a row has.
        """
        schedule = self._respace(steps).to(noise.device)
        x, condition = only(noise.float(), valid), self.net.condition(condition)
        guide = None if guide is None else Guide(self.net.condition(guide.condition), guide.scale)
        count = len(schedule.timesteps)
        for step, index in zip(range(count - 1, -1, -1), schedule.places.flip(0).split(1), strict=True):
            predicted, fraction = self.predict(x, schedule.timesteps[index], condition, guide)
            clean = self.clipped(schedule.clean(x, predicted, index))
            draw = partial(_scaled, step_noise, step, temperature)
            x = only(self.update(schedule, x, (clean, fraction), index, draw), valid)
        return x

    def predict(self, x: Tensor, time: Tensor, condition: Tensor, guide: Guide | None = None) -> tuple[Tensor, Tensor]:
        """Predict noise and variance fraction, f32[n, c] each; conditions are already projected.

        Guidance moves the noise, the variance stays the conditional one.
        """
        predicted, fraction = self.net(x, time, condition).chunk(2, dim=-1)
        if guide is not None:
            free = self.net(x, time, guide.condition).chunk(2, dim=-1)[0]
            predicted = torch.lerp(free, predicted, guide.scale)
        return predicted, fraction

    def check(self, steps: int | str) -> None:
        """See the base class."""
        spaced(steps, TRAIN_STEPS)

    def clipped(self, clean: Tensor) -> Tensor:
        """Limit an estimated x0."""
        return clean if self.clip is None else clean.clamp(-self.clip, self.clip)

    def _respace(self, steps: int | str) -> Schedule:
        """Keep some of the levels; a table is made once."""
        key = str(steps)
        if key not in self._respaced:
            with torch.inference_mode(False):  # tables made in inference could never be used with gradients
                self._respaced[key] = Schedule(spaced(steps, TRAIN_STEPS))
        return self._respaced[key]

    def _variational(self, target: Tensor, x: Tensor, predicted: Tensor, fraction: Tensor, time: Tensor) -> Tensor:
        """KL f32[n, c] of the learned reverse step to the true one; at t = 0 the likelihood of an 8-bit image bin."""
        schedule, index = self.schedule, time[:, None]
        log_variance = schedule.log_variance(fraction.float(), index)
        mean = schedule.posterior_mean(schedule.clean(x, predicted, index), x, index)
        true_mean = schedule.posterior_mean(target, x, index)
        true_log_variance = schedule.low_log_variance[index]
        difference = (true_mean - mean).square() * (-log_variance).exp()
        kl = 0.5 * (log_variance - true_log_variance + (true_log_variance - log_variance).exp() + difference - 1)
        likelihood = _bin_log_likelihood(target, mean, 0.5 * log_variance)
        return torch.where(index == 0, -likelihood, kl)


def _scaled(step_noise: StepNoise, step: int, temperature: float, x: Tensor) -> Tensor:
    return temperature * step_noise(step, x)


def _bin_log_likelihood(x: Tensor, mean: Tensor, log_scale: Tensor) -> Tensor:
    """Log-probability of the 8-bit bin around ``x`` under a Gaussian; the outermost bins are open."""

    def cdf(value: Tensor) -> Tensor:
        return 0.5 * (1 + torch.tanh(math.sqrt(2 / math.pi) * (value + 0.044715 * value**3)))

    inverse = (-log_scale).exp()
    upper = cdf((x - mean + BIN_HALF_WIDTH) * inverse)
    lower = cdf((x - mean - BIN_HALF_WIDTH) * inverse)
    inside = torch.where(x < -EDGE, upper, torch.where(x > EDGE, 1 - lower, upper - lower))
    return inside.clamp(min=SMALLEST).log()
