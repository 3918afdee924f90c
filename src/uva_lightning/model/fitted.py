"""Parts that are fitted on data before training and then frozen: tokenizer and normalisers."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any, Self

import torch
from torch import Tensor

from uva_lightning.types import Batch


class Fitted(ABC):
    """Tensors that no gradient changes.

    They are no module parameters on purpose: optimizer, EMA and DDP never see them, a copy of the model shares them,
    and the checkpoint stores them once, under a key of their own.
    """

    def __deepcopy__(self, memo: dict[int, Any]) -> Fitted:
        return self

    def another(self) -> Self:
        """Give a part like this one that is fitted on its own: deepcopy shares."""
        other = copy.copy(self)
        for name, value in vars(self).items():
            setattr(other, name, _another(value))
        return other

    @property
    @abstractmethod
    def fitted(self) -> bool:
        """Whether it can be used."""

    @abstractmethod
    def state(self) -> dict[str, Tensor]:
        """Give what a checkpoint stores."""

    @abstractmethod
    def load_state(self, state: dict[str, Tensor]) -> None:
        """Take what a checkpoint stores."""

    @abstractmethod
    def to(self, device: torch.device) -> None:
        """Move in place."""


def _another(value: Any) -> Any:
    """Copy what a part is made of."""
    if isinstance(value, Fitted):
        return value.another()
    if isinstance(value, dict):
        return {key: _another(entry) for key, entry in value.items()}
    return [_another(entry) for entry in value] if isinstance(value, list) else copy.deepcopy(value)


class FittedOnBatches(Fitted):
    """What is fitted to the numbers of the training batches as they pass by."""

    def fit(self, batches: Iterable[Batch]) -> None:
        """Fit to all training windows, given in batches of numbers in physical units."""
        fit_together([self], batches)

    @abstractmethod
    def begin(self) -> None:
        """Start to gather."""

    @abstractmethod
    def update(self, batch: Batch) -> None:
        """Gather from a batch; nothing changes until ``finish``."""

    @abstractmethod
    def finish(self) -> None:
        """Choose from what was gathered."""


def fit_together(parts: Iterable[FittedOnBatches], batches: Iterable[Batch]) -> None:
    """Fit all parts in one pass over the data, of which one batch is in memory at a time."""
    parts = list(parts)
    for part in parts:
        part.begin()
    for batch in batches:
        for part in parts:
            part.update(batch)
    for part in parts:
        part.finish()


def rows_with(batch: Batch, name: str, values: Tensor) -> Tensor:
    """Leave out the samples that do not have a modality: what they carry in its place are no values."""
    present = batch.present.get(name)
    return values if present is None or bool(present.all()) else values[present]
