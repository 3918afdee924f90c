"""What checks look at: the numbers of a whole data set, and the pictures of one episode after another."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import adaptive_avg_pool2d

from uva_lightning.datamodules.base import RobotDataModule
from uva_lightning.datamodules.faults import Broken
from uva_lightning.datamodules.frames import Frames
from uva_lightning.datamodules.store import EpisodeStore
from uva_lightning.inspection.facts import recorded_rate

Numbers = NDArray[np.float32]

BLOCK = 64
"""Pictures in memory at a time."""
SIDE = 128
"""Pictures are thinned out to about this many px before they are compared."""
CELL = 8
"""Side in px of the cells whose mean difference tells whether a picture changed."""
THUMB = 32
ROWS = 200_000
NOISE = 8.0
"""The range of mere noise is about 5 of its ordinary steps; what moves goes further."""


class Scale(NamedTuple):
    """What is ordinary in the columns of an array f32[n, w]; each f64[w] but ``levels``.

    Args:
        low: 1 % quantile.
        high: 99 % quantile.
        step: Median size of a change from one step to the next, of those that are not 0.
        stride: 99 % quantile of the size of a change.
        levels: i64[w], distinct values.
    """

    low: NDArray[np.float64]
    high: NDArray[np.float64]
    step: NDArray[np.float64]
    stride: NDArray[np.float64]
    levels: NDArray[np.int64]

    @property
    def span(self) -> NDArray[np.float64]:
        """Ordinary range."""
        return self.high - self.low

    @classmethod
    def of(cls, values: Numbers, ends: NDArray[np.int64]) -> Scale:
        """Measure it, over at most ``ROWS`` spread steps."""
        within = np.setdiff1d(np.arange(1, len(values)), ends)
        within = within[:: -(-max(1, len(within)) // ROWS)]
        rows = values[:: -(-len(values) // ROWS)].astype(np.float64)
        sizes = np.abs(values[within].astype(np.float64) - values[within - 1])
        if not len(sizes):
            sizes = np.zeros((1, values.shape[1]))
        low, high = np.quantile(rows, (0.01, 0.99), axis=0)
        moving = [column[column > 0] for column in sizes.T]
        step = np.array([np.median(column) if len(column) else 0.0 for column in moving])
        levels = np.array([len(np.unique(column)) for column in rows.T], dtype=np.int64)
        return cls(low, high, step, np.quantile(sizes, 0.99, axis=0), levels)


@dataclass(frozen=True)
class Shots:
    """Pictures of one camera through one episode, as far as checks need them.

    Args:
        level: f32[n], mean brightness, 0 to 255.
        spread: f32[n], standard deviation of the brightness.
        change: f32[n - 1], mean difference to the picture before, in the cell where it is largest.
        mean: f32[32, 32, 3], mean picture made small.
    """

    level: NDArray[np.float32]
    spread: NDArray[np.float32]
    change: NDArray[np.float32]
    mean: NDArray[np.float32]


@dataclass(frozen=True)
class Look:
    """One episode.

    Args:
        episode: Its number.
        name: What people call it.
        numbers: Action and states, f32[n, w].
        shots: Its pictures by camera; empty where they were not looked at.
    """

    episode: int
    name: str
    numbers: Mapping[str, Numbers]
    shots: Mapping[str, Shots]


class Subject:
    """A data set under examination.

    Args:
        data: Its datamodule.
        every: Look at the pictures of every n-th episode.
        references: Upright pictures by camera, f32[32, 32, 3]; empty if there are none.
    """

    def __init__(
        self, data: RobotDataModule, every: int = 1, references: Mapping[str, NDArray[np.float32]] | None = None
    ) -> None:
        self.data, self.every, self.references = data, every, references or {}
        self.store: EpisodeStore = data.store
        self.rate_hz = recorded_rate(data)
        self.scales = {name: Scale.of(values, self.store.ends) for name, values in self.store.numbers().items()}
        self.faults: list[Broken] = list(data.faults.found)

    def looks(self) -> Iterator[Look]:
        """Go through the episodes; pictures that cannot be read are noted in ``faults``."""
        numbers = self.store.numbers()
        for episode, (begin, end) in enumerate(zip(self.store.begins.tolist(), self.store.ends.tolist(), strict=True)):
            shots: dict[str, Shots] = {}
            if episode % self.every == 0:
                try:
                    shots = {name: shoot(video, begin, end) for name, video in self.store.video.items()}
                except Broken as fault:
                    self.faults.append(fault)
            own = {name: values[begin:end] for name, values in numbers.items()}
            yield Look(episode, self.store.name(episode), own, shots)

    def motion(self, look: Look, first: int, last: int) -> float | None:
        """Say how far the robot went between two steps, as a share of its range; None where nothing tells.

        States say it if there are any, as an action may be a wish that was not fulfilled; columns that never go
        further than the noise of a sensor at rest say nothing.
        """
        told = [name for name in look.numbers if name in self.store.state] or list(look.numbers)
        if not told:
            return None
        moved = 0.0
        for name in told:
            scale = self.scales[name]
            says = (scale.span > 0) & (scale.span > NOISE * scale.step)
            way = np.ptp(look.numbers[name][first : last + 1, says], axis=0)
            moved = max(moved, float((way / scale.span[says]).max(initial=0.0)))
        return moved


def shoot(video: Frames, begin: int, end: int) -> Shots:
    """Reduce the pictures of one episode, a block at a time."""
    stride = max(1, min(video.shape[1:3]) // SIDE)
    levels, spreads, changes = [], [], []
    total = np.zeros((0,))
    last: NDArray[np.int16] | None = None
    for first in range(begin, end, BLOCK):
        block = video[first : min(first + BLOCK, end)][:, ::stride, ::stride].astype(np.int16)
        levels.append(block.mean(axis=(1, 2, 3), dtype=np.float32))
        spreads.append(block.mean(axis=3, dtype=np.float32).std(axis=(1, 2)))
        before = block[:-1] if last is None else np.concatenate([last[None], block[:-1]])
        changes.append(_largest(np.abs(block[len(block) - len(before) :] - before)))
        total = block.sum(axis=0, dtype=np.float64) + (total if total.size else 0.0)
        last = block[-1]
    mean = (total / (end - begin)).astype(np.float32)
    return Shots(np.concatenate(levels), np.concatenate(spreads), np.concatenate(changes), thumb(mean))


def thumb(picture: NDArray[np.float32]) -> NDArray[np.float32]:
    """Make a picture f32[H, W, 3] small: f32[32, 32, 3]."""
    channels = torch.from_numpy(np.ascontiguousarray(picture)).permute(2, 0, 1)
    return adaptive_avg_pool2d(channels, THUMB).permute(1, 2, 0).numpy()


def _largest(differences: NDArray[np.int16]) -> NDArray[np.float32]:
    """Take the mean of each cell and the largest of these: f32[k] of i16[k, H, W, 3]."""
    count, height, width, _ = differences.shape
    cell = min(CELL, height, width)
    rows, columns = height // cell, width // cell
    cells = differences[:, : rows * cell, : columns * cell].reshape(count, rows, cell, columns, cell, 3)
    return cells.mean(axis=(2, 4, 5), dtype=np.float32).reshape(count, -1).max(axis=1)
