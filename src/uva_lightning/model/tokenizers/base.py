"""What every tokenizer offers."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor

from uva_lightning.draws import Normal
from uva_lightning.model.fitted import Fitted


class Tokenizer(Fitted):
    """Turn frames into latent tokens and back. Frozen: its latents may be computed once and cached.

    Attributes:
        channels: Width ``c`` of a latent token.
    """

    channels: int

    @abstractmethod
    def grid(self, image_size: int) -> tuple[int, int]:
        """Rows and columns of tokens of a frame of ``image_size`` px.

        Raises:
            ValueError: The size does not divide into tokens.
        """

    @abstractmethod
    def fit(self, frames: Tensor) -> None:
        """Learn from u8[n, H, W, 3] what can be learnt in seconds; a pretrained tokenizer does nothing."""

    @abstractmethod
    def encode(self, frames: Tensor) -> Tensor:
        """Encode u8[..., H, W, 3] to moments f32[..., s, m], which ``sample`` turns into latents."""

    @abstractmethod
    def sample(self, moments: Tensor, normal: Normal | None = None) -> Tensor:
        """Turn moments [b, ..., s, m] into latents f32[b, ..., s, c].

        Args:
            moments: As ``encode`` gives them.
            normal: Draws the noise of the samples ``b`` where latents are to be drawn; by default their mean is taken.
        """

    @abstractmethod
    def decode(self, latents: Tensor, image_size: int) -> Tensor:
        """Decode f32[..., s, c] to u8[..., image_size, image_size, 3], the size of the data's frames."""

    def in_use(self, dtype: torch.dtype) -> Tokenizer:
        """Give a form that is faster at run time, such as one that computes in ``dtype``; itself if not overridden."""
        return self

    @abstractmethod
    def fingerprint(self) -> str:
        """Name the weights, so that cached latents of other weights are never taken for these."""


def encode_where(encode: Callable[[Tensor], Tensor], frames: Tensor, there: Tensor | None) -> Tensor:
    """Encode the pictures of the samples that have some; the others become zeros at no cost.

    Args:
        encode: u8[b, n, H, W, 3] to [b, n, s, m].
        frames: u8[b, n, H, W, 3].
        there: bool[b] on the CPU; every sample if not given.

    Returns:
        [b, n, s, m].
    """
    if there is None or there.all():
        return encode(frames)
    rows = there.nonzero()[:, 0].to(frames.device)
    some = encode(frames[rows] if len(rows) else frames[:1])  # of none, one tells the shape
    return some.new_zeros(len(frames), *some.shape[1:]).index_copy(0, rows, some[: len(rows)])
