"""UVA's diffusion: cosine schedule, predicted noise, learned-range variance, respaced sampling (Nichol 2021; MAR)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor

from uva_lightning.model.heads.denoiser import Guide, Noising, StepNoise, Traced, fresh_noise, mean_over, only
from uva_lightning.model.heads.network import DenoisingMLP
from uva_lightning.model.heads.schedule import TRAIN_STEPS, Schedule
from uva_lightning.model.heads.spacing import SOLVER, solves, spaced
from uva_lightning.model.heads.updates import DDIM, Ancestral, DPMSolver, Update

BIN_HALF_WIDTH = 1 / 255
EDGE = 0.999
SMALLEST = 1e-12

__all__ = ["DDIM", "Ancestral", "GaussianDiffusion"]


class GaussianDiffusion(Traced):
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
            steps: A number, or a spacing such as ``10,15,25`` or ``ddim20``, see ``spacing.spaced``; ``dpm16`` is also
                another update, ``DPMSolver``.
            temperature: Factor on the noise of the steps.
            step_noise: Gives that noise; called for the ancestral update only.
            guide: Guidance of the predicted noise; the variance is the conditional one.
            valid: bool[n, c], channels that a row has.
        """
        x = only(noise.float(), valid)
        draw = partial(_scaled, step_noise, temperature)
        *_, end = self._steps(x, condition, steps, draw, guide, valid)
        return end

    def trace(
        self, condition: Tensor, noise: Tensor, steps: int, valid: Tensor | None = None
    ) -> Iterator[tuple[float, Tensor]]:
        """See the base class: DPM-Solver; a point of the variance-preserving way is scaled to the straight one."""
        x, spacing = only(noise.float(), valid), f"{SOLVER}{steps}"
        yield 1.0, x
        constants = self._respace(spacing).constants
        scales = zip(constants.previous_signal[::-1], constants.previous_noise[::-1], strict=True)
        walk = self._steps(x, condition, spacing, partial(_scaled, fresh_noise, 0.0), None, valid)
        for (signal, spread), point in zip(scales, walk, strict=True):
            yield spread / (signal + spread), point / (signal + spread)

    def _steps(
        self,
        x: Tensor,
        condition: Tensor,
        steps: int | str,
        noise: Callable[[int, Tensor], Tensor],
        guide: Guide | None,
        valid: Tensor | None,
    ) -> Iterator[Tensor]:
        """Give x after each step; ``noise`` is that of a step, scaled."""
        schedule = self._respace(steps).to(x.device)
        constants, levels = schedule.constants, schedule.timesteps.flip(0)
        update = (DPMSolver() if solves(steps) else self.update).begin()
        predictions = self.net.steps(levels, condition, guide)
        for index, predict in zip(reversed(range(len(levels))), predictions, strict=True):
            predicted, fraction = predict(x).chunk(2, dim=-1)
            clean = self.clipped(constants.clean(x, predicted, index))
            x = only(update(constants, x, (clean, fraction), index, partial(noise, index)), valid)
            yield x

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
        self._levels(steps)

    def clipped(self, clean: Tensor) -> Tensor:
        """Limit an estimated x0."""
        return clean if self.clip is None else clean.clamp(-self.clip, self.clip)

    def _respace(self, steps: int | str) -> Schedule:
        """Keep some of the levels; a table is made once."""
        key = str(steps)
        if key not in self._respaced:
            with torch.inference_mode(False):  # tables made in inference could never be used with gradients
                self._respaced[key] = Schedule(self._levels(steps))
        return self._respaced[key]

    def _levels(self, steps: int | str) -> list[int]:
        return spaced(steps, TRAIN_STEPS, self.schedule.usable)

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


def _scaled(step_noise: StepNoise, temperature: float, step: int, x: Tensor) -> Tensor:
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
