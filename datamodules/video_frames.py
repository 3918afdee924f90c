"""Frames that stay in video files until they are asked for."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from uva_lightning.datamodules.faults import Broken
from uva_lightning.datamodules.film import Film
from uva_lightning.datamodules.frames import LazyFrames, Pictures, Steps
from uva_lightning.datamodules.reopening import Reopening

OPEN_FILES = 8
CACHE_BYTES = 64 * 2**20


@dataclass(frozen=True)
class Clip:
    """Frames of one episode in a video file.

    Args:
        file: Video file.
        length: Steps of the episode.
        start: Time of the first step in the file, in s.
        name: What messages call the episode.
    """

    file: Path
    length: int
    start: float = 0.0
    name: str = "a video"


class VideoFrames(Reopening, LazyFrames):
    """Frames of many episodes in one or many video files, u8[n, H, W, 3], decoded when they are indexed.

    A step is the frame whose time is nearest to ``start + k / rate_hz``. Only from the keyframe before a wanted frame
    is anything decoded; wanted frames between the same two keyframes share one pass. A few files stay open and some
    frames stay in memory. After a fork, and in a process it was sent to, files are opened anew.

    Args:
        clips: The episodes, in order.
        rate_hz: Steps per second.
        size: Height and width of the pictures in px.
        tolerance: How far the nearest frame may be from a step, in s; half a step if not given.
        relative: Count times from the first frame of a file, wherever its clock starts.
        open_files: Files kept open.
        cache_bytes: Memory for decoded frames.
    """

    def __init__(
        self,
        clips: Sequence[Clip],
        rate_hz: float,
        size: tuple[int, int],
        tolerance: float | None = None,
        relative: bool = False,
        open_files: int = OPEN_FILES,
        cache_bytes: int = CACHE_BYTES,
    ) -> None:
        self.clips, self.rate_hz, self.size = tuple(clips), rate_hz, size
        self.tolerance = 0.5 / rate_hz if tolerance is None else tolerance
        self.relative, self.open_files, self.cache_bytes = relative, max(1, open_files), cache_bytes
        self._ends = np.cumsum([clip.length for clip in clips], dtype=np.int64)
        super().__init__((int(self._ends[-1]) if len(self._ends) else 0, *size, 3))
        self._forget()

    def _read(self, steps: Steps) -> Pictures:
        if os.getpid() != self._pid:
            self._forget()  # a parent's file handles share their position with ours
        unique, place = np.unique(steps, return_inverse=True)
        pictures = np.empty((len(unique), *self.size, 3), np.uint8)
        owners = np.searchsorted(self._ends, unique, side="right")
        for owner in np.unique(owners).tolist():
            rows = np.flatnonzero(owners == owner)
            self._fill(pictures, rows, unique[rows], owner)
        in_order = len(unique) == len(steps) and bool((place == np.arange(len(place))).all())
        return pictures if in_order else pictures[place]

    def _forget(self) -> None:
        self._films: OrderedDict[Path, Film] = OrderedDict()
        self._kept: OrderedDict[tuple[Path, int], Pictures] = OrderedDict()
        self._held = 0
        self._pid = os.getpid()

    def _fill(self, pictures: Pictures, rows: Steps, steps: Steps, owner: int) -> None:
        """Put the frames of one episode where they belong."""
        clip = self.clips[owner]
        try:
            film = self._film(clip.file)
            numbers = self._numbers(film, clip, steps - (self._ends[owner] - clip.length))
            wanted, place = np.unique(numbers, return_inverse=True)
            missing = [number for number in wanted.tolist() if (clip.file, number) not in self._kept]
            fresh = {}
            for number, picture in film.pictures(np.array(missing, np.int64)):
                if picture.shape[:2] != self.size:
                    raise ValueError(
                        f"{clip.file} has pictures of {picture.shape[0]} x {picture.shape[1]} px, expected "
                        f"{self.size[0]} x {self.size[1]}; all videos of a camera must have one size."
                    )
                fresh[number] = picture
        except (ValueError, OSError) as error:
            raise Broken(f"{clip.name}: {error}") from error
        for row, number in zip(rows, wanted[place].tolist(), strict=True):
            pictures[row] = fresh[number] if number in fresh else self._kept[clip.file, number]
        self._keep(clip.file, wanted.tolist(), fresh)

    def _numbers(self, film: Film, clip: Clip, steps: Steps) -> Steps:
        """Give the frames of steps of a clip, counted in its file."""
        offset = clip.start + (film.times[0] if self.relative else 0.0)
        numbers, distance = film.nearest(offset + steps / self.rate_hz)
        far = np.flatnonzero(distance > self.tolerance * (1 + 1e-3))
        if len(far):
            _, all_far = film.nearest(offset + np.arange(clip.length) / self.rate_hz)
            lacks = int((all_far > self.tolerance * (1 + 1e-3)).sum())
            raise ValueError(
                f"{clip.file} lacks {lacks} of the {clip.length} frames, first asked for at "
                f"{offset + steps[far[0]] / self.rate_hz:.2f} s (its frames lie at {film.times[0]:.2f} to "
                f"{film.times[-1]:.2f} s); copy it again or leave the episode out."
            )
        return numbers

    def _film(self, file: Path) -> Film:
        film = self._films.pop(file, None) or Film(file)
        self._films[file] = film
        while len(self._films) > self.open_files:
            self._films.popitem(last=False)[1].close()
        return film

    def _keep(self, file: Path, used: list[int], fresh: dict[int, Pictures]) -> None:
        """Remember frames, the ones used last for longest."""
        for number in used:
            picture = self._kept.pop((file, number), None)
            if picture is None:
                picture = fresh[number]
                self._held += picture.nbytes
            self._kept[file, number] = picture
        while self._held > self.cache_bytes:
            self._held -= self._kept.popitem(last=False)[1].nbytes
