"""Rectified flow, the drop-in alternative to UVA's diffusion: fewer steps, no variance to learn (Liu 2022)."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor

from uva_lightning.model.heads.denoiser import Guide, Noising, StepNoise, Traced, fresh_noise, mean_over, only
from uva_lightning.model.heads.holding import HeldRows
from uva_lightning.model.heads.network import DenoisingMLP

TIME_SCALE = 1000.0


class FlowMatching(Traced):
    """Straight paths from noise (t = 1) to the target (t = 0); the network predicts the velocity.

    Args:
        channels: Width of a row; filled in by the head.
        condition: Width of the condition; filled in by the head.
        width: Hidden width of the network.
        depth: Residual blocks of the network.
        draws: Noise draws per row and training step; the network is small next to the transformer.
        time_mean: Mean of the noise level's logit in training (Esser 2024); above 0 favours high noise.
        time_std: Standard deviation of the logit.
    """

    def __init__(
        self,
        channels: int,
        condition: int,
        width: int = 1024,
        depth: int = 6,
        draws: int = 1,
        time_mean: float = 0.0,
        time_std: float = 1.0,
    ) -> None:
        super().__init__()
        self.net = DenoisingMLP(channels, channels, condition, width, depth)
        self.draws, self.time_mean, self.time_std = draws, time_mean, time_std

    def levels(self, normal: Tensor) -> Tensor:
        """See the base class: the logit of the time is normal."""
        return torch.sigmoid(self.time_mean + self.time_std * normal)

    def loss(self, target: Tensor, condition: Tensor, at: Noising, valid: Tensor | None = None) -> Tensor:
        """See the base class."""
        draws = at.level.shape[1]
        target = target.float().repeat_interleave(draws, dim=0)  # f32[n * draws, c]
        condition = self.net.condition(condition).repeat_interleave(draws, dim=0)
        valid = None if valid is None else valid.repeat_interleave(draws, dim=0)
        noise, time = only(at.noise.flatten(0, 1), valid), at.level.flatten()
        velocity = self.net(torch.lerp(target, noise, time[:, None]), TIME_SCALE * time, condition)
        return mean_over((velocity - (noise - target)).square(), valid).view(-1, draws).mean(dim=1)

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
        """Follow the velocity in equal Euler steps; ``temperature`` scales the start, and no step is random."""
        x = only(temperature * noise.float(), valid)
        *_, end = self._steps(x, condition, self.count(steps), guide, valid)
        return end

    def trace(
        self, condition: Tensor, noise: Tensor, steps: int, valid: Tensor | None = None
    ) -> Iterator[tuple[float, Tensor]]:
        """See the base class: Euler steps."""
        x = only(noise.float(), valid)
        yield 1.0, x
        for done, point in enumerate(self._steps(x, condition, steps, None, valid), start=1):
            yield 1 - done / steps, point

    def _steps(
        self, x: Tensor, condition: Tensor, count: int, guide: Guide | None, valid: Tensor | None
    ) -> Iterator[Tensor]:
        """Give x after each step."""
        times = TIME_SCALE * torch.linspace(1, 0, count + 1, device=x.device)[:-1]
        for velocity in self.net.steps(times, condition, guide):
            x = x - only(velocity(x), valid) / count
            yield x

    def continued(
        self,
        condition: Tensor,
        noise: Tensor,
        steps: int | str,
        held: HeldRows,
        temperature: float = 1.0,
        valid: Tensor | None = None,
    ) -> Tensor:
        """See the base class; real-time chunking (Black 2025, algorithm 1) with what is kept put in exactly."""
        start, count = only(temperature * noise.float(), valid), self.count(steps)
        with torch.inference_mode(False):  # what gradients pass through must not be made in inference mode
            steer = self.net.condition(condition.clone()).detach()
        x = start
        for step in range(count):
            time = 1 - step / count
            with torch.inference_mode(False):
                level = torch.full((1,), TIME_SCALE * time, device=x.device)
            x = held.pinned(x, start, time)
            velocity = held.pulled(x, time, partial(self.net, time=level, condition=steer))
            x = x - only(velocity, valid) / count
        return only(held.pinned(x, start, 0.0), valid)
