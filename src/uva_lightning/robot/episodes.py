"""Read recorded episodes: their facts, what was measured and asked for, and their films."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from uva_lightning.datamodules.film import Film
from uva_lightning.robot.arm import JointTrajectory
from uva_lightning.robot.arm_model import ArmModel, arm_model
from uva_lightning.robot.chain import Array
from uva_lightning.robot.operator import Label
from uva_lightning.robot.recorder_files import EVENTS, FILM, META, PARTIAL, STEPS, read_lines, read_meta
from uva_lightning.robot.recorder_rows import COLUMNS, LATER
from uva_lightning.robot.video_cameras import ReplayCamera

AGAIN = "copy the episode again, or move it away"


class BrokenEpisode(ValueError):
    """A recording cannot be read; the message names its folder, what is wrong, and the fix."""


class Found(NamedTuple):
    """Folders of recordings: of finished ones, and of those that were never finished."""

    finished: Sequence[Path]
    unfinished: Sequence[Path]


class Measured(NamedTuple):
    """What an arm measured: times f64[n] in s, ascending; poses f64[n, 4, 4] of its last frame; openings f64[n], m."""

    time: Array
    eef: Array
    opening: Array


class Asked(NamedTuple):
    """A chunk that was asked for.

    Args:
        number: Of the row.
        now: When it was asked for, s.
        observed: Time of what it was planned on, s.
        q: Angles f64[j] where the arm was sent by then, or measured where that was not recorded, rad.
        opening: The same of the gripper, m.
        eef: Measured pose f64[4, 4] of the last frame that it was planned on; None where it was not recorded.
        action: What the policy said, f64[h, 10]; None where it was not recorded.
        trajectory: What was made of it; None where nothing was.
        rejected: Why it was refused; None where it was not.
    """

    number: int
    now: float
    observed: float
    q: Array
    opening: float
    eef: Array | None
    action: Array | None
    trajectory: JointTrajectory | None
    rejected: str | None


@dataclass(frozen=True)
class RecordedFilm:
    """What one camera saw.

    Args:
        path: Its file, whose times count from the first picture.
        begun: Time of the first picture, s.
        frames: How many pictures.
        size: Height and width in px.
    """

    path: Path
    begun: float
    frames: int
    size: tuple[int, int]

    @cached_property
    def times(self) -> Array:
        """When each picture was taken, f64[n], s."""
        film = Film(self.path)
        try:
            times: Array = self.begun + film.times
        finally:
            film.close()
        return times


class RecordedEpisode:
    """One recording that was finished.

    Args:
        path: Its folder.
        arm: Model of the arm, where the recording does not say it.

    Raises:
        BrokenEpisode: Something of it is absent or damaged.
    """

    def __init__(self, path: Path, arm: str | None = None) -> None:
        self.path, self._arm = path, arm
        try:
            self.meta = read_meta(path)
        except ValueError as error:
            raise BrokenEpisode(f"{error}; {AGAIN}.") from error
        try:
            self.label, self.task = Label(self.meta["label"]), str(self.meta.get("task") or "")
            self.count, films = int(self.meta["steps"]), dict(self.meta["films"])
            self.films = {name: _film(path, name, facts) for name, facts in films.items()}
        except (KeyError, TypeError, ValueError) as error:
            raise BrokenEpisode(f"{path / META} has no usable entry {error}; {AGAIN}.") from error

    @cached_property
    def model(self) -> ArmModel:
        """Of its arm.

        Raises:
            BrokenEpisode: It is not recorded, or not known.
        """
        try:
            return arm_model(str(self.meta.get("arm") or self._arm))
        except ValueError as error:
            raise BrokenEpisode(
                f"{self.path / META} has no usable entry 'arm' ({error}); add it there, or name the arm with --arm."
            ) from error

    @cached_property
    def events(self) -> Sequence[Mapping[str, Any]]:
        """What happened, in order: ``time``, ``kind``, ``text`` and numbers."""
        try:
            return read_lines(self.path / EVENTS)
        except ValueError as error:
            raise BrokenEpisode(f"{self.path}: {error}; {AGAIN}.") from error

    @cached_property
    def rows(self) -> Sequence[Mapping[str, Any]]:
        """All rows in the order in which they were recorded, see ``recorder_rows.COLUMNS``."""
        import pyarrow
        import pyarrow.parquet

        file = self.path / STEPS
        try:
            table = pyarrow.parquet.read_table(file)
        except (pyarrow.ArrowException, OSError) as error:
            raise BrokenEpisode(f"{file} cannot be read ({' '.join(str(error).split())}); {AGAIN}.") from error
        if lacks := [name for name in COLUMNS if name not in table.column_names and name not in LATER]:
            raise BrokenEpisode(f"{file} lacks {', '.join(lacks)}, expected the columns of a recording; {AGAIN}.")
        if table.num_rows != self.count:
            raise BrokenEpisode(f"{file} has {table.num_rows} rows, but {META} says {self.count}; {AGAIN}.")
        rows: list[dict[str, Any]] = table.to_pylist()
        return [dict.fromkeys(LATER) | row for row in rows]

    def camera(self, name: str, clock: Callable[[], float] = time.monotonic) -> ReplayCamera:
        """Give a camera that shows again what one saw, from the moment on in which it is connected.

        Args:
            name: Of the camera.
            clock: Gives the time in s.

        Raises:
            BrokenEpisode: There is no such camera.
        """
        if name not in self.films:
            raise BrokenEpisode(f"{self.path} has no camera '{name}', expected one of {', '.join(self.films)}.")
        film = self.films[name]
        return ReplayCamera(film.path, film.times, name, clock=clock)

    def measured(self) -> Measured:
        """Give what the arm measured.

        Raises:
            BrokenEpisode: There is nothing of it, or numbers are not finite.
        """
        found: dict[float, tuple[Any, float]] = {}  # by time
        for row in self.rows:
            if row["opening"] is not None and (row["eef"] is not None or row["q"] is not None):
                eef = self.model.chain.forward(np.array(row["q"])) if row["eef"] is None else row["eef"]
                found[row["time"]] = (eef, row["opening"])
        if not found:
            raise BrokenEpisode(f"{self.path / STEPS} has no row with a measured pose and opening; {AGAIN}.")
        times = sorted(found)
        poses = np.array([found[moment][0] for moment in times], float)
        openings = np.array([found[moment][1] for moment in times], float)
        if not (np.isfinite(poses).all() and np.isfinite(openings).all()):
            raise BrokenEpisode(f"{self.path / STEPS} has measured numbers that are not finite; {AGAIN}.")
        return Measured(np.array(times), poses, openings)

    def asked(self) -> Iterator[Asked]:
        """Give the chunks that were asked for, in order, with where the arm was then."""
        places: dict[str, tuple[Array, float]] = {}
        for number, row in enumerate(self.rows):
            for kind in ("", "sent_"):
                if row[f"{kind}q"] is not None and row[f"{kind}opening"] is not None:
                    places[kind] = (np.array(row[f"{kind}q"], float), float(row[f"{kind}opening"]))
            if row["asked_time"] is None and row["action"] is None and row["rejected"] is None:
                continue
            if not places:
                raise BrokenEpisode(
                    f"{self.path / STEPS} asks in row {number} for a way of an arm that it does not show; {AGAIN}."
                )
            eef, action = (None if row[name] is None else np.array(row[name], float) for name in ("eef", "action"))
            q, opening = places.get("sent_", places.get("", (np.zeros(0), 0.0)))  # set-points count, where known
            yield Asked(number, _now(row), row["time"], q, opening, eef, action, _trajectory(row), row["rejected"])


def find_episodes(folder: Path) -> Found:
    """List the recordings in a folder, in the order of their names, which is that of time.

    Raises:
        FileNotFoundError: There is none.
    """
    if (folder / META).is_file():
        return Found([folder], [])
    inside = sorted(entry for entry in folder.iterdir() if entry.is_dir()) if folder.is_dir() else []
    unfinished = [entry for entry in inside if entry.name.endswith(PARTIAL)]
    finished = [entry for entry in inside if entry not in unfinished and (entry / META).is_file()]
    if not finished:
        left = f"; {len(unfinished)} are unfinished, run: uva arm recover {folder}" if unfinished else ""
        what = "are no recordings in" if folder.exists() else "is no folder"
        raise FileNotFoundError(f"There {what} {folder}, expected one of recordings, each with {META}{left}.")
    return Found(finished, unfinished)


def _film(path: Path, name: str, facts: Mapping[str, Any]) -> RecordedFilm:
    file = path / FILM.format(camera=name)
    if not file.is_file():
        raise BrokenEpisode(f"{path} lacks {file.name}, which {META} names; {AGAIN}.")
    return RecordedFilm(file, float(facts["begun"]), int(facts["frames"]), (int(facts["height"]), int(facts["width"])))


def _now(row: Mapping[str, Any]) -> float:
    """When a chunk was asked for, as near as it is known."""
    if row["asked_at"] is not None:
        return float(row["asked_at"])
    looked = row["time"] if row["looked"] is None else row["looked"]
    return float(looked) + float(row["inference"] or 0.0)


def _trajectory(row: Mapping[str, Any]) -> JointTrajectory | None:
    if row["asked_time"] is None:
        return None
    parts = (row[f"asked_{name}"] for name in ("time", "q", "opening", "valid_until"))
    return JointTrajectory(*(np.array(part, float) for part in parts))
