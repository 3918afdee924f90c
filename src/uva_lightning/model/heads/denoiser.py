"""What a head does with its latent: learn to remove noise from rows, and remove it."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn


class Denoiser(nn.Module, ABC):
    """A diffusion process with its network. Rows are independent: a token, an action or a whole chunk."""

    @abstractmethod
    def loss(self, target: Tensor, condition: Tensor) -> Tensor:
        """Noise the target at random levels and measure the error of the network.

        Args:
            target: f32[n, c].
            condition: [n, k].

        Returns:
            f32[n], mean over channels (and noise draws).
        """

    @abstractmethod
    def sample(self, condition: Tensor, noise: Tensor, steps: int, temperature: float = 1.0) -> Tensor:
        """Turn noise into a sample.

        Args:
            condition: [n, k].
            noise: f32[n, c], standard normal.
            steps: Denoising steps, positive.
            temperature: Factor on the random part: flow matching scales the start, diffusion the noise of its steps.

        Returns:
            f32[n, c].
        """
