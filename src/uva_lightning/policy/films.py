"""Imagined frames as files that people can look at."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from uva_lightning.types import DataSpec
from uva_lightning.video_files import enlarge, write_mp4
from uva_lightning.whole_files import whole

GAP = 4
WHITE = 255


def write_films(folder: Path | str, frames: Mapping[str, NDArray[np.uint8]], spec: DataSpec) -> list[Path]:
    """Write what ``UVAPolicy.imagine`` gave: a film per camera and environment, and a contact sheet per camera.

    Args:
        folder: Where to; made where absent.
        frames: u8[t, H, W, 3] or u8[n, t, H, W, 3] per camera.
        spec: Contract of the policy; frames lie ``spec.stride`` control steps apart.

    Returns:
        The files: ``CAMERA_0.mp4`` and so on, and ``CAMERA.png``, a row per environment.

    Raises:
        ImportError: PyAV is not installed.
    """
    written: list[Path] = []
    for camera, films in frames.items():
        batch = films if films.ndim == 5 else films[None]  # u8[n, t, H, W, 3]
        for number, film in enumerate(batch):
            written.append(Path(folder) / f"{camera}_{number}.mp4")
            write_mp4(written[-1], film, spec.rate_hz / spec.stride)
        written.append(Path(folder) / f"{camera}.png")
        with whole(written[-1]) as part:
            Image.fromarray(contact_sheet(batch)).save(part, "PNG")
    return written


def contact_sheet(films: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Lay u8[n, t, H, W, 3] out in ``n`` rows of ``t`` pictures: u8[height, width, 3]."""
    shown = np.pad(enlarge(films), ((0, 0), (0, 0), (0, GAP), (0, GAP), (0, 0)), constant_values=WHITE)
    rows = [np.concatenate(list(film), axis=1) for film in shown]
    sheet: NDArray[np.uint8] = np.concatenate(rows, axis=0)[:-GAP, :-GAP]
    return sheet
