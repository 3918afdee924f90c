"""What a head does with its latent: learn to remove noise from rows, and remove it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn

from uva_lightning.model.heads.holding import HeldRows
from uva_lightning.model.heads.spacing import number_of_steps

StepNoise = Callable[[int, Tensor], Tensor]
"""Noise of one denoising step: the step, counting down to 0, and x f32[n, c] to standard normal f32[n, c]."""


class Guide(NamedTuple):
    """Guidance without a classifier (Ho 2022): move away from what the model would predict unconditionally.

    Args:
        condition: The unconditional counterpart of the condition, in its shape.
        scale: 1 changes nothing, more follows the condition more strongly.
    """

    condition: Tensor
    scale: float


class Noising(NamedTuple):
    """At which levels and with which noise the error of rows is measured.

    Args:
        level: [..., draws], as the process counts its levels, see ``Denoiser.levels``.
        noise: f32[..., draws, c], standard normal.
    """

    level: Tensor
    noise: Tensor


def fresh_noise(step: int, x: Tensor) -> Tensor:
    """Draw the noise of a step from torch's global generator."""
    return torch.randn_like(x)


class Denoiser(nn.Module, ABC):
    """A diffusion process with its network. Rows are independent: a token, an action or a whole chunk.

    Attributes:
        draws: Levels and noises at which each row's error is measured in a training step.
    """

    draws: int = 1

    @abstractmethod
    def levels(self, normal: Tensor) -> Tensor:
        """Choose the levels of training from standard normal numbers f32[...]: [...], as the process counts them."""

    def noising(self, normal: Tensor) -> Noising:
        """Split standard normal numbers f32[..., draws, c + 1] into noise and, from the last one, levels."""
        return Noising(self.levels(normal[..., -1]), normal[..., :-1])

    @abstractmethod
    def loss(self, target: Tensor, condition: Tensor, at: Noising, valid: Tensor | None = None) -> Tensor:
        """Noise the target and measure the error of the network; also of no rows at all.

        Args:
            target: f32[n, c].
            condition: [n, k].
            at: Levels [n, draws] and noise f32[n, draws, c].
            valid: bool[n, c], channels that a row has; all if not given. The network sees the others as zeros and
                nothing is asked of it there, so that rows of different widths can share it.

        Returns:
            f32[n], mean over the channels that are there (and noise draws).
        """

    def check(self, steps: int | str) -> None:
        """Refuse steps that this process does not know."""
        self.count(steps)

    def count(self, steps: int | str) -> int:
        """Read steps of a process that knows no spacings by name.

        Raises:
            ValueError: They are no whole number from 1 on.
        """
        return number_of_steps(steps, type(self).__name__)

    @abstractmethod
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
        """Turn noise into a sample.

        Args:
            condition: [n, k].
            noise: f32[n, c], standard normal.
            steps: Denoising steps, positive; a process may know other spacings by name.
            temperature: Factor on the random part: flow matching scales the start, diffusion the noise of its steps.
            step_noise: Gives the noise of each step, where the process has some.
            guide: Guidance; none if not given.
            valid: bool[n, c], channels that a row has; all if not given. The others become zero.

        Returns:
            f32[n, c].
        """

    @property
    def continues(self) -> bool:
        """Whether samples can follow given rows, see ``continued``."""
        return type(self).continued is not Denoiser.continued

    def continued(
        self,
        condition: Tensor,
        noise: Tensor,
        steps: int | str,
        held: HeldRows,
        temperature: float = 1.0,
        valid: Tensor | None = None,
    ) -> Tensor:
        """Sample rows that follow given ones; see ``sample``.

        Raises:
            ValueError: The process cannot.
        """
        raise ValueError(
            f"{type(self).__name__} cannot continue given actions, expected FlowMatching; ask without committed "
            "actions, or train the action head with FlowMatching."
        )


class Traced(Denoiser):
    """A denoiser that has a way without chance from noise to sample, which a one-step student can learn by heart."""

    @abstractmethod
    def trace(
        self, condition: Tensor, noise: Tensor, steps: int, valid: Tensor | None = None
    ) -> Iterator[tuple[float, Tensor]]:
        """Follow the way.

        Args:
            condition: [n, k].
            noise: f32[n, c], the start.
            steps: Evaluations of the network, positive.
            valid: bool[n, c], channels that a row has; all if not given.

        Yields:
            Time, from 1 down to 0, and the point f32[n, c] there, in the scale of the straight path: noise at 1, the
            sample at 0, and ``(1 - time) * sample + time * noise`` between them where the way is straight.
        """


def only(values: Tensor, valid: Tensor | None) -> Tensor:
    """Put zeros where a channel is not there."""
    return values if valid is None else values.where(valid, 0.0)


def mean_over(values: Tensor, valid: Tensor | None) -> Tensor:
    """Average over the channels that are there: f32[n] of f32[n, c]."""
    if valid is None:
        return values.mean(dim=-1)
    return only(values, valid).sum(dim=-1) / valid.sum(dim=-1).clamp(min=1)
