"""The noise levels of UVA's diffusion and its formulas (Nichol 2021; MAR)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from diffusers import DDPMScheduler
from torch import Tensor, nn

TRAIN_STEPS = 1000
MAX_BETA = 0.999  # in float32 it is 1.3e-8 larger, which would move the last alpha_bar by 1.3e-5
LOWEST_LOG_RATIO = -5.1
"""Logarithm of signal over noise below which DPM-Solver does not start, as diffusers advises for the cosine schedule:
further up, x0 is thousands of times a small difference."""
Index = Tensor | int


class Formulas:
    """Steps of the diffusion, by its tables at an index: tensors looked up by tensors, or plain numbers by a number."""

    signal: Any
    noise: Any
    inverse_signal: Any
    inverse_noise: Any
    previous_signal: Any
    previous_noise: Any
    mean_of_clean: Any
    mean_of_x: Any
    low_log_variance: Any
    high_log_variance: Any
    solver_of_x: Any
    solver_of_clean: Any
    solver_slope: Any

    def noised(self, clean: Tensor, noise: Tensor, index: Index) -> Tensor:
        """Mix x0 and noise to x_t."""
        return self.signal[index] * clean + self.noise[index] * noise

    def clean(self, x: Tensor, noise: Tensor, index: Index) -> Tensor:
        """Estimate x0 from x_t and the noise in it."""
        return self.inverse_signal[index] * x - self.inverse_noise[index] * noise  # rounds as the official code does

    def posterior_mean(self, clean: Tensor, x: Tensor, index: Index) -> Tensor:
        """Mean of q(x_{t-1} | x_t, x0)."""
        return self.mean_of_clean[index] * clean + self.mean_of_x[index] * x

    def log_variance(self, fraction: Tensor, index: Index) -> Tensor:
        """Interpolate between the smallest and largest sensible variance; ``fraction`` in [-1, 1]."""
        part = (fraction + 1) / 2
        return part * self.high_log_variance[index] + (1 - part) * self.low_log_variance[index]


class Constants(Formulas):
    """The formulas with plain numbers: a step of a sampler looks nothing up on the device."""

    def __init__(self, tables: Mapping[str, Tensor]) -> None:
        for name, table in tables.items():
            setattr(self, name, table.tolist())


class Schedule(nn.Module, Formulas):
    """Tables of the diffusion at a chosen subset of the training steps, from diffusers' betas.

    Every coefficient is computed in float64: in float32, 1 - alpha_bar at the first steps keeps three digits only.

    Args:
        timesteps: Increasing subset of 0..999.

    Attributes:
        constants: The same tables as plain numbers.
        usable: How many of the levels, from the first on, DPM-Solver may visit.
    """

    timesteps: Tensor

    def __init__(self, timesteps: list[int]) -> None:
        super().__init__()
        scheduler: Any = DDPMScheduler(TRAIN_STEPS, beta_schedule="squaredcos_cap_v2")
        full = scheduler.betas.double().clamp(max=MAX_BETA)
        alpha_bar = torch.cumprod(1 - full, dim=0)[timesteps]
        previous = torch.cat((torch.ones(1, dtype=torch.float64), alpha_bar[:-1]))
        beta = 1 - alpha_bar / previous
        variance = beta * (1 - previous) / (1 - alpha_bar)
        clipped = torch.cat((variance[1:2], variance[1:])) if len(variance) > 1 else beta  # the first would be 0
        signal, noise = alpha_bar.sqrt(), (1 - alpha_bar).sqrt()
        rest, log_ratio = (1 - previous).sqrt() / noise, (signal / noise).log()
        tables = {
            "signal": signal,
            "noise": noise,
            "inverse_signal": (1 / alpha_bar).sqrt(),
            "inverse_noise": (1 / alpha_bar - 1).sqrt(),
            "previous_signal": previous.sqrt(),
            "previous_noise": (1 - previous).sqrt(),
            "mean_of_clean": previous.sqrt() * beta / (1 - alpha_bar),
            "mean_of_x": (1 - beta).sqrt() * (1 - previous) / (1 - alpha_bar),
            "low_log_variance": clipped.log(),
            "high_log_variance": beta.log(),
            "solver_of_x": rest,
            "solver_of_clean": previous.sqrt() - signal * rest,
            "solver_slope": _slopes(log_ratio),
        }
        rounded = {name: table.float() for name, table in tables.items()}
        for name, table in rounded.items():
            self.register_buffer(name, table, persistent=False)
        self.register_buffer("timesteps", torch.tensor(timesteps), persistent=False)
        self.constants, self.usable = Constants(rounded), int((log_ratio >= LOWEST_LOG_RATIO).sum())


def _slopes(log_ratio: Tensor) -> Tensor:
    """Weight of the last change of x0 in a step of DPM-Solver++(2M): half its span over that of the step before.

    The first step knows no change, and the last one spans infinity: both are of first order.
    """
    span = log_ratio.diff().neg()  # from each level but the first one down
    slopes = torch.zeros_like(log_ratio)
    slopes[1:-1] = span[:-1] / (2 * span[1:])
    return slopes
