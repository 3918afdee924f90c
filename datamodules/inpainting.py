"""Parts of pictures painted over, such as the mirrors that a hand-held gripper has at the sides of its camera."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw

from uva_lightning.datamodules.frames import Frames, LazyFrames, Pictures, Steps

Polygon = list[tuple[float, float]]
"""Corners (x, y), from 0 (left, top) to 1 (right, bottom) of the picture."""


class Painted(LazyFrames):
    """Pictures whose polygons are black, painted when they are read.

    Args:
        source: u8[n, H, W, 3].
        polygons: What is painted over.

    Raises:
        ValueError: A polygon has fewer than three corners, or a corner lies outside of the picture.
    """

    def __init__(self, source: Frames, polygons: list[Polygon]) -> None:
        super().__init__(source.shape)
        self.source, self.shown = source, ~covered(polygons, *source.shape[1:3])[..., None]

    def _read(self, steps: Steps) -> Pictures:
        return self.source[steps] * self.shown


def covered(polygons: list[Polygon], height: int, width: int) -> np.ndarray[tuple[int, int], np.dtype[np.bool_]]:
    """Tell which pixels lie in a polygon, bool[H, W].

    Raises:
        ValueError: A polygon has fewer than three corners, or a corner lies outside of the picture.
    """
    mask = Image.new("1", (width, height))
    draw = ImageDraw.Draw(mask)
    for polygon in polygons:
        if len(polygon) < 3 or not all(0 <= number <= 1 for corner in polygon for number in corner):
            raise ValueError(
                f"A polygon to paint over is {polygon}, expected three or more corners [x, y] from 0 to 1 of the "
                "picture's width and height; divide pixels by them."
            )
        draw.polygon([(x * (width - 1), y * (height - 1)) for x, y in polygon], fill=1)
    return np.asarray(mask)
