"""Pictures that stay in their HDF5 files and are read when a window needs them."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from uva_lightning.datamodules.faults import Broken
from uva_lightning.datamodules.frames import LazyFrames, Pictures, Steps

MOST_OPEN = 32
"""Files that a process keeps open at a time."""


class Piece(NamedTuple):
    """The pictures of one episode: dataset ``name`` of ``file``."""

    file: Path
    name: str
    steps: int
    flipped: bool
    """Whether the rows are stored from bottom to top."""


class DemoFrames(LazyFrames):
    """Pictures u8[n, H, W, 3] of one camera, over the episodes of many files; only their places are in memory.

    Each contiguous run of steps is one read, and so are steps that lie in one chunk of the file, which HDF5 would
    otherwise unpack for each of them. Reading raises ``Broken`` where a file turns out to be damaged.

    Args:
        pieces: Episodes in order.
        size: Height and width in pixels.
    """

    def __init__(self, pieces: Sequence[Piece], size: tuple[int, int]) -> None:
        self._pieces = tuple(pieces)
        self._ends = np.cumsum([piece.steps for piece in pieces], dtype=np.int64)
        super().__init__((int(self._ends[-1]), *size, 3))

    def _read(self, steps: Steps) -> Pictures:
        ordered, place = np.unique(steps, return_inverse=True)
        pictures = np.empty((len(ordered), *self.shape[1:]), dtype=np.uint8)
        owners = np.searchsorted(self._ends, ordered, side="right")
        for owner in np.unique(owners):
            rows = slice(*np.searchsorted(owners, (owner, owner + 1)))
            piece = self._pieces[owner]
            _fill(pictures[rows], piece, ordered[rows] - (self._ends[owner] - piece.steps))
        return pictures if np.array_equal(ordered, steps) else pictures[place]


def _fill(pictures: Pictures, piece: Piece, steps: Steps) -> None:
    """Read rising steps of one episode."""
    try:
        dataset = _opened(piece.file)[piece.name]
        for rows in _runs(steps, dataset.chunks[0] if dataset.chunks else 1):
            first, last = int(steps[rows.start]), int(steps[rows.stop - 1])
            block = dataset[first : last + 1]
            if len(block) != rows.stop - rows.start:
                block = block[steps[rows] - first]
            pictures[rows] = block[:, ::-1] if piece.flipped else block
    except (OSError, KeyError, RuntimeError) as error:
        raise Broken(
            f"{piece.file}: '{piece.name}' cannot be read in steps {steps[0]} to {steps[-1]} ({error}), expected "
            f"{piece.steps} pictures; copy the file again or take it away."
        ) from error


def _runs(steps: Steps, chunk: int) -> Iterator[slice]:
    """Cut rising steps where neither the next step follows nor the same chunk goes on."""
    apart = (np.diff(steps) > 1) & (np.diff(steps // chunk) > 0)
    bounds = [0, *(np.flatnonzero(apart) + 1).tolist(), len(steps)]
    return (slice(first, last) for first, last in zip(bounds, bounds[1:], strict=False))


_FILES: OrderedDict[Path, Any] = OrderedDict()
_OWNER = [os.getpid()]


def _opened(file: Path) -> Any:
    """Give an open ``h5py.File``; the least recently used one is closed when there are too many.

    Raises:
        ImportError: h5py is not installed.
        OSError: It is no whole HDF5 file.
    """
    if _OWNER[0] != os.getpid():  # a forked worker must not share the handles of its parent
        _FILES.clear()
        _OWNER[0] = os.getpid()
    if file not in _FILES:
        while len(_FILES) >= MOST_OPEN:
            _FILES.popitem(last=False)[1].close()
        _FILES[file] = h5py_for(file).File(file, "r")
    _FILES.move_to_end(file)
    return _FILES[file]


def h5py_for(path: Path) -> Any:
    """Import h5py, or say how to install it."""
    try:
        import h5py
    except ImportError as error:
        raise ImportError(f"{path} needs h5py ({error}); install it with pip install 'uva_lightning[data]'.") from error
    return h5py
