"""Films that are readable at any time while they are written, and become ordinary MP4 at the end."""

from __future__ import annotations

import os
from fractions import Fraction
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from uva_lightning.robot.camera import Frames
from uva_lightning.whole_files import whole

CODEC = "libx264"
OPTIONS = {"crf": "18", "preset": "veryfast", "tune": "zerolatency", "bf": "0", "g": "10"}
"""Zero latency: no frame waits in the encoder, where a crash would lose it."""
IN_PIECES = {"movflags": "empty_moov+default_base_moof+frag_every_frame", "flush_packets": "1"}
MICRO = Fraction(1, 1_000_000)
HEADER = 8
LONG_HEADER = 16


class FilmInPieces:
    """One camera's film, H.264 in MP4, every frame in a piece of its own. Times count from the first frame.

    Args:
        path: File; what was written of it is readable whenever the process ends, but for the last frame.
        size: Height and width of the pictures in px; an odd last row or column is dropped.

    Raises:
        ImportError: PyAV is not installed.
        RuntimeError: It cannot write H.264.
    """

    def __init__(self, path: Path, size: tuple[int, int]) -> None:
        self._av = pyav()
        if CODEC not in self._av.codecs_available:
            raise RuntimeError(f"This PyAV cannot write {CODEC}; install PyAV from PyPI: pip install 'av>=17'.")
        self._height, self._width = size[0] // 2 * 2, size[1] // 2 * 2
        self._container = self._av.open(str(path), "w", format="mp4", options=IN_PIECES)
        self._stream: Any = self._container.add_stream(CODEC, rate=30)  # nominal: every frame has its own time
        self._stream.height, self._stream.width, self._stream.pix_fmt = self._height, self._width, "yuv420p"
        self._stream.codec_context.time_base = self._stream.time_base = MICRO
        self._stream.codec_context.thread_count = 1  # beside an arm that has to be looked after
        self._stream.options = dict(OPTIONS)
        self._first, self._last = 0.0, -1
        self.frames = 0

    def add(self, picture: Frames, time: float) -> None:
        """Append u8[H, W, 3], taken at a time in s, later than the one before."""
        self._first = time if self.frames == 0 else self._first
        shown = self._av.VideoFrame.from_ndarray(
            np.ascontiguousarray(picture[: self._height, : self._width]), format="rgb24"
        )
        self._last = max(self._last + 1, round((time - self._first) / float(MICRO)))
        shown.pts, shown.time_base = self._last, MICRO
        self._container.mux(self._stream.encode(shown))
        self.frames += 1

    def close(self) -> None:
        """Complete the file."""
        self._container.mux(self._stream.encode())
        self._container.close()


def join_pieces(pieces: Path, path: Path) -> int:
    """Make an ordinary MP4 of a film in pieces, of which the last may be torn, without encoding it again.

    Args:
        pieces: File of ``FilmInPieces``.
        path: New file; it is whole or absent, and absent where there is no frame.

    Returns:
        Number of frames.
    """
    av = pyav()
    end = _whole_pieces(pieces)
    if end == 0:
        return 0
    if end < pieces.stat().st_size:
        os.truncate(pieces, end)
    frames = 0
    with (
        whole(path) as part,
        av.open(str(pieces)) as source,
        av.open(str(part), "w", format="mp4", options={"movflags": "faststart"}) as container,
    ):
        stream = container.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(source.streams.video[0]):
            if packet.size and packet.dts is not None:
                packet.stream = stream
                container.mux(packet)
                frames += 1
    return frames


def _whole_pieces(path: Path) -> int:
    """Find where the last piece with all of its data ends; 0 if there is none. MP4 is a row of boxes with lengths."""
    end, place, size = 0, 0, path.stat().st_size
    with path.open("rb") as file:
        while place + HEADER <= size:
            file.seek(place)
            head = file.read(LONG_HEADER)
            length, kind = int.from_bytes(head[:4], "big"), head[4:8]
            if length == 1:
                length = int.from_bytes(head[8:], "big")
            place += length
            if length < HEADER or place > size:
                break
            end = place if kind == b"mdat" else end
    return end


def pyav() -> ModuleType:
    """Import PyAV.

    Raises:
        ImportError: It is not installed.
    """
    try:
        import av
    except ImportError as error:
        raise ImportError(
            f"Recordings need PyAV ({error}); install it with pip install 'uva_lightning[data]'."
        ) from error
    module: ModuleType = av
    return module
