"""A folder of plain videos, such as of people at work: pictures and perhaps captions, no actions."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import numpy as np
from tqdm.auto import tqdm

from uva_lightning.datamodules.augment import Augmentation
from uva_lightning.datamodules.base import RobotDataModule
from uva_lightning.datamodules.faults import Broken
from uva_lightning.datamodules.film import Film
from uva_lightning.datamodules.frames import Frames, JoinedFrames
from uva_lightning.datamodules.instructions import TextEmbedder
from uva_lightning.datamodules.pictures import Resized
from uva_lightning.datamodules.reading import Encoding, Reading
from uva_lightning.datamodules.store import EpisodeStore, hash_of
from uva_lightning.datamodules.video_frames import Clip, VideoFrames
from uva_lightning.datamodules.windows import Window
from uva_lightning.types import DataSpec

ENDINGS = (".avi", ".m4v", ".mkv", ".mov", ".mp4", ".webm")
CAPTIONS = "captions.json"
MANY = 50
"""Videos from which on a progress bar is shown."""
Size = tuple[int, int]


class Videos(RobotDataModule):
    """Every video below a folder, each an episode without actions and proprioception (UVA, supplementary).

    A step is the frame nearest in time, so that videos of any rate become one of ``rate_hz``. What is done in a video
    may be said in ``captions.json`` in the folder (``{"cups/a.mp4": "a hand lifts a cup"}``) or in a text file beside
    it (``cups/a.txt``); a video without caption has the empty one.

    Args:
        path: Folder with videos, also in folders below it.
        image_size: Height and width of the pictures for the model; ``reading.fit`` says how they become square.
        rate_hz: Steps per second, as in the robot data that the videos go with.
        batch_size: Windows of a step, over all processes together.
        window: What a window holds.
        val_ratio: Share of the videos held out, at least one.
        seed: Seed of the split and of the order.
        augment: Changes the pictures of training windows at random.
        text: Turns the captions into vectors; without it they are not delivered.
        reading: Which videos are read, in the order of their names, and what happens with broken ones.
        encoding: When frames become latents.
    """

    facts: ClassVar[DataSpec] = DataSpec(cameras=("camera",), image_size=0, action_dim=0, state_dims={}, rate_hz=0)

    def __init__(
        self,
        path: str | Path,
        image_size: int = 256,
        rate_hz: float = 10,
        batch_size: int = 64,
        window: Window | None = None,
        val_ratio: float = 0.02,
        seed: int = 42,
        augment: Augmentation | None = None,
        text: TextEmbedder | None = None,
        reading: Reading | None = None,
        encoding: Encoding | None = None,
    ) -> None:
        for name, value in (("image_size", image_size), ("rate_hz", rate_hz)):
            if not value > 0:
                raise ValueError(f"{name} is {value}, expected more than 0; set data.{name}.")
        self.facts = DataSpec(  # type: ignore[misc]  # of the options, not of the class
            cameras=("camera",),
            image_size=image_size,
            action_dim=0,
            state_dims={},
            rate_hz=rate_hz,
            action_meaning="none recorded",
        )
        super().__init__(
            path, batch_size, window, val_ratio, seed, None, augment, text, reading=reading, encoding=encoding
        )

    def read(self) -> EpisodeStore:
        """Find the videos below ``path`` and index them; no frame is decoded but the first of each."""
        files = self._files()
        captions = self._captions(files)
        whole: list[tuple[Clip, Size]] = []
        for file in tqdm(files, unit="video", desc="videos", disable=len(files) < MANY):
            try:
                whole.append(self._clip(file))
            except ValueError as error:
                self.faults.add(Broken(str(error)))
        if not whole:
            self.faults.report(self.path, 0)
        clips = [clip for clip, _ in whole]
        stats = [clip.file.stat() for clip in clips]
        return EpisodeStore(
            {"camera": self._frames(whole)},
            None,
            {},
            np.cumsum([clip.length for clip in clips]),
            None if captions is None else [captions.get(clip.file, "") for clip in clips],
            [clip.name for clip in clips],
            hash_of([(clip.name, s.st_size, s.st_mtime_ns) for clip, s in zip(clips, stats, strict=True)], self._key()),
        )

    def _key(self) -> tuple[float, int, str]:
        return (self.facts.rate_hz, self.facts.image_size, self.reading.fit)

    def _files(self) -> list[Path]:
        if not self.path.is_dir():
            raise FileNotFoundError(
                f"There is no folder {self.path}, expected one with videos ({', '.join(ENDINGS)}); set data.path."
            )
        found = (file for file in self.path.rglob("*") if file.suffix.lower() in ENDINGS and file.is_file())
        files = sorted(file for file in found if not file.name.startswith("."))
        if not files:
            raise FileNotFoundError(f"{self.path} has no videos ({', '.join(ENDINGS)}) in it or below; set data.path.")
        return files

    def _captions(self, files: list[Path]) -> dict[Path, str] | None:
        """Collect what is said of each video; none where nothing is said of any."""
        said = self._listed_captions(files)
        for file in files:
            beside = file.with_suffix(".txt")
            if beside.is_file():
                said[file] = " ".join(beside.read_text().split())
        return said or None

    def _listed_captions(self, files: list[Path]) -> dict[Path, str]:
        file = self.path / CAPTIONS
        if not file.is_file():
            return {}
        try:
            content = json.loads(file.read_text())
        except ValueError as error:
            raise ValueError(f"{file} is no valid JSON ({error}); correct it.") from error
        if not isinstance(content, Mapping) or not all(isinstance(text, str) for text in content.values()):
            raise ValueError(f'{file} is expected to hold {{"video.mp4": "what is done"}}; correct it.')
        known = {file.relative_to(self.path).as_posix(): file for file in files}
        if unknown := sorted(set(content) - set(known)):
            raise ValueError(
                f"{file} speaks of {', '.join(unknown[:3])} ({len(unknown)} in all), which are not there; expected "
                f"names such as {next(iter(known))}."
            )
        return {known[name]: text for name, text in content.items()}

    def _clip(self, file: Path) -> tuple[Clip, Size]:
        """Measure a video: steps at the rate of the facts, and size."""
        film = Film(file)
        try:
            film.header()
            times = film.times
            _, picture = next(film.pictures(np.zeros(1, np.int64)))
        finally:
            film.close()
        # the last frame is shown as long as the others
        duration = (times[-1] - times[0]) * len(times) / max(1, len(times) - 1)
        steps = max(1, round(duration * self.facts.rate_hz))
        shortest = self.window.shortest
        if steps < shortest and not self.window.allow_short_episodes:
            raise ValueError(
                f"{file} has {steps} steps at {self.facts.rate_hz:g} Hz, expected at least {shortest} for a window; "
                "remove it, or set data.window.allow_short_episodes=true or data.reading.on_error=skip."
            )
        height, width = picture.shape[:2]
        return Clip(file, steps, name=file.relative_to(self.path).as_posix()), (height, width)

    def _frames(self, whole: list[tuple[Clip, Size]]) -> Frames:
        """Give the pictures of all videos in one size; neighbours of one size share their open files."""
        groups: list[tuple[Size, list[Clip]]] = []
        for clip, size in whole:
            if not groups or groups[-1][0] != size:
                groups.append((size, []))
            groups[-1][1].append(clip)
        films = [VideoFrames(clips, self.facts.rate_hz, size, np.inf, relative=True) for size, clips in groups]
        side = self.facts.image_size
        sized: list[Frames] = [
            film if film.size == (side, side) else Resized(film, side, self.reading.fit) for film in films
        ]
        return sized[0] if len(sized) == 1 else JoinedFrames(sized)
