"""Pictures of a data set for people: a contact sheet per camera, its mean picture, and histograms of the numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from uva_lightning.datamodules.frames import Pictures
from uva_lightning.datamodules.store import EpisodeStore

TILE = 160
"""Largest side of a picture on the sheet in px."""
GAP, CAPTION = 4, 14
WHITE, BLACK = (255, 255, 255), (0, 0, 0)
BINS = 60
COLUMNS = 4
ROWS = 1_000_000


def spaced(count: int, most: int) -> list[int]:
    """Choose evenly spaced numbers below ``count``, the first and the last among them."""
    return sorted({round(place) for place in np.linspace(0, count - 1, min(count, most)).tolist()})


def contact_sheet(store: EpisodeStore, camera: str, episodes: int, frames: int) -> tuple[Image.Image, Pictures]:
    """Lay out evenly spaced frames, one row per episode; only these are read.

    Args:
        store: Episodes.
        camera: Whose pictures.
        episodes: Rows at most.
        frames: Pictures of a row at most.

    Returns:
        The sheet, and the mean of its pictures, u8[H, W, 3].

    Raises:
        Broken: One of the pictures cannot be read.
    """
    video, tile = store.video[camera], _tile(store.video[camera].shape[1:3])
    chosen = spaced(store.episodes, episodes)
    size = (GAP + frames * (tile[0] + GAP), GAP + len(chosen) * (tile[1] + CAPTION + GAP))
    sheet = Image.new("RGB", size, WHITE)
    draw = ImageDraw.Draw(sheet)
    total, count = np.zeros(video.shape[1:], dtype=np.float64), 0
    for row, episode in enumerate(chosen):
        steps = np.array(spaced(int(store.lengths[episode]), frames), dtype=np.int64)
        pictures = video[store.begins[episode] + steps]
        total, count = total + pictures.sum(axis=0, dtype=np.float64), count + len(pictures)
        for column, (step, picture) in enumerate(zip(steps.tolist(), pictures, strict=True)):
            left, top = GAP + column * (tile[0] + GAP), GAP + row * (tile[1] + CAPTION + GAP)
            draw.text((left, top), f"episode {episode}, step {step}", BLACK)
            sheet.paste(Image.fromarray(picture).resize(tile), (left, top + CAPTION))
    return sheet, np.rint(total / count).astype(np.uint8)


def histograms(numbers: Mapping[str, NDArray[np.float32]], path: Path) -> None:
    """Draw a histogram of each column of action and state.

    Args:
        numbers: f32[n, w] by name.
        path: PNG file.

    Raises:
        ImportError: matplotlib is not installed.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    columns = [(f"{name}[{i}]", values[:, i]) for name, values in numbers.items() for i in range(values.shape[1])]
    rows = math.ceil(len(columns) / COLUMNS)
    figure, axes = pyplot.subplots(rows, COLUMNS, figsize=(3 * COLUMNS, 2.2 * rows), squeeze=False)
    for axis in axes.flat[len(columns) :]:
        axis.set_axis_off()
    for axis, (title, values) in zip(axes.flat, columns, strict=False):
        axis.hist(values[:: -(-len(values) // ROWS)], bins=BINS)
        axis.set_title(title, fontsize=8)
        axis.tick_params(labelsize=6)
        axis.set_yticks([])
    figure.tight_layout()
    figure.savefig(path, dpi=100)
    pyplot.close(figure)


def _tile(size: tuple[int, ...]) -> tuple[int, int]:
    """Width and height of a picture on the sheet; small ones are enlarged, so that the caption fits."""
    scale = TILE / max(size)
    return round(size[1] * scale), round(size[0] * scale)
