"""Parts that are fitted on data before training and then frozen: tokenizer and normalisers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor


class Fitted(ABC):
    """Tensors that no gradient changes.

    They are no module parameters on purpose: optimizer, EMA and DDP never see them, a copy of the model shares them,
    and the checkpoint stores them once, under a key of their own.
    """

    def __deepcopy__(self, memo: dict[int, Any]) -> Fitted:
        return self

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
