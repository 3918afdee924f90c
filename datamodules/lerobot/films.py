"""Write the pictures of many episodes into few video files, one after another."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from uva_lightning.datamodules.film import pyav
from uva_lightning.datamodules.frames import Frames

CODEC = "libx264"
"""Not LeRobot's libsvtav1: SVT-AV1 4.1.0 at its crf of 30 gave back packets with the time of another picture in 9 of 17
conversions of Push-T, and could not be closed afterwards."""
OPTIONS = {"preset": "medium", "bf": "0"}
GAP = 2
"""Every second frame is a keyframe, as LeRobot writes it, so that single frames are quick to read."""
BLOCK = 64
"""Pictures read at a time."""
MEGABYTE = 10**6
MILLI = 1000


@dataclass(frozen=True)
class Compression:
    """How pictures become video.

    Args:
        crf: Constant rate factor; lower is better and larger.
        file_mb: A new file begins after an episode that goes beyond so many megabytes.
    """

    crf: int = 23
    file_mb: int = 200

    def __post_init__(self) -> None:
        if not 0 <= self.crf <= 51:
            raise ValueError(f"crf is {self.crf}, expected 0 (no loss) to 51; set --crf 23.")
        if self.file_mb < 1:
            raise ValueError(f"file_mb is {self.file_mb}, expected at least 1 megabyte.")


@dataclass(frozen=True)
class Place:
    """Where an episode lies: number of the file, and its first frame in it."""

    file: int
    first: int


class Films:
    """Video files of one camera, ``file-000.mp4`` and so on.

    Args:
        folder: Where they are written.
        rate_hz: Frames per second.
        size: Height and width in px, both even.
        compression: How pictures become video.

    Raises:
        ValueError: The size is odd, or PyAV cannot write H.264.
    """

    def __init__(self, folder: Path, rate_hz: float, size: tuple[int, int], compression: Compression) -> None:
        self._av = pyav(folder)
        if size[0] % 2 or size[1] % 2:
            raise ValueError(
                f"Pictures are {size[0]} x {size[1]} px, expected even numbers for a video; set another "
                "data.image_size, or reading.fit where the data set has one size."
            )
        if CODEC not in self._av.codecs_available:
            raise ValueError(
                f"This PyAV cannot write {CODEC}, expected one that can; install PyAV from PyPI: pip install 'av>=17'."
            )
        self.folder, self.size, self.compression = folder, size, compression
        self.rate = Fraction(rate_hz).limit_denominator(MILLI)
        self._file, self._frames, self._packets = -1, 0, 0
        self._container: Any = None
        self.place = Place(0, 0)

    def add(self, frames: Frames, begin: int, end: int) -> Iterator[int]:
        """Append the pictures of an episode; yields after every block how many were written.

        Args:
            frames: u8[n, H, W, 3].
            begin: First step.
            end: Step after the last.
        """
        if self._container is None or self._path.stat().st_size > self.compression.file_mb * MEGABYTE:
            self._next()
        self.place = Place(self._file, self._frames)
        for first in range(begin, end, BLOCK):
            block = np.ascontiguousarray(frames[first : min(first + BLOCK, end)])
            for picture in block:
                shown = self._av.VideoFrame.from_ndarray(picture, format="rgb24")
                shown.pts = self._frames
                self._frames += 1
                self._write(self._stream.encode(shown))
            yield len(block)

    def finish(self) -> None:
        """Complete the file that is open."""
        if self._container is None:
            return
        self._write(self._stream.encode())
        if self._packets != self._frames:
            raise ValueError(
                f"{self._path} got {self._packets} of {self._frames} pictures back from {CODEC}; convert again."
            )
        self._container.close()
        self._container = None

    def abandon(self) -> None:
        """Leave the file that is open as it is; an encoder that went wrong may never come to its end."""
        self._container = None

    def _write(self, packets: Sequence[Any]) -> None:
        """Add packets to the file, which must be those of the pictures in their order.

        Raises:
            ValueError: The encoder mixed them up.
        """
        for packet in packets:
            if packet.pts != self._packets:
                raise ValueError(
                    f"{CODEC} gave back picture {packet.pts} where {self._packets} was due in "
                    f"{self._path.name}: it mixed up pictures; convert again."
                )
            self._packets += 1
            self._container.mux(packet)

    @property
    def _path(self) -> Path:
        return self.folder / "chunk-000" / f"file-{self._file:03d}.mp4"

    def _next(self) -> None:
        self.finish()
        self._file, self._frames, self._packets = self._file + 1, 0, 0
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._container = self._av.open(str(self._path), "w", options={"movflags": "faststart"})
        stream = self._container.add_stream(CODEC, rate=self.rate)
        stream.height, stream.width, stream.pix_fmt = *self.size, "yuv420p"
        stream.codec_context.gop_size = GAP
        stream.codec_context.time_base = 1 / self.rate
        stream.options = {"crf": str(self.compression.crf), "g": str(GAP), **OPTIONS}
        self._stream = stream
