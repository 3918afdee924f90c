"""One video file with random access: an index of its frames, and decoding from the keyframe before the wanted one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Index = NDArray[np.int64]
Picture = NDArray[np.uint8]

COMPARED = 16
"""Packets whose times are compared before the container's own index is trusted."""
QUARTER_TURN = 90
NOWHERE = -2
"""Place of a decoder that must seek before it can go on."""


class Header(NamedTuple):
    """What a video file says of itself, without reading its frames.

    Args:
        height: Pixels, before a picture is turned upright.
        width: Pixels, likewise.
        rate_hz: Frames per second on average; 0 where unknown.
        frames: Number of frames; none where the container does not say.
    """

    height: int
    width: int
    rate_hz: float
    frames: int | None


class Film:
    """A video file, opened for reading single frames.

    Decoding and the conversion of colours use one thread: loaders have a process per core already, and a worker that
    frees a converter with threads, which it got by a fork, waits for them for ever. Frames are numbered in the
    order in which they are shown.

    Args:
        path: File that FFmpeg can read.

    Raises:
        ImportError: PyAV is not installed.
        ValueError: The file is no video, or cut off.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._av = pyav(path)
        try:
            self._container = self._av.open(str(path))
        except (self._av.FFmpegError, OSError) as error:
            raise ValueError(f"{path} cannot be opened as a video ({_said(error)}); {_fix(path)}") from error
        if not self._container.streams.video:
            raise ValueError(f"{path} has no pictures, expected a video; {_fix(path)}")
        self._stream: Any = self._container.streams.video[0]
        self._stream.codec_context.thread_count = 1
        self._to_rgb = self._av.video.reformatter.VideoReformatter()  # one for all frames: it keeps its tables
        self._pts, self._keys = np.zeros(0, np.int64), np.zeros(0, np.int64)
        self._walk: Iterator[tuple[int, Any]] = iter(())
        self._at = NOWHERE  # frame that was decoded last
        self.pid = os.getpid()

    def header(self) -> Header:
        """Tell what the file says of itself.

        Raises:
            ValueError: The file ends before its last frame.
        """
        stream, size = self._stream, self.path.stat().st_size
        entries = stream.index_entries
        whole = stream.frames > 0 and len(entries) == stream.frames
        if whole:
            kept = sum(entry.pos + entry.size <= size for entry in entries)
            if kept < len(entries):
                raise ValueError(f"{self.path} is cut off after {kept} of {len(entries)} frames; {_fix(self.path)}")
        rate = stream.average_rate or stream.guessed_rate or 0
        return Header(int(stream.height), int(stream.width), float(rate), int(stream.frames) if whole else None)

    @property
    def times(self) -> NDArray[np.float64]:
        """Time of every frame in s, f64[n], rising."""
        self._build_index()
        return np.asarray(self._pts * float(self._stream.time_base), np.float64)

    def nearest(self, times: NDArray[np.float64]) -> tuple[Index, NDArray[np.float64]]:
        """Find the frames nearest to given times.

        Args:
            times: f64[k] in s.

        Returns:
            Numbers of the frames, i64[k], and how far each is from its time, f64[k] in s.
        """
        own = self.times
        if len(own) == 1:
            after = np.zeros(len(times), np.int64)
        else:
            after = np.clip(np.searchsorted(own, times), 1, len(own) - 1)
            after -= times - own[after - 1] <= own[after] - times
        return after.astype(np.int64), np.abs(own[after] - times)

    def pictures(self, wanted: Index) -> Iterator[tuple[int, Picture]]:
        """Decode frames; those between two keyframes in one pass.

        Args:
            wanted: Numbers of frames, i64[k], rising.

        Yields:
            The number of a frame and its picture, u8[H, W, 3], upright.

        Raises:
            ValueError: A frame cannot be decoded.
        """
        self._build_index()
        for number in wanted.tolist():
            try:
                yield number, self._picture(self._decoded(number))
            except (self._av.FFmpegError, OSError) as error:
                self._at = NOWHERE
                raise ValueError(
                    f"{self.path} cannot be decoded at frame {number} of {len(self._pts)} ({_said(error)}); "
                    f"{_fix(self.path)}"
                ) from error

    def close(self) -> None:
        """Close the file."""
        self._walk = iter(())
        self._container.close()

    def _decoded(self, number: int) -> Any:
        """Decode up to a frame: onwards from the last one, or from the keyframe before it."""
        key = int(np.searchsorted(self._keys, number, side="right")) - 1
        if not self._keys[key] - 1 <= self._at < number:
            self._seek(key)
        while True:
            for found, frame in self._walk:
                self._at = found
                if found == number:
                    return frame
                if found > number:
                    break
            # the container sought to a later keyframe than asked for, or the frame belongs to the group before
            self._at = NOWHERE
            if key == 0:
                raise ValueError(
                    f"{self.path} lacks frame {number} of {len(self._pts)}, which it lists; {_fix(self.path)}"
                )
            key -= 1
            self._seek(key)

    def _seek(self, key: int) -> None:
        """Go to a keyframe."""
        self._container.seek(int(self._pts[self._keys[key]]), stream=self._stream, backward=True)
        self._walk = self._frames()

    def _frames(self) -> Iterator[tuple[int, Any]]:
        for frame in self._container.decode(self._stream):
            yield int(np.searchsorted(self._pts, frame.pts)), frame

    def _picture(self, frame: Any) -> Picture:
        picture: Picture = self._to_rgb.reformat(frame, format="rgb24", threads=1).to_ndarray()
        turns = round(getattr(frame, "rotation", 0) / QUARTER_TURN) % 4  # phones store how they were held
        return np.ascontiguousarray(np.rot90(picture, turns)) if turns else picture

    def _build_index(self) -> None:
        """List the times of all frames and the keyframes among them, once."""
        if len(self._pts):
            return
        listed = self._own_index()
        try:
            pts, keys = self._packets() if listed is None else listed
        except (self._av.FFmpegError, OSError) as error:
            raise ValueError(f"{self.path} cannot be read to its end ({_said(error)}); {_fix(self.path)}") from error
        if not len(pts):
            raise ValueError(f"{self.path} has no frames; record it again or remove the file.")
        self._pts, order = np.unique(pts, return_index=True)
        # a file that does not begin with a keyframe is decoded from its beginning
        self._keys = np.union1d([0], np.flatnonzero(keys[order]))

    def _own_index(self) -> tuple[Index, NDArray[np.bool_]] | None:
        """Take the index of the container, which costs nothing, if it lists every frame in the order of showing."""
        stream = self._stream
        if stream.codec_context.has_b_frames or stream.frames <= 0 or len(stream.index_entries) != stream.frames:
            return None
        entries = [(entry.timestamp, entry.is_keyframe) for entry in stream.index_entries]
        first = [packet.pts for packet in self._first_packets()]
        if first != [timestamp for timestamp, _ in entries[: len(first)]]:
            return None
        return np.array([e[0] for e in entries], np.int64), np.array([e[1] for e in entries], bool)

    def _first_packets(self) -> Iterator[Any]:
        for count, packet in enumerate(self._container.demux(self._stream)):
            if not packet.size or count == COMPARED:
                break
            yield packet
        self._rewind()

    def _packets(self) -> tuple[Index, NDArray[np.bool_]]:
        """Read all packets without decoding any."""
        found = [
            (packet.dts if packet.pts is None else packet.pts, packet.is_keyframe)
            for packet in self._container.demux(self._stream)
            if packet.size and not packet.is_discard and (packet.pts, packet.dts) != (None, None)
        ]
        self._rewind()
        return np.array([pts for pts, _ in found], np.int64), np.array([key for _, key in found], bool)

    def _rewind(self) -> None:
        self._container.seek(0, backward=True)


def pyav(path: Path) -> ModuleType:
    """Import PyAV.

    Raises:
        ImportError: It is not installed.
    """
    try:
        import av
    except ImportError as error:
        raise ImportError(
            f"Reading {path} needs PyAV ({error}); install it with pip install 'uva_lightning[data]'."
        ) from error
    module: ModuleType = av
    return module


def _said(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error)


def _fix(path: Path) -> str:
    return (
        "copy it again, with its large files if they are kept apart (git lfs pull)."
        if path.suffix == ".mp4"
        else ("copy it again or remove it.")
    )
