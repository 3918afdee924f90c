"""Read LeRobot datasets: numbers at once, pictures when they are asked for."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm.auto import tqdm

from uva_lightning.datamodules.faults import Broken, Faults
from uva_lightning.datamodules.fields import Fields, columns
from uva_lightning.datamodules.film import Film, Header
from uva_lightning.datamodules.frames import Frames, Steps
from uva_lightning.datamodules.lerobot.images import ImageFrames, Rows
from uva_lightning.datamodules.lerobot.meta import INFO, Recorded, Source, picture_size
from uva_lightning.datamodules.lerobot.numbers import Table
from uva_lightning.datamodules.store import EpisodeStore, hash_of
from uva_lightning.datamodules.video_frames import Clip, VideoFrames
from uva_lightning.types import DataSpec

SAME_RATE = 0.02
"""Share by which a video may differ in rate, as it is the quotient of two rounded numbers."""
SURPLUS = 1
"""Frames that a video may have beyond its table: some encoders repeat the last one."""
MANY = 200
"""Files from which on a progress bar is shown."""
SHOWN = 5


@dataclass(frozen=True)
class Part:
    """What is in memory of one episode.

    Args:
        episode: As the list has it.
        rows: i64[n], its rows in its table.
        numbers: f32[n, width] per field.
        task: What the robot is told.
    """

    episode: Recorded
    rows: Steps
    numbers: Mapping[str, NDArray[np.float32]]
    task: str | None


def matches(path: Path) -> bool:
    """Tell whether a path is a LeRobot dataset, of any version."""
    return (path / INFO).is_file()


def read(
    path: Path, fields: Fields, spec: DataSpec, faults: Faults, only: Collection[int] | None = None
) -> EpisodeStore:
    """Read episodes; pictures stay in their files until they are asked for.

    Args:
        path: Folder of the dataset.
        fields: Names of its features.
        spec: Facts that are expected.
        faults: Takes the episodes that are broken.
        only: Numbers of the episodes that are wanted, all if not given; files of others need not be there.

    Raises:
        ImportError: pyarrow or PyAV is not installed.
        FileNotFoundError: Files that the dataset names are absent.
        ValueError: Another version, rate or feature than expected.
    """
    source = Source(path)
    if source.rate_hz != spec.rate_hz:
        raise ValueError(
            f"{path} is recorded at {source.rate_hz:g} Hz, expected {spec.rate_hz:g} Hz; resample it, or change the "
            "rate in the facts of the datamodule."
        )
    fields.require(source.features, path)
    kinds = {key: source.features[key].get("dtype") for key in fields.video.values()}
    if wrong := {key: kind for key, kind in kinds.items() if kind not in ("video", "image")}:
        raise ValueError(f"{path} has no pictures in {wrong}, expected the kind video or image; choose other cameras.")
    films = [key for key, kind in kinds.items() if kind == "video"]
    listed = _present(source, source.episodes(films, only), faults)
    sizes = {key: picture_size(source.features[key]) for key in kinds}
    listed = _whole_films(source, listed, sizes, faults)
    parts = _parts(source, listed, fields, faults)
    if not parts:
        faults.report(path, 0)
        raise Broken(f"{path} has no episodes, expected some; it may not have been recorded fully.")

    def numbers(field: str, width: int) -> NDArray[np.float32]:
        return columns(np.concatenate([part.numbers[field] for part in parts]), width, field, path)

    told = [part.task for part in parts]
    told = told if any(told) else [None]  # a dataset must have tasks: where there are none, its writer left them empty
    return EpisodeStore(
        {
            camera: _frames(source, parts, key, sizes[key], kinds[key] == "video")
            for camera, key in fields.video.items()
        },
        numbers(fields.action, spec.action_dim) if fields.action else None,
        {name: numbers(field, spec.state_dims[name]) for name, field in fields.state.items()},
        np.cumsum([part.episode.length for part in parts]),
        None if None in told else [str(task) for task in told],
        [_name(source, part.episode) for part in parts],
        _identity(source, [part.episode for part in parts]),
    )


def _name(source: Source, episode: Recorded) -> str:
    return f"{source.path.name}: episode {episode.number}"


def _present(source: Source, listed: list[Recorded], faults: Faults) -> list[Recorded]:
    """Leave out episodes that are empty or whose files are absent."""
    kept = []
    for episode in listed:
        if episode.length > 0:
            kept.append(episode)
        else:
            faults.add(Broken(f"{_name(source, episode)} has {episode.length} steps; leave it out."))
    needed = {file for episode in kept for file in episode.files()}
    missing = {file for file in needed if not file.is_file()}
    if not missing:
        return kept
    names = sorted(str(file.relative_to(source.path)) for file in missing)
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    told = (
        f"{source.path} lacks {len(missing)} of its {len(needed)} files: {', '.join(names[:SHOWN])}{more}; copy the "
        "dataset again, with its large files (git lfs pull)"
    )
    if not faults.skips:
        raise FileNotFoundError(f"{told}, or leave episodes out with data.reading.episodes.")
    whole = []
    for episode in kept:
        if lacks := [str(file.relative_to(source.path)) for file in episode.files() if file in missing]:
            faults.add(Broken(f"{_name(source, episode)} lacks {', '.join(lacks)}; copy the dataset again."))
        else:
            whole.append(episode)
    return whole


def _whole_films(
    source: Source, listed: list[Recorded], sizes: dict[str, tuple[int, int]], faults: Faults
) -> list[Recorded]:
    """Leave out episodes whose videos are cut off, too short, or of another rate or size; no frame is decoded."""
    headers: dict[Path, Header | str] = {}
    files = {file for episode in listed for file, _ in episode.films.values()}
    for file in tqdm(sorted(files), unit="video", desc="videos", disable=len(files) < MANY):
        headers[file] = _header(file)
    kept = []
    for episode in listed:
        wrong = [
            fault
            for key, (file, start) in episode.films.items()
            if (fault := _film_fault(source, episode, file, start, headers[file], sizes[key]))
        ]
        if wrong:
            faults.add(Broken(f"{_name(source, episode)}: {wrong[0]}"))
        else:
            kept.append(episode)
    return kept


def _header(file: Path) -> Header | str:
    try:
        film = Film(file)
    except ValueError as error:
        return str(error)
    try:
        return film.header()
    except ValueError as error:
        return str(error)
    finally:
        film.close()


def _film_fault(
    source: Source, episode: Recorded, file: Path, start: float, header: Header | str, size: tuple[int, int]
) -> str | None:
    """Say what is wrong with a video, if anything."""
    if isinstance(header, str):
        return header
    fps = source.rate_hz
    if header.rate_hz and abs(header.rate_hz - fps) > SAME_RATE * fps:
        return (
            f"{file} runs at {header.rate_hz:.4g} Hz, but {INFO} says {fps:g} fps; encode the video again or "
            "correct fps."
        )
    if (header.height, header.width) != size:
        return (
            f"{file} has pictures of {header.height} x {header.width} px, but {INFO} says {size[0]} x {size[1]}; "
            "correct the shape of the feature."
        )
    if header.frames is None:
        return None
    rest = header.frames - round(start * fps)
    own_file = source.version.startswith("v2.")
    if rest < episode.length or (own_file and rest > episode.length + SURPLUS):
        return (
            f"{file} has {max(0, rest)} frames{'' if own_file else f' from {start:.2f} s on'}, but its table has "
            f"{episode.length} rows; copy the video again or leave the episode out."
        )
    return None


def _parts(source: Source, listed: list[Recorded], fields: Fields, faults: Faults) -> list[Part]:
    """Read the numbers, table by table."""
    wanted = fields.names() - set(fields.video.values())
    tasks = source.tasks()
    by_table: dict[Path, list[Recorded]] = {}
    for episode in listed:
        by_table.setdefault(episode.table, []).append(episode)
    parts = []
    for file, episodes in tqdm(by_table.items(), unit="table", desc="tables", disable=len(by_table) < MANY):
        try:
            table = Table(file, wanted)
        except ValueError as error:
            for episode in episodes:
                faults.add(Broken(f"{_name(source, episode)}: {error}"))
            continue
        for episode in episodes:
            try:
                parts.append(_part(source, table, episode, wanted, tasks))
            except Broken as fault:
                faults.add(fault)
    return sorted(parts, key=lambda part: part.episode.number)


def _part(source: Source, table: Table, episode: Recorded, wanted: set[str], tasks: dict[int, str]) -> Part:
    name = _name(source, episode)
    rows = table.rows(episode, source.rate_hz, name)
    task = table.task(rows)
    if tasks and task is not None and task not in tasks:
        raise Broken(f"{name} has the task {task}, but meta/ lists {sorted(tasks)}; copy the dataset's meta/ again.")
    told = tasks[task] if tasks and task is not None else next(iter(episode.tasks), None)
    return Part(episode, rows, {field: table.numbers(field, rows, name) for field in wanted}, told)


def _frames(source: Source, parts: list[Part], key: str, size: tuple[int, int], film: bool) -> Frames:
    """Give the pictures of one camera."""
    if not film:
        rows = [Rows(part.episode.table, part.rows, _name(source, part.episode)) for part in parts]
        return ImageFrames(source.path, key, rows, size)
    clips = [
        Clip(file, part.episode.length, start, _name(source, part.episode))
        for part in parts
        for file, start in (part.episode.films[key],)
    ]
    return VideoFrames(clips, source.rate_hz, size)


def _identity(source: Source, episodes: list[Recorded]) -> str:
    """Hash what the pictures follow from: files, and which parts of them."""
    files = sorted({file for episode in episodes for file in episode.files()})
    stats = [(str(file.relative_to(source.path)), file.stat()) for file in files]
    places = [
        (episode.number, episode.length, sorted(start for _, start in episode.films.values())) for episode in episodes
    ]
    return hash_of([(name, stat.st_size, stat.st_mtime_ns) for name, stat in stats], places)
