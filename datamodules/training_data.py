"""What training asks of data, whether one data set or a mixture of several."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from lightning.pytorch import LightningDataModule
from torch import Tensor

from uva_lightning.datamodules.latent_cache import Encode
from uva_lightning.types import Batch, DataSpec

if TYPE_CHECKING:
    from uva_lightning.datamodules.base import RobotDataModule


class TrainingData(LightningDataModule, ABC):
    """Batches with the facts that a model's sizes follow from."""

    spec: DataSpec
    """Facts of the batches."""

    @abstractmethod
    def samples(self) -> Mapping[str, Batch]:
        """Give one sample of each data set without its pictures, to see what it has: by the set's name."""

    @abstractmethod
    def training_frames(self, most: int = 4096) -> Tensor:
        """Give at most so many training frames, u8[n, H, W, 3]; for a tokenizer."""

    @abstractmethod
    def training_numbers(self, block: int = 4096) -> Iterator[Batch]:
        """Give ``action`` and ``state`` of all training windows in blocks; for the normalisers."""

    @abstractmethod
    def cache(self, encode: Encode, key: str = "") -> None:
        """Encode every frame once, where batches are to carry latents instead of frames.

        Args:
            encode: u8[n, H, W, 3] to moments [n, s, m], on any device.
            key: Hash of the tokenizer's weights and settings.
        """

    @abstractmethod
    def chosen(self, name: str | None = None) -> RobotDataModule:
        """Give one data set, as itself: its own cameras, actions and facts.

        Args:
            name: Of the set, in a mixture; the only one with actions if not given.

        Raises:
            ValueError: There is none of this name.
        """
