"""Turn recorded episodes of an arm into steps of even distance: poses of the tool and pictures at the same times."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from uva_lightning.datamodules.faults import Broken, Faults
from uva_lightning.datamodules.film import Film
from uva_lightning.datamodules.store import EpisodeStore, hash_of
from uva_lightning.datamodules.umi_poses import RECORDED_ACTION
from uva_lightning.datamodules.video_frames import Clip, VideoFrames
from uva_lightning.robot.episodes import BrokenEpisode, Measured, RecordedEpisode, find_episodes
from uva_lightning.robot.inverse import rotation_vector
from uva_lightning.robot.tool_poses import tool_pose
from uva_lightning.rotations import from_axis_angle

Array = NDArray[np.float64]
LabelName = Literal["success", "failure", "invalid"]
LABELS: tuple[LabelName, ...] = ("success", "failure", "invalid")
WHOLE = 0.02
"""Share by which a rate may miss a whole number of Hz and still be taken for it."""
SHORTEST = 2


@dataclass(frozen=True)
class Choice:
    """Which recordings are taken, and how.

    Args:
        labels: What the operator said of them.
        rate_hz: Steps per second; that of the slowest of measurements and pictures, as recorded, if not given.
        gap: Longest time between a step and the nearest picture, or between two measurements around it, s.
        task: What the robot was told where a recording does not say it.
    """

    labels: tuple[LabelName, ...] = ("success",)
    rate_hz: float | None = None
    gap: float = 0.25
    task: str | None = None

    def __post_init__(self) -> None:
        if not self.labels or not set(self.labels) <= set(LABELS):
            raise ValueError(f"labels are {list(self.labels)}, expected some of {', '.join(LABELS)}.")
        for name, value in (("rate_hz", 1.0 if self.rate_hz is None else self.rate_hz), ("gap", self.gap)):
            if not 0 < value < float("inf"):
                raise ValueError(f"{name} is {value}, expected a positive number.")


@dataclass(frozen=True)
class Taken:
    """A recording that is taken."""

    episode: RecordedEpisode
    measured: Measured
    begin: float = 0.0
    steps: int = 0


class Recordings:
    """A folder of recordings, of which some are taken.

    Args:
        path: The folder.
        choice: Which.
        faults: Takes those that are broken.

    Raises:
        FileNotFoundError: There are none.
        ValueError: None is left.
    """

    def __init__(self, path: Path, choice: Choice, faults: Faults) -> None:
        self.path, self.choice, self.faults = path, choice, faults
        found = find_episodes(path)
        self.total, self.unfinished, self.broken = len(found.finished), len(found.unfinished), 0
        self.taken, self.left = list[Taken](), Counter[str]()
        for folder in found.finished:
            try:
                episode = RecordedEpisode(folder)
                if episode.label.value not in self.choice.labels:
                    self.left[episode.label.value] += 1
                else:
                    self.taken.append(_looked_at(episode))
            except BrokenEpisode as error:
                self._lose(error)
        self._expect_some()
        self.rate_hz = self.choice.rate_hz or _rate(self.taken)
        self._cut()
        self._expect_some()

    @property
    def cameras(self) -> tuple[str, ...]:
        """Cameras that all of them have."""
        return tuple(sorted(set.intersection(*(set(taken.episode.films) for taken in self.taken))))

    def store(self, cameras: Sequence[str]) -> EpisodeStore:
        """Give their steps: poses of the tool as recorded, and the pictures, which stay in their files.

        Raises:
            ValueError: Pictures of a camera have different sizes.
        """
        numbers = [_numbers(taken, self.rate_hz) for taken in self.taken]
        state = {name: np.concatenate([own[name] for own in numbers]) for name in numbers[0]}
        return EpisodeStore(
            {camera: self._frames(camera) for camera in cameras},
            np.concatenate([state[name] for name in RECORDED_ACTION], axis=1),
            state,
            np.cumsum([taken.steps for taken in self.taken]),
            self._tasks(),
            [taken.episode.path.name for taken in self.taken],
            self._identity(),
        )

    def told(self) -> str:
        """Say what was taken and what was left out, and why."""
        left = [f"{count} {label}" for label, count in sorted(self.left.items())]
        left += [f"{self.broken} broken"] if self.broken else []
        without = f"left out: {', '.join(left)}" if left else "none left out"
        more = f"; {self.unfinished} unfinished, run: uva arm recover {self.path}" if self.unfinished else ""
        labels = " or ".join(self.choice.labels)
        return f"{len(self.taken)} of {self.total} recordings taken ({labels}), {without}{more}"

    def _cut(self) -> None:
        """Find the time that all streams of an episode cover, and whether they do so without gaps."""
        cut = []
        for taken in self.taken:
            try:
                cut.append(_covered(taken, self.rate_hz, self.choice.gap))
            except BrokenEpisode as error:
                self._lose(error)
        self.taken = cut

    def _lose(self, error: BrokenEpisode) -> None:
        self.broken += 1
        self.faults.add(Broken(str(error)))

    def _expect_some(self) -> None:
        if not self.taken:
            self.faults.report(self.path, 0)
            raise ValueError(f"{self.path}: {self.told()}; expected at least one, choose other labels.")
        if not self.cameras:
            raise ValueError(f"{self.path} has no camera that all recordings show, expected one; sort them by cameras.")

    def _tasks(self) -> list[str] | None:
        tasks = [taken.episode.task or self.choice.task or "" for taken in self.taken]
        if any(tasks) and not all(tasks):
            silent = self.taken[tasks.index("")].episode.path
            raise ValueError(
                f"{silent} does not say what the robot was told, others do; set task for those, or add it to meta.json."
            )
        return tasks if any(tasks) else None

    def _frames(self, camera: str) -> VideoFrames:
        films = [taken.episode.films[camera] for taken in self.taken]
        sizes = sorted({film.size for film in films})
        if len(sizes) > 1:
            raise ValueError(
                f"{self.path} has pictures of '{camera}' of {' and '.join(f'{h} x {w} px' for h, w in sizes)}, "
                "expected one size; put recordings of another size into a folder of their own."
            )
        clips = [
            Clip(film.path, taken.steps, taken.begin - film.begun, taken.episode.path.name)
            for taken, film in zip(self.taken, films, strict=True)
        ]
        return VideoFrames(clips, self.rate_hz, sizes[0], tolerance=self.choice.gap)

    def _identity(self) -> str:
        """Hash what the pictures follow from."""
        files = [film.path for taken in self.taken for _, film in sorted(taken.episode.films.items())]
        stats = [(file.parent.name, file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files]
        return hash_of(stats, self.rate_hz, [(taken.begin, taken.steps) for taken in self.taken])


def _looked_at(episode: RecordedEpisode) -> Taken:
    """Read what is needed of an episode."""
    if not episode.films:
        raise BrokenEpisode(f"{episode.path} has no film, expected one at least; move it away.")
    measured = episode.measured()
    for name, film in episode.films.items():
        try:
            shown = Film(film.path)
            frames, size = len(shown.times), shown.header()
            shown.close()
        except ValueError as error:
            raise BrokenEpisode(str(error)) from error
        if (frames, size.height, size.width) != (film.frames, *film.size):
            raise BrokenEpisode(
                f"{film.path} has {frames} pictures of {size.height} x {size.width} px, but meta.json says of '{name}' "
                f"{film.frames} of {film.size[0]} x {film.size[1]}; copy the episode again, or move it away."
            )
    if min(len(measured.time), *(film.frames for film in episode.films.values())) < SHORTEST:
        raise BrokenEpisode(f"{episode.path} has a single measurement or picture, expected more; move it away.")
    return Taken(episode, measured)


def _rate(taken: Sequence[Taken]) -> float:
    """Give the rate of the slowest stream, in the middle of the recordings, Hz."""
    slowest = [
        max(
            float(np.median(np.diff(times)))
            for times in (each.measured.time, *(film.times for film in each.episode.films.values()))
        )
        for each in taken
    ]
    rate = 1.0 / float(np.median(slowest))
    return float(round(rate)) if abs(rate - round(rate)) <= WHOLE * rate else round(rate, 2)


def _covered(taken: Taken, rate_hz: float, gap: float) -> Taken:
    """Place the steps of an episode.

    Raises:
        BrokenEpisode: They are too few, or a stream has a gap.
    """
    episode, times = taken.episode, taken.measured.time
    streams = {"measurements": times, **{f"'{name}'": film.times for name, film in sorted(episode.films.items())}}
    begin, end = max(stream[0] for stream in streams.values()), min(stream[-1] for stream in streams.values())
    steps = int(np.floor((end - begin) * rate_hz + 1e-6)) + 1
    if steps < SHORTEST:
        raise BrokenEpisode(
            f"{episode.path}: measurements and pictures have {max(0.0, end - begin):.2f} s in common, expected two "
            f"steps at {rate_hz:g} Hz; move it away."
        )
    for what, stream in streams.items():
        within = stream[(stream >= begin - gap) & (stream <= end + gap)]
        widest = float(np.diff(within).max(initial=0.0))
        if widest > 2 * gap:
            raise BrokenEpisode(
                f"{episode.path} has nothing of {what} for {widest:.2f} s, expected gaps of at most {2 * gap:.2g} s, "
                "twice `gap`; set a larger one, or move it away."
            )
    return Taken(episode, taken.measured, float(begin), steps)


def _numbers(taken: Taken, rate_hz: float) -> dict[str, NDArray[np.float32]]:
    """Interpolate what was measured, by the names of UMI: f32[n, width]."""
    wanted = taken.begin + np.arange(taken.steps) / rate_hz
    times, measured = taken.measured.time, taken.measured
    before = np.clip(np.searchsorted(times, wanted, side="right") - 1, 0, len(times) - 2)
    share = np.clip((wanted - times[before]) / (times[before + 1] - times[before]), 0.0, 1.0)[:, None]
    poses = tool_pose(measured.eef)
    place = (1 - share) * poses[before, :3, 3] + share * poses[before + 1, :3, 3]
    first, second = poses[before, :3, :3], poses[before + 1, :3, :3]
    turn = np.stack([rotation_vector(one.T @ other) for one, other in zip(first, second, strict=True)])
    rotation = first @ from_axis_angle(torch.from_numpy(share * turn)).numpy()
    vector = np.stack([rotation_vector(each) for each in rotation])
    begin = np.concatenate((place[0], vector[0]))
    found = {
        "eef_pos": place,
        "eef_axis_angle": vector,
        "gripper_width": np.interp(wanted, times, measured.opening)[:, None],
        "start_pose": np.tile(begin, (taken.steps, 1)),
    }
    return {name: values.astype(np.float32) for name, values in found.items()}
