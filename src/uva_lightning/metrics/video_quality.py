"""Quality of predicted frames, each against the real one: PSNR, SSIM and, where weights are given, LPIPS."""

from __future__ import annotations

from abc import abstractmethod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure

from uva_lightning.metrics.per_step import PerStep

PIXEL_RANGE = 255.0
PSNR_OF_EQUAL = 100.0
"""PSNR in dB that equal frames get, in the place of infinity."""
LEAST_SIDE = 16
"""Side of a picture in px that SSIM needs: its window reaches 5 px past the border and is cut there."""


class FrameQuality(PerStep):
    """Base of what compares frames u8[n, t, H, W, 3] one by one."""

    def measured(self, predicted: Tensor, real: Tensor) -> Tensor:
        """See the base class."""
        one, other = (x.flatten(0, 1).permute(0, 3, 1, 2).float() for x in (predicted, real))
        return self.of_pictures(one, other).unflatten(0, predicted.shape[:2])

    @abstractmethod
    def of_pictures(self, predicted: Tensor, real: Tensor) -> Tensor:
        """Compare pictures f32[n, 3, H, W] from 0 to 255: f[n]."""


class PSNR(FrameQuality):
    """Peak signal-to-noise ratio over all pixels and colours of a frame."""

    title, higher_is_better = "PSNR, dB", True

    def of_pictures(self, predicted: Tensor, real: Tensor) -> Tensor:
        """See the base class."""
        values = peak_signal_noise_ratio(predicted, real, PIXEL_RANGE, reduction="none", dim=(1, 2, 3))
        return values.clamp(max=PSNR_OF_EQUAL)


class SSIM(FrameQuality):
    """Structural similarity (Wang 2004): a Gaussian window of deviation 1.5 px, mean over the colours."""

    title, higher_is_better = "SSIM", True

    def of_pictures(self, predicted: Tensor, real: Tensor) -> Tensor:
        """See the base class."""
        if min(predicted.shape[-2:]) < LEAST_SIDE:
            raise ValueError(f"Pictures have {tuple(predicted.shape[-2:])} px, expected at least {LEAST_SIDE} a side.")
        values = structural_similarity_index_measure(predicted, real, reduction="none", data_range=PIXEL_RANGE)
        if not isinstance(values, Tensor):
            raise TypeError(f"torchmetrics gave a {type(values).__name__}, expected one number for each picture.")
        return values.reshape(len(predicted))


class LPIPS(FrameQuality):
    """Distance in the features of a network (Zhang 2018), by a network of yours.

    Args:
        path: TorchScript file: turns two batches of pictures f32[n, 3, H, W] in [-1, 1] into n distances. Loading one
            runs its code: take it from where you trust it.
        at_once: Pictures that go through the network at a time.

    Raises:
        ValueError: There is no such file.
    """

    title, higher_is_better = "LPIPS", False

    def __init__(self, path: Path | str, at_once: int = 32, **options: Any) -> None:
        super().__init__(**options)
        if not Path(path).is_file():
            raise ValueError(
                f"There is no LPIPS network at {path}, expected a TorchScript file that takes two batches of pictures "
                "in [-1, 1] and gives their distances; save one with torch.jit.trace, or leave LPIPS out."
            )
        self.net, self.at_once = torch.jit.load(str(path), map_location="cpu").eval(), at_once

    @torch.no_grad()
    def of_pictures(self, predicted: Tensor, real: Tensor) -> Tensor:
        """See the base class."""
        pairs = zip(predicted.split(self.at_once), real.split(self.at_once), strict=True)
        values: Tensor = torch.cat([self.net(*(x / (PIXEL_RANGE / 2) - 1 for x in pair)).flatten() for pair in pairs])
        if values.numel() != len(predicted):
            raise ValueError(
                f"The LPIPS network gives {tuple(values.shape)} for {len(predicted)} pictures, expected one for each."
            )
        return values
