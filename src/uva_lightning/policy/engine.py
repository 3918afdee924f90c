"""What runs at each decision: transformer, heads and tokenizer of a trained model."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from uva_lightning.model.heads.base import Head
from uva_lightning.module import UVAModule


class Engine:
    """The plain path: the model's own parts, as in training.

    Args:
        module: Trained model.
    """

    def __init__(self, module: UVAModule) -> None:
        self.module = module

    @property
    def transformer(self) -> Any:
        """Turns tokens and what is visible into Z [b, t, s, d]."""
        return self.module.transformer

    def head(self, name: str) -> Head:
        """Give the head of a modality.

        Raises:
            ValueError: There is none.
        """
        return self.module.head(name)

    def encode(self, frames: Tensor) -> Tensor:
        """Encode u8[..., H, W, 3] to moments f16[..., s, m] on the model's device."""
        return self.module.encode_frames(frames)

    def decode(self, latents: Tensor, image_size: int) -> Tensor:
        """Decode f32[..., s, c] to u8[..., image_size, image_size, 3]."""
        with torch.autocast(self.module.device.type, enabled=False):
            return self.module.tokenizer.decode(latents.float(), image_size)
