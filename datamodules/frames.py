"""Pictures of a camera that are read when they are asked for, so that a data set need not fit into memory."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from uva_lightning.datamodules.faults import Broken

IN_MEMORY_BYTES = 1 << 30
"""Pictures up to this size are read at once where every step needs some: Push-T's 0.7 GB then never wait for a decoder,
and every machine that can train has the room; larger sets are read window by window."""
BLOCK = 256
"""Pictures read at a time."""

Steps = NDArray[np.int64]
Pictures = NDArray[np.uint8]


class Frames(Protocol):
    """Pictures u8[n, H, W, 3], RGB and upright; an array is one.

    Those that read from files open them anew in every process, keep a bounded amount in memory, and raise ``Broken``
    for what cannot be read.
    """

    @property
    def shape(self) -> tuple[int, ...]:
        """Steps, height, width and 3."""

    @property
    def dtype(self) -> Any:
        """Always u8."""

    def __len__(self) -> int:
        """Number of steps."""

    def __getitem__(self, index: slice | Steps, /) -> Pictures:
        """Read some steps, in any order and also repeatedly: u8[k, H, W, 3]."""


class LazyFrames(ABC):
    """Base of pictures that lie elsewhere; one adds ``_read``.

    Args:
        shape: Steps, height, width and 3.
    """

    dtype = np.dtype(np.uint8)

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.shape = shape

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: slice | Steps) -> Pictures:
        """See ``Frames``."""
        steps = np.arange(*index.indices(len(self))) if isinstance(index, slice) else np.asarray(index)
        if len(steps) and not (steps.min() >= 0 and steps.max() < len(self)):
            raise IndexError(f"Steps {steps.min()} to {steps.max()} were asked for, expected 0 to {len(self) - 1}.")
        return self._read(steps)

    @abstractmethod
    def _read(self, steps: Steps) -> Pictures:
        """Read u8[k, H, W, 3] at steps that exist."""


class JoinedFrames(LazyFrames):
    """Pictures of several sources, one after another.

    Args:
        parts: The sources, all of one size.

    Raises:
        ValueError: Their sizes differ.
    """

    def __init__(self, parts: Sequence[Frames]) -> None:
        sizes = {part.shape[1:] for part in parts}
        if len(sizes) != 1:
            raise ValueError(f"Pictures have the sizes {sorted(sizes)}, expected one size; give them all the same.")
        super().__init__((sum(map(len, parts)), *sizes.pop()))
        self.parts, self.ends = list(parts), np.cumsum([len(part) for part in parts])

    def _read(self, steps: Steps) -> Pictures:
        pictures = np.empty((len(steps), *self.shape[1:]), dtype=np.uint8)
        owner = np.searchsorted(self.ends, steps, side="right")
        for number in np.unique(owner):
            mine, part = owner == number, self.parts[number]
            pictures[mine] = part[steps[mine] - (self.ends[number] - len(part))]
        return pictures


class ChosenFrames(LazyFrames):
    """Some steps of a source.

    Args:
        source: All pictures.
        steps: i64[n], the steps that are kept, in their new order.
    """

    def __init__(self, source: Frames, steps: Steps) -> None:
        super().__init__((len(steps), *source.shape[1:]))
        self.source, self.steps = source, steps

    def _read(self, steps: Steps) -> Pictures:
        return self.source[self.steps[steps]]


def joined(parts: Sequence[Frames]) -> Frames:
    """Put pictures one after another; arrays stay an array."""
    arrays = [part for part in parts if isinstance(part, np.ndarray)]
    return np.concatenate(arrays) if len(arrays) == len(parts) else JoinedFrames(parts)


def chosen(frames: Frames, steps: Steps) -> Frames:
    """Take some steps; of an array they are copied."""
    return frames[steps] if isinstance(frames, np.ndarray) else ChosenFrames(frames, steps)


def held(video: Mapping[str, Frames]) -> Mapping[str, Frames]:
    """Read the pictures of all cameras where they are few and whole; others stay as they are.

    Args:
        video: u8[n, H, W, 3] per camera.
    """
    if sum(math.prod(frames.shape) for frames in video.values()) > IN_MEMORY_BYTES:
        return video
    try:
        return {camera: _read_all(frames) for camera, frames in video.items()}
    except Broken:  # told, or replaced, when the window that needs it is read
        return video


def _read_all(frames: Frames) -> Pictures:
    if isinstance(frames, np.ndarray):
        return frames
    pictures = np.empty(frames.shape, dtype=np.uint8)
    for first in range(0, len(pictures), BLOCK):
        pictures[first : first + BLOCK] = frames[first : first + BLOCK]
    return pictures
