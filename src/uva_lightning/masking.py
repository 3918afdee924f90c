"""Random masks of the future frames (UVA section 3.3; MAR)."""

from __future__ import annotations

import math
from abc import ABC
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Generator, Tensor

from uva_lightning.objective import Objective
from uva_lightning.types import Tokens, Visible


def truncated_normal(mean: float, std: float, low: float, high: float, rng: Generator) -> float:
    """Draw one number from a normal distribution cut to [low, high], by inverting its distribution function."""

    def cdf(value: float) -> float:
        return 0.5 * (1 + math.erf((value - mean) / (std * math.sqrt(2))))

    uniform = torch.rand((), generator=rng, dtype=torch.float64)
    quantile = cdf(low) + (cdf(high) - cdf(low)) * uniform
    value = mean + std * float(torch.special.ndtri(quantile))
    return min(max(value, low), high)


def spatial_mask(samples: int, tokens: int, ratio: float, rng: Generator) -> Tensor:
    """Choose the hidden places of a frame, at random for each sample.

    Args:
        samples: Samples ``b``.
        tokens: Tokens ``s`` of a frame.
        ratio: Share that is hidden, in [0, 1]; rounded up to whole tokens.
        rng: CPU generator.

    Returns:
        bool[b, s], True = hidden; the same number in every row.
    """
    order = torch.rand(samples, tokens, generator=rng).argsort(dim=1)
    return order < math.ceil(tokens * ratio)


class MaskedFuture(Objective, ABC):
    """Base of objectives that predict the hidden part of the future frames.

    One spatial mask serves all future frames and cameras, so that no frame shows what another hides. The hidden share
    is drawn once per call from a normal distribution with mean 1 and standard deviation 0.25, cut to
    [mask_ratio_min, 1].

    Args:
        weight: Factor on every loss term, not negative.
        mask_ratio_min: Smallest share of a frame that is hidden, in [0, 1).
        also: Further modalities that it predicts.
    """

    MEAN, STD = 1.0, 0.25

    shows: ClassVar[tuple[str, ...]] = ("history",)
    """Modalities that are wholly visible."""

    def __init__(self, weight: float = 1.0, mask_ratio_min: float = 0.7, also: Sequence[str] = ()) -> None:
        super().__init__(weight, also)
        if not 0 <= mask_ratio_min < 1:
            raise ValueError(f"mask_ratio_min is {mask_ratio_min}, expected a share in [0, 1); the paper uses 0.7.")
        self.mask_ratio_min = mask_ratio_min

    def visible(self, tokens: Tokens, rng: Generator) -> Visible:
        """Show ``shows`` and the unmasked places of the future frames."""
        samples, _, places = tokens.video.shape[:3]
        ratio = truncated_normal(self.MEAN, self.STD, self.mask_ratio_min, 1.0, rng)
        seen = Visible.only(tokens, *self.shows)
        shown = ~spatial_mask(samples, places, ratio, rng)[:, None]  # bool[b, 1, s]
        for camera in tokens.cameras:
            seen[camera].copy_(shown.expand_as(seen[camera]))
        return seen
