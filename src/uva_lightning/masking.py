"""Random masks of the future frames (UVA section 3.3; MAR)."""

from __future__ import annotations

import math
from abc import ABC
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Generator, Tensor

from uva_lightning.draws import uniform_by_sample
from uva_lightning.objective import Objective
from uva_lightning.types import Tokens, Visible


def truncated_normal(mean: float, std: float, low: float, high: float, uniform: Tensor) -> Tensor:
    """Turn uniform numbers into a normal distribution cut to [low, high], by inverting its distribution function.

    Args:
        mean: Of the distribution before it is cut.
        std: Its standard deviation.
        low: Smallest value.
        high: Largest value.
        uniform: f32[...], in [0, 1).

    Returns:
        f64[...].
    """

    def cdf(value: float) -> float:
        return 0.5 * (1 + math.erf((value - mean) / (std * math.sqrt(2))))

    quantile = cdf(low) + (cdf(high) - cdf(low)) * uniform.double()
    return (mean + std * torch.special.ndtri(quantile)).clamp(low, high)


def spatial_mask(ratio: Tensor, uniform: Tensor) -> Tensor:
    """Choose the hidden places of a frame, at random for each sample.

    Args:
        ratio: f64[b], share that is hidden, in [0, 1]; rounded up to whole tokens.
        uniform: f32[b, s], a random number for each of the frame's tokens.

    Returns:
        bool[b, s], True = hidden.
    """
    return uniform.argsort(dim=1) < (uniform.shape[1] * ratio).ceil()[:, None]


class MaskedFuture(Objective, ABC):
    """Base of objectives that predict the hidden part of the future frames.

    One spatial mask serves all future frames and cameras, so that no frame shows what another hides. The hidden share
    of each sample is drawn from a normal distribution with mean 1 and standard deviation 0.25, cut to
    [mask_ratio_min, mask_ratio_max]; where these are equal, it is always the same. The official code draws it once per
    step and process, so there all samples of a process share it; drawn for each sample, a mask does not depend on who
    else is in the batch.

    Args:
        weight: Factor on every loss term, not negative.
        mask_ratio_min: Smallest share of a frame that is hidden, in [0, 1).
        also: Further modalities that it predicts.
        mask_ratio_max: Largest share of a frame that is hidden, in [mask_ratio_min, 1] and above 0.
    """

    MEAN, STD = 1.0, 0.25

    shows: ClassVar[tuple[str, ...]] = ("history",)
    """Modalities that are wholly visible."""

    def __init__(
        self,
        weight: float = 1.0,
        mask_ratio_min: float = 0.7,
        also: Sequence[str] = (),
        mask_ratio_max: float = 1.0,
    ) -> None:
        super().__init__(weight, also)
        if not 0 <= mask_ratio_min < 1:
            raise ValueError(f"mask_ratio_min is {mask_ratio_min}, expected a share in [0, 1); the paper uses 0.7.")
        if not 0 < mask_ratio_max <= 1 or mask_ratio_max < mask_ratio_min:
            raise ValueError(
                f"mask_ratio_max is {mask_ratio_max}, expected a share above 0, from mask_ratio_min={mask_ratio_min} "
                "to 1; the paper uses 1."
            )
        self.mask_ratio_min, self.mask_ratio_max = mask_ratio_min, mask_ratio_max

    def visible(self, tokens: Tokens, rng: Generator) -> Visible:
        """Show ``shows`` and the unmasked places of the future frames."""
        samples, _, places = tokens.video.shape[:3]
        seen = Visible.only(tokens, *self.shows)
        shown = ~self.mask(samples, places, rng)[:, None]  # bool[b, 1, s]
        for camera in tokens.cameras:
            seen[camera].copy_(shown.expand_as(seen[camera]))
        return seen

    def mask(self, samples: int, places: int, rng: Generator) -> Tensor:
        """Draw a mask with a share of its own for each sample: bool[b, places], True = hidden."""
        drawn = uniform_by_sample(rng, samples, 1 + places)
        ratio = truncated_normal(self.MEAN, self.STD, self.mask_ratio_min, self.mask_ratio_max, drawn[:, 0])
        return spatial_mask(ratio, drawn[:, 1:])
