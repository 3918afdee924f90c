"""Exact symmetries of a dataset, which multiply its episodes without inventing anything."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor


class Symmetry(ABC):
    """A map of the world onto itself under which physics and task stay the same."""

    @abstractmethod
    def frames(self, frames: Tensor) -> Tensor:
        """Map pictures: u8[..., H, W, 3] to the same shape."""

    @abstractmethod
    def action(self, action: Tensor) -> Tensor:
        """Map actions in physical units: f32[..., a] to the same shape."""

    @abstractmethod
    def state(self, name: str, state: Tensor) -> Tensor:
        """Map a proprioception entry in physical units: f32[..., p] to the same shape."""
