"""Frechet video distance: how far generated clips are from real ones as a whole (Unterthiner 2018; UVA section 5)."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchmetrics import Metric

CLIP, SIDE = 16, 224
"""Frames of a clip and side of a picture in px that the features see."""
I3D_WIDTH = 400


class VideoFeatures(nn.Module, ABC):
    """Features of clips; frozen."""

    width: int
    """Numbers of a feature."""
    title: str
    """What a table calls a distance in these features."""

    @abstractmethod
    def forward(self, clips: Tensor) -> Tensor:
        """Turn clips f32[n, 3, 16, 224, 224] in [-1, 1] into features f32[n, width]."""


class I3D(VideoFeatures):
    """Logits of I3D trained on Kinetics-400: with them the distance is the FVD of the literature.

    Args:
        path: TorchScript file, such as ``i3d_pretrained_400.pt`` of Common Metrics on Video Quality. Loading one runs
            its code: take it from where you trust it.
    """

    width, title = I3D_WIDTH, "FVD (I3D)"

    def __init__(self, path: Path | str) -> None:
        super().__init__()
        if not Path(path).is_file():
            raise ValueError(
                f"There is no I3D network at {path}, expected a TorchScript file that turns clips into {self.width} "
                "numbers; fetch one, or use RandomVideoFeatures, which need none."
            )
        self.net = torch.jit.load(str(path), map_location="cpu").eval()

    @torch.no_grad()
    def forward(self, clips: Tensor) -> Tensor:
        """See the base class."""
        features: Tensor = self.net(clips)
        if features.ndim != 2 or features.shape[1] != self.width:
            raise ValueError(f"The I3D network gives {tuple(features.shape)}, expected [n, {self.width}]: its logits.")
        return features


class RandomVideoFeatures(VideoFeatures):
    """Features of a small random 3-D network, the same in every run: for comparing runs where no weights are at hand.

    Distances in them order models of one data set, but compare with no number from elsewhere.

    Args:
        width: Numbers of a feature, a multiple of 4.
        seed: Of the weights.
    """

    title = "Frechet distance (random features, not FVD)"

    def __init__(self, width: int = 64, seed: int = 0) -> None:
        super().__init__()
        self.width, rng = width, torch.Generator().manual_seed(seed)
        sizes = (3, width // 4, width // 2)
        self.net = nn.Sequential()
        for one, other in zip(sizes, sizes[1:], strict=False):
            conv = nn.Conv3d(one, other, (3, 5, 5), stride=(2, 4, 4), padding=(1, 2, 2), bias=False)
            conv.weight.data = torch.randn(conv.weight.shape, generator=rng) / (0.5 * conv.weight[0].numel()) ** 0.5
            self.net.extend((conv, nn.LeakyReLU(0.2)))
        self.requires_grad_(False)

    @torch.no_grad()
    def forward(self, clips: Tensor) -> Tensor:
        """See the base class."""
        x = self.net(clips)
        return torch.cat((x.mean(dim=(2, 3, 4)), x.std(dim=2).mean(dim=(2, 3))), dim=1)  # what there is, what moves


def clips(frames: Tensor, side: int = SIDE) -> Tensor:
    """Prepare frames u8[n, t, H, W, 3] as the official code: f32[n, 3, t, side, side] in [-1, 1].

    The shorter side becomes ``side`` (bilinear), the middle of the longer one stays.
    """
    n, t, height, width, _ = frames.shape
    x = frames.flatten(0, 1).permute(0, 3, 1, 2).float() / 255.0
    factor = side / min(height, width)
    size = (side, math.ceil(width * factor)) if height < width else (math.ceil(height * factor), side)
    x = functional.interpolate(x, size, mode="bilinear", align_corners=False)
    top, left = (x.shape[2] - side) // 2, (x.shape[3] - side) // 2
    x = x[:, :, top : top + side, left : left + side]
    return ((x - 0.5) * 2).unflatten(0, (n, t)).transpose(1, 2).contiguous()


def lengthened(frames: Tensor, length: int = CLIP) -> Tensor:
    """Repeat each frame of u8[n, t, ...] until there are ``length``, as the official code does with 4.

    Raises:
        ValueError: ``length`` is no multiple.
    """
    if length % frames.shape[1]:
        raise ValueError(f"Clips have {frames.shape[1]} frames, expected a divisor of {length}, to repeat each alike.")
    return frames.repeat_interleave(length // frames.shape[1], dim=1)


def frechet(one: Tensor, other: Tensor) -> Tensor:
    """Distance between normal distributions fitted to two sets of features f[n, d] and f[m, d]: f64[].

    Raises:
        ValueError: A set has fewer than two, for which there is no covariance.
    """
    if min(len(one), len(other)) < 2:
        raise ValueError(f"There are {len(one)} and {len(other)} clips, expected at least 2 of each.")
    moments = [(x.double().mean(dim=0), torch.cov(x.double().T)) for x in (one, other)]
    return frechet_of(*moments[0], *moments[1])


def frechet_of(mean: Tensor, covariance: Tensor, mean2: Tensor, covariance2: Tensor) -> Tensor:
    """Distance between two normal distributions: means f64[d], covariances f64[d, d]."""
    values, vectors = torch.linalg.eigh(covariance)
    root = (vectors * values.clamp(min=0).sqrt()) @ vectors.T
    shared = torch.linalg.eigvalsh(root @ covariance2 @ root).clamp(min=0).sqrt().sum()
    return (mean - mean2).square().sum() + covariance.trace() + covariance2.trace() - 2 * shared


class FrechetVideoDistance(Metric):
    """Distance between generated and real clips over a whole data set, and over all processes.

    Args:
        features: Of clips.
    """

    is_differentiable = False
    higher_is_better = False
    full_state_update = False

    def __init__(self, features: VideoFeatures, **options: Any) -> None:
        super().__init__(**options)
        self.features = features
        width = features.width
        for name in ("generated", "real"):
            self.add_state(f"{name}_count", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
            self.add_state(f"{name}_sum", torch.zeros(width, dtype=torch.float64), dist_reduce_fx="sum")
            self.add_state(f"{name}_outer", torch.zeros(width, width, dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, generated: Tensor, real: Tensor) -> None:
        """Take clips u8[n, t, H, W, 3]; frames are repeated until there are 16."""
        for name, frames in (("generated", generated), ("real", real)):
            resized = lengthened(clips(frames).transpose(1, 2)).transpose(1, 2)  # each frame once, then repeated
            features = self.features(resized.contiguous()).double()
            values = {"count": float(len(features)), "sum": features.sum(dim=0), "outer": features.T @ features}
            for what, value in values.items():
                setattr(self, f"{name}_{what}", getattr(self, f"{name}_{what}") + value)

    def compute(self) -> Tensor:
        """Give the distance, f64[].

        Raises:
            ValueError: There were fewer than two clips.
        """
        return frechet_of(*self._moments("generated"), *self._moments("real"))

    def _moments(self, name: str) -> tuple[Tensor, Tensor]:
        count, total, outer = (getattr(self, f"{name}_{what}") for what in ("count", "sum", "outer"))
        if count < 2:
            raise ValueError(f"There are {int(count)} {name} clips, expected at least 2: they have no covariance.")
        mean = total / count
        return mean, (outer - count * torch.outer(mean, mean)) / (count - 1)
