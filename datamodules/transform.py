"""What a data set does to whole windows, beyond taking recorded numbers."""

from __future__ import annotations

from abc import ABC, abstractmethod

from uva_lightning.datamodules.rows import Rows
from uva_lightning.types import Batch


class WindowTransform(ABC):
    """Turn recorded numbers into those a model sees, where they depend on the window, as poses relative to now do."""

    @abstractmethod
    def __call__(self, batch: Batch, rows: Rows | None) -> Batch:
        """Transform the numbers of a batch, in physical units.

        Args:
            batch: ``action``, ``past_action``, ``state`` and ``future_state`` as recorded. Read only.
            rows: Source of random draws in training; None in evaluation, where nothing is random.
        """
