"""Samples that continue something given: inpainting by guidance (Black 2025, after Pokle 2023 and Song 2023)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

STRENGTH = 5.0
"""Largest gain of the guidance; Black 2025 uses 5 with few denoising steps."""
Velocity = Callable[[Tensor], Tensor]


class HeldRows(NamedTuple):
    """What the rows of a denoiser must follow.

    Args:
        target: f32[n, c].
        weight: f32[n, c]: 1 is kept exactly, 0 is free.
        strength: Largest gain of the guidance where the weight is between.
    """

    target: Tensor
    weight: Tensor
    strength: float

    @property
    def kept(self) -> Tensor:
        """What is kept exactly, bool[n, c]."""
        return self.weight >= 1

    def pinned(self, x: Tensor, start: Tensor, time: float) -> Tensor:
        """Put what is kept on its straight path from the start noise (time 1) to the target (time 0)."""
        return torch.where(self.kept, torch.lerp(self.target, start, time), x)

    def pulled(self, x: Tensor, time: float, velocity: Velocity) -> Tensor:
        """Give the velocity, bent so that the sample it leads to comes nearer to the target (Black 2025, equation 2).

        The error of the sample that the velocity predicts is sent back through the network, so that what is free
        moves along with what is held.

        Args:
            x: f32[n, c], of noise level ``time`` in (0, 1].
            time: 1 is noise.
            velocity: The network.

        Returns:
            f32[n, c].
        """
        with torch.inference_mode(False), torch.enable_grad():
            given = x.detach().clone().requires_grad_()
            plain = velocity(given)
            clean = given - time * plain
            error = self.weight * (self.target - clean.detach())
            (pull,) = torch.autograd.grad(clean, given, error)
        done = 1 - time
        gain = self.strength if not done else min(self.strength, (done * done + time * time) / (done * time))
        return plain.detach() - gain * pull


@dataclass(frozen=True)
class Held:
    """What a sample must follow, in the units of the model.

    Args:
        target: f32[b, h, c].
        weight: f32[b, h], see ``HeldRows``.
        strength: See ``HeldRows``.
    """

    target: Tensor
    weight: Tensor
    strength: float = STRENGTH

    def rows(self, count: int) -> HeldRows:
        """Cut it into the rows of a denoiser, as the noise is."""
        weight = self.weight[..., None].expand_as(self.target)
        return HeldRows(self.target.reshape(count, -1), weight.reshape(count, -1), self.strength)
