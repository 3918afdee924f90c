"""Pictures of any size as the square ones that a model takes."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate, pad

from uva_lightning.datamodules.frames import Frames, LazyFrames, Pictures, Steps

Fit = Literal["crop", "pad", "stretch"]


class Resized(LazyFrames):
    """Pictures made square when they are read.

    Args:
        source: u8[n, H, W, 3].
        size: Height and width afterwards, in pixels.
        fit: ``crop`` the middle, ``pad`` with black, or ``stretch``.
    """

    def __init__(self, source: Frames, size: int, fit: Fit = "crop") -> None:
        super().__init__((len(source), size, size, 3))
        self.source, self.size, self.fit = source, size, fit

    def _read(self, steps: Steps) -> Pictures:
        pictures = torch.from_numpy(np.ascontiguousarray(self.source[steps]))
        return resize(pictures, self.size, self.fit).numpy()


class Flipped(LazyFrames):
    """Pictures turned top to bottom when they are read, as OpenGL draws them upside down.

    Args:
        source: u8[n, H, W, 3].
    """

    def __init__(self, source: Frames) -> None:
        super().__init__(source.shape)
        self.source = source

    def _read(self, steps: Steps) -> Pictures:
        return np.ascontiguousarray(self.source[steps][:, ::-1])


def resize(pictures: Tensor, size: int, fit: Fit = "crop") -> Tensor:
    """Make pictures square, bilinear and without aliasing.

    Args:
        pictures: u8[n, H, W, 3].
        size: Height and width afterwards, in pixels.
        fit: ``crop`` the middle, ``pad`` with black, or ``stretch``.

    Returns:
        u8[n, size, size, 3].

    Raises:
        ValueError: ``fit`` is none of these.
    """
    if fit not in ("crop", "pad", "stretch"):
        raise ValueError(f"fit is '{fit}', expected crop, pad or stretch; set data.reading.fit.")
    height, width = pictures.shape[1:3]
    shown = pictures.movedim(-1, 1)  # [n, 3, H, W]
    if fit == "crop":
        side = min(height, width)
        top, left = (height - side) // 2, (width - side) // 2
        shown = shown[..., top : top + side, left : left + side]
    elif fit == "pad":
        side = max(height, width)
        top, left = (side - height) // 2, (side - width) // 2
        shown = pad(shown, (left, side - width - left, top, side - height - top))
    if shown.shape[-2:] != (size, size) and len(shown):
        shown = interpolate(shown, (size, size), mode="bilinear", antialias=True)
    elif not len(shown):
        shown = shown.new_empty(0, 3, size, size)
    return shown.movedim(1, -1).contiguous()
