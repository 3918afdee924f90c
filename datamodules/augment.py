"""Random changes of pictures that leave their meaning alone."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor

from uva_lightning.datamodules.rows import Rows


class Augmentation(ABC):
    """Change pictures at random, all frames of a window alike."""

    @abstractmethod
    def __call__(self, video: Tensor, rows: Rows, camera: int) -> Tensor:
        """Change a batch.

        Args:
            video: u8[b, 2t, H, W, 3], on any device.
            rows: Source of the draws.
            camera: Number of the camera; each has draws of its own.

        Returns:
            Pictures of the same shape.
        """
