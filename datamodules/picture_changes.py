"""Changes of pictures: crop, colours, blur, sharpness; each is a formula of the picture and a few uniform draws.

All take f32[b, t, 3, H, W] in [0, 1], RGB, and numbers f32[b, ...] of the samples, and give new pictures of the same
shape and range. The formulas are those of torchvision and kornia, by which UVA's code changes its pictures.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

LUMA = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in a grey value (ITU-R BT.601)."""
SMOOTHING = 13.0
"""Sum of the weights of sharpness: 5 for the pixel, 1 for each of its eight neighbours (PIL's SMOOTH)."""


@dataclass(frozen=True)
class PictureChange(ABC):
    """A change that happens to a window with some probability.

    Args:
        probability: Share of the windows that are changed, 0 to 1.
    """

    draws: ClassVar[int] = 0
    """Uniform numbers that the change of one window needs."""

    probability: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.probability <= 1:
            raise ValueError(
                f"{type(self).__name__} has probability {self.probability}, expected a share between 0 and 1."
            )

    @abstractmethod
    def __call__(self, pictures: Tensor, drawn: Tensor) -> Tensor:
        """Change windows.

        Args:
            pictures: f32[b, t, 3, H, W] in [0, 1]. May be overwritten.
            drawn: f32[b, draws] in [0, 1), on the CPU.

        Returns:
            f32[b, t, 3, H, W] in [0, 1].
        """


@dataclass(frozen=True)
class Crop(PictureChange):
    """Cut a square out at a random place and enlarge it to the whole picture, bilinear with antialiasing.

    Args:
        share: Side of the square over the side of the picture; UVA cuts 91 of 96 px (0.95) and 208 of 224 px (0.93).
    """

    draws: ClassVar[int] = 2
    share: float = 0.95

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.share <= 1:
            raise ValueError(f"Crop has share {self.share}, expected more than 0 and at most 1, such as 0.95.")

    def __call__(self, pictures: Tensor, drawn: Tensor) -> Tensor:
        """See the base class."""
        samples, _, _, height, width = pictures.shape
        tall, wide = max(1, round(self.share * height)), max(1, round(self.share * width))
        free = torch.tensor([height - tall + 1, width - wide + 1])
        corners = (drawn * free).long().minimum(free - 1).tolist()  # a draw just below 1 may round up
        cut = torch.stack([pictures[i, ..., y : y + tall, x : x + wide] for i, (y, x) in enumerate(corners)])
        whole = functional.interpolate(cut.flatten(0, 1), (height, width), mode="bilinear", antialias=True)
        return whole.unflatten(0, (samples, -1)).clamp_(0, 1)


@dataclass(frozen=True)
class ColourJitter(PictureChange):
    """Change brightness, contrast, saturation and hue, each by a factor around 1, in random order.

    Args:
        brightness: Largest distance of the factor from 1: 0.2 is between 0.8 and 1.2.
        contrast: The same.
        saturation: The same.
        hue: Largest turn of the hue, in turns of the colour circle, at most 0.5.
    """

    draws: ClassVar[int] = 8
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, most in {"brightness": 1.0, "contrast": 1.0, "saturation": 1.0, "hue": 0.5}.items():
            if not 0 <= getattr(self, name) <= most:
                raise ValueError(f"ColourJitter has {name} {getattr(self, name)}, expected 0 to {most:g}.")

    def __call__(self, pictures: Tensor, drawn: Tensor) -> Tensor:
        """See the base class."""
        spread = torch.tensor([self.brightness, self.contrast, self.saturation, self.hue])
        apart = (2 * drawn[:, :4] - 1) * spread  # f32[b, 4]
        steps = ((brightened, 1 + apart[:, 0]), (contrasted, 1 + apart[:, 1]), (saturated, 1 + apart[:, 2]))
        order = drawn[:, 4:].argsort(dim=1)  # i64[b, 4]
        for place in range(4):
            for number, (change, factor) in enumerate((*steps, (hue_turned, apart[:, 3]))):
                rows = (order[:, place] == number).nonzero()[:, 0]
                if len(rows) and spread[number]:
                    here = rows.to(pictures.device)
                    pictures[here] = change(pictures[here], factor[rows])
        return pictures


@dataclass(frozen=True)
class Blur(PictureChange):
    """Blur with a Gaussian of random width; the picture is mirrored at its edges.

    Args:
        kernel: Side of the kernel in pixels, odd.
        sigma: Least and largest standard deviation in pixels.
    """

    draws: ClassVar[int] = 1
    kernel: int = 5
    sigma: tuple[float, float] = (0.1, 2.0)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.kernel < 1 or self.kernel % 2 == 0:
            raise ValueError(f"Blur has a kernel of {self.kernel} px, expected an odd number such as 5.")
        if not 0 < self.sigma[0] <= self.sigma[1]:
            raise ValueError(f"Blur has sigma {list(self.sigma)} px, expected 0 < least <= largest, such as [0.1, 2].")

    def __call__(self, pictures: Tensor, drawn: Tensor) -> Tensor:
        """See the base class."""
        least, largest = self.sigma
        return blurred(pictures, least + (largest - least) * drawn[:, 0], self.kernel)


@dataclass(frozen=True)
class Sharpness(PictureChange):
    """Blend with a smoothed picture, or away from it.

    Args:
        strength: Largest factor; 0 is smoothed, 1 as it was, 2 sharpened. Factors are drawn between 0 and this.
    """

    draws: ClassVar[int] = 1
    strength: float = 2.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.strength < 0:
            raise ValueError(f"Sharpness has strength {self.strength}, expected at least 0, such as 2.")

    def __call__(self, pictures: Tensor, drawn: Tensor) -> Tensor:
        """See the base class."""
        return sharpened(pictures, self.strength * drawn[:, 0])


@dataclass(frozen=True)
class AutoContrast(PictureChange):
    """Stretch every colour of every frame to the whole range."""

    def __call__(self, pictures: Tensor, drawn: Tensor) -> Tensor:
        """See the base class."""
        return stretched(pictures)


@dataclass(frozen=True)
class Grey(PictureChange):
    """Take the colours away."""

    def __call__(self, pictures: Tensor, drawn: Tensor) -> Tensor:
        """See the base class."""
        return grey(pictures).expand_as(pictures)


def grey(pictures: Tensor) -> Tensor:
    """Weigh the colours: f32[b, t, 1, H, W]."""
    red, green, blue = pictures.unbind(dim=-3)
    return (LUMA[0] * red).add_(green, alpha=LUMA[1]).add_(blue, alpha=LUMA[2]).unsqueeze(-3)


def brightened(pictures: Tensor, factor: Tensor) -> Tensor:
    """Blend with black by f32[b]: 0 is black, 1 as it was."""
    return pictures.mul(_per_sample(factor, pictures)).clamp_(0, 1)


def contrasted(pictures: Tensor, factor: Tensor) -> Tensor:
    """Blend with the mean grey of each frame by f32[b]: 0 is plain grey, 1 as it was."""
    return _blend(pictures, grey(pictures).mean(dim=(-3, -2, -1), keepdim=True), factor)


def saturated(pictures: Tensor, factor: Tensor) -> Tensor:
    """Blend with the grey picture by f32[b]: 0 is grey, 1 as it was."""
    return _blend(pictures, grey(pictures), factor)


def hue_turned(pictures: Tensor, turn: Tensor) -> Tensor:
    """Turn the hue by f32[b], in turns of the colour circle; value and saturation of HSV stay."""
    value, least = pictures.amax(dim=-3), pictures.amin(dim=-3)
    chroma = value - least
    red, green, blue = pictures.unbind(dim=-3)
    safe = chroma.clamp(min=torch.finfo(chroma.dtype).tiny)
    sector = torch.where(
        value == red,
        (green - blue) / safe,
        torch.where(value == green, 2 + (blue - red) / safe, 4 + (red - green) / safe),
    )
    hue = sector + 6 * _per_sample(turn, sector)  # in sixths of a turn
    colours = []
    for start in (5.0, 3.0, 1.0):  # a colour falls from the value by the chroma where its sector is far
        place = (hue + start).remainder_(6)
        colours.append(value - chroma * torch.minimum(place, 4 - place).clamp_(0, 1))
    return torch.stack(colours, dim=-3).clamp_(0, 1)


def blurred(pictures: Tensor, sigma: Tensor, kernel: int) -> Tensor:
    """Blur with a Gaussian of standard deviation f32[b] in pixels, cut off at ``kernel`` pixels."""
    reach = kernel // 2
    weights = torch.exp(-((torch.arange(-reach, reach + 1) / sigma[:, None]) ** 2) / 2)
    weights = (weights / weights.sum(dim=1, keepdim=True)).to(pictures.device)  # f32[b, kernel]
    for axis in (-2, -1):
        length = pictures.shape[axis]
        steps = torch.arange(-reach, length + reach, device=pictures.device)
        period = max(1, 2 * (length - 1))
        mirrored = (length - 1) - (steps.remainder(period) - (length - 1)).abs()
        wide = pictures.index_select(axis, mirrored)
        blurry = torch.zeros_like(pictures)
        for offset in range(kernel):
            blurry.addcmul_(wide.narrow(axis, offset, length), _per_sample(weights[:, offset], pictures))
        pictures = blurry
    return pictures.clamp_(0, 1)


def sharpened(pictures: Tensor, factor: Tensor) -> Tensor:
    """Blend with a picture smoothed over 3 x 3 pixels by f32[b]; the outermost pixels stay, as in PIL."""
    height, width = pictures.shape[-2:]
    if min(height, width) < 3:
        return pictures
    smooth = pictures.clone()
    inner = 4 * pictures[..., 1:-1, 1:-1]
    for y in range(3):
        for x in range(3):
            inner += pictures[..., y : y + height - 2, x : x + width - 2]
    smooth[..., 1:-1, 1:-1] = inner / SMOOTHING
    return _blend(pictures, smooth, factor)


def stretched(pictures: Tensor) -> Tensor:
    """Map each colour of each frame from its range to [0, 1]; one that does not vary stays."""
    low, high = pictures.amin(dim=(-2, -1), keepdim=True), pictures.amax(dim=(-2, -1), keepdim=True)
    flat = high <= low
    return ((pictures - low.masked_fill(flat, 0)) / (high - low).masked_fill(flat, 1)).clamp_(0, 1)


def _blend(pictures: Tensor, other: Tensor, factor: Tensor) -> Tensor:
    """Give the other picture at 0 and this one at 1."""
    return torch.lerp(other.expand_as(pictures), pictures, _per_sample(factor, pictures)).clamp_(0, 1)


def _per_sample(numbers: Tensor, pictures: Tensor) -> Tensor:
    """Bring f32[b] to the device of the pictures, with as many axes."""
    return numbers.to(pictures.device, non_blocking=True).reshape(-1, *(1,) * (pictures.ndim - 1))
