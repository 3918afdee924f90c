"""What training asks of data, whether one data set or a mixture of several."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from lightning.pytorch import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader

from uva_lightning.datamodules.latents import Encode
from uva_lightning.model.tokenizers.base import Tokenizer
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

    def fit_tokenizer(self, tokenizer: Tokenizer) -> None:
        """Let a tokenizer learn from training frames what it can learn in seconds."""
        tokenizer.fit(self.training_frames())

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

    @abstractmethod
    def val_dataloader(self) -> DataLoader[Batch]:
        """Give the held-out windows as recorded."""

    def test_dataloader(self) -> DataLoader[Batch]:
        """Give the held-out windows: there is no third split, the simulator is the test."""
        return self.val_dataloader()

    def predict_dataloader(self) -> DataLoader[Batch]:
        """Give the held-out windows."""
        return self.val_dataloader()

    def _consumed(self) -> int:
        """Batches trained on in the whole run; restored by Lightning before it asks for the first batch.

        ``processed`` counts a batch as soon as its weights are updated, so it is right for a checkpoint written in
        ``on_train_batch_end`` (``completed`` is one behind) and for one written within a step (``ready`` is ahead).
        """
        if self.trainer is None:
            return 0
        counts: Any = self.trainer.fit_loop.epoch_loop.batch_progress.total
        return int(counts.processed)

    @property
    def _rank(self) -> int:
        return 0 if self.trainer is None else int(self.trainer.global_rank)

    @property
    def _world(self) -> int:
        return 1 if self.trainer is None else int(self.trainer.world_size)
