"""Patches in a PCA basis: a tokenizer fitted in seconds, for runs that must start without any download."""

from __future__ import annotations

import hashlib

import torch
from einops import rearrange
from torch import Tensor

from uva_lightning.draws import Normal
from uva_lightning.model.tokenizers.base import Tokenizer

PIXEL_MAX = 255.0
FIT_FRAMES = 4096


class LinearPatches(Tokenizer):
    """Principal components of square patches; the mean is kept per place, the basis is shared by all places.

    Args:
        patch: Height and width of a patch in pixels.
        channels: Components kept.
        whiten: Exponent that evens the components' scales out: 0 keeps the variances of the pixels (only the overall
            scale becomes 1), 1 gives every component variance 1.
        grid: Patches in a row and in a column, for pictures of any size that they divide; ``patch`` then follows.
    """

    def __init__(self, patch: int = 24, channels: int = 64, whiten: float = 1.0, grid: int | None = None) -> None:
        if grid is None:
            self._check_channels(patch, channels)
        if not 0 <= whiten <= 1:
            raise ValueError(f"whiten is an exponent in [0, 1], got {whiten}.")
        self.patch, self.channels, self.whiten, self.side = patch, channels, whiten, grid
        self._mean = self._basis = self._scale = torch.empty(0)

    @property
    def fitted(self) -> bool:
        """Whether ``fit`` or ``load_state`` was called."""
        return self._basis.numel() > 0

    def grid(self, image_size: int) -> tuple[int, int]:
        """See the base class."""
        if self.side is not None:
            if image_size % self.side:
                raise ValueError(f"Frames of {image_size} px do not divide into {self.side} columns; set grid.")
            return self.side, self.side
        if image_size % self.patch:
            raise ValueError(f"Frames of {image_size} px do not divide into patches of {self.patch} px; set patch.")
        return image_size // self.patch, image_size // self.patch

    def fit(self, frames: Tensor) -> None:
        """Find the components of at most 4,096 evenly spaced frames, u8[n, H, W, 3]."""
        rows, _ = self.grid(frames.shape[-2])
        self._check_channels(frames.shape[-2] // rows, self.channels)
        chosen = torch.linspace(0, len(frames) - 1, min(len(frames), FIT_FRAMES)).long()
        patches = self._patches(frames[chosen])  # f32[n, s, w]
        mean = patches.mean(dim=0)
        centred = (patches - mean).flatten(0, 1)
        values, vectors = torch.linalg.eigh(centred.T @ centred / len(centred))
        variance = values.flip(0)[: self.channels].clamp(min=values[-1] * 1e-6)
        even = variance.mean()
        self._mean, self._basis = mean, vectors.flip(1)[:, : self.channels].contiguous()
        self._scale = (variance**self.whiten * even ** (1 - self.whiten)).sqrt()

    def encode(self, frames: Tensor) -> Tensor:
        """See the base class; the moments are the latents themselves."""
        self._check()
        return (self._patches(frames) - self._mean) @ self._basis / self._scale

    def sample(self, moments: Tensor, normal: Normal | None = None) -> Tensor:
        """See the base class; there is nothing random."""
        return moments.float()

    def decode(self, latents: Tensor, image_size: int) -> Tensor:
        """See the base class."""
        self._check()
        rows, _ = self.grid(image_size)
        patch = image_size // rows
        patches = (latents.float() * self._scale) @ self._basis.T + self._mean
        image = rearrange(patches, "... (y x) (i j c) -> ... (y i) (x j) c", y=rows, i=patch, j=patch)
        return (image * PIXEL_MAX).round().clamp(0, PIXEL_MAX).to(torch.uint8)

    def fingerprint(self) -> str:
        """See the base class."""
        return hashlib.sha256(b"".join(t.cpu().numpy().tobytes() for t in self.state().values())).hexdigest()

    def state(self) -> dict[str, Tensor]:
        """See the base class."""
        return {"mean": self._mean, "basis": self._basis, "scale": self._scale}

    def load_state(self, state: dict[str, Tensor]) -> None:
        """See the base class."""
        width = self.patch * self.patch * 3 if self.side is None else len(state["basis"])
        if state["basis"].shape != (width, self.channels):
            raise ValueError(
                f"The checkpoint's tokenizer has a basis of {tuple(state['basis'].shape)}, expected "
                f"{(width, self.channels)}; set the tokenizer's patch and channels as in the checkpoint's config."
            )
        self._mean, self._basis, self._scale = state["mean"], state["basis"], state["scale"]

    def to(self, device: torch.device) -> None:
        """See the base class."""
        self._mean, self._basis, self._scale = (t.to(device) for t in self.state().values())

    def _patches(self, frames: Tensor) -> Tensor:
        rows, columns = self.grid(frames.shape[-2])
        return rearrange(frames.float() / PIXEL_MAX, "... (y i) (x j) c -> ... (y x) (i j c)", y=rows, x=columns)

    @staticmethod
    def _check_channels(patch: int, channels: int) -> None:
        width = patch * patch * 3
        if not 0 < channels <= width:
            raise ValueError(f"channels is {channels}, expected 1 to {width}, the numbers in a {patch} px patch.")

    def _check(self) -> None:
        if not self.fitted:
            raise ValueError("LinearPatches has no basis yet; fit it on frames or load a checkpoint that has one.")
