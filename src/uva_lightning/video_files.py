"""Frames as files that people can play: MP4 and GIF."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from uva_lightning.whole_files import whole

Frames = NDArray[np.uint8]

VISIBLE_SIDE = 256
"""Smaller frames are enlarged to at least this many pixels, in whole pixels."""
QUALITY = "18"
"""Constant rate factor of H.264; lower is better, 18 shows no loss."""
MPEG4_BITS = 4_000_000
CODECS = ("libx264", "mpeg4")
MILLISECONDS = 1000


def write_mp4(path: Path, frames: Frames, rate_hz: float) -> None:
    """Write a film: H.264 where PyAV has it, MPEG-4 otherwise.

    Args:
        path: File; its folder is made where absent.
        frames: u8[n, H, W, 3], RGB.
        rate_hz: Frames per second.

    Raises:
        ImportError: PyAV is not installed.
    """
    try:
        import av
    except ImportError as error:
        raise ImportError(f"MP4 needs PyAV ({error}); install it with pip install 'uva_lightning[sim]'.") from error

    frames = _even(enlarge(frames))
    codec = next(codec for codec in CODECS if codec in av.codecs_available)
    with whole(path) as partial, av.open(str(partial), "w", format="mp4") as container:
        rate = Fraction(rate_hz).limit_denominator(MILLISECONDS)
        stream: Any = container.add_stream(codec, rate=rate)  # typed as sound or subtitles too
        stream.height, stream.width, stream.pix_fmt = frames.shape[1], frames.shape[2], "yuv420p"
        if codec == CODECS[0]:
            stream.options = {"crf": QUALITY}
        else:
            stream.bit_rate = MPEG4_BITS
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")))
        container.mux(stream.encode())


def safe(name: str) -> str:
    """Make a file name; letters of any script stay, so that names that differ in them do."""
    return re.sub(r"[^\w.-]+", "_", name)


def gif_bytes(frames: Frames, rate_hz: float) -> bytes:
    """Encode u8[n, H, W, 3] as an animated GIF that repeats."""
    first, *others = (Image.fromarray(frame) for frame in frames)
    buffer = io.BytesIO()
    first.save(
        buffer, "GIF", save_all=True, append_images=others, duration=max(1, round(MILLISECONDS / rate_hz)), loop=0
    )
    return buffer.getvalue()


def side_by_side(films: Sequence[Frames]) -> Frames:
    """Join films of one size from left to right; a shorter one stays at its last frame."""
    length = max(len(film) for film in films)
    held = [np.concatenate((film, film[-1:].repeat(length - len(film), axis=0))) for film in films]
    return np.concatenate(held, axis=2)


def enlarge(frames: Frames) -> Frames:
    """Repeat the pixels of u8[..., H, W, 3] until a person can see them."""
    times = -(-VISIBLE_SIDE // min(frames.shape[-3:-1]))
    return frames.repeat(times, axis=-3).repeat(times, axis=-2)


def _even(frames: Frames) -> Frames:
    """Drop an odd last row or column, which the codecs cannot take."""
    return frames[:, : frames.shape[1] // 2 * 2, : frames.shape[2] // 2 * 2]
