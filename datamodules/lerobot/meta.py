"""What ``meta/`` of a LeRobot dataset says: features, rate, tasks, and in which files each episode lies."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

INFO = "meta/info.json"
VERSIONS = ("v2.", "v3.")
TEXT_COLUMNS = ("task", "__index_level_0__")
"""Names of the column with the sentences: pandas writes its index under the second."""
CHANNELS = (1, 3, 4)
PICTURES = ("video", "image")
Feature = Mapping[str, Any]


@dataclass(frozen=True)
class Recorded:
    """One episode of the list.

    Args:
        number: Its ``episode_index``.
        length: Steps.
        table: File of its numbers.
        films: File and time of the first frame in s, per video feature.
        tasks: What the list says it is about.
    """

    number: int
    length: int
    table: Path
    films: Mapping[str, tuple[Path, float]]
    tasks: tuple[str, ...] = ()

    def files(self) -> list[Path]:
        """All files it needs."""
        return [self.table, *(file for file, _ in self.films.values())]


class Source:
    """A LeRobot dataset on disk.

    Args:
        path: Its folder.

    Raises:
        FileNotFoundError: There is none.
        ValueError: It is of another version, or its ``meta/info.json`` is damaged.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        file = path / INFO
        if not file.is_file():
            what = "no folder there" if not path.exists() else f"{path} lacks {INFO}"
            raise FileNotFoundError(
                f"There is no LeRobot dataset at {path} ({what}), expected a folder with {INFO}, data/ and videos/; "
                "set data.path to one."
            )
        info = _json(file)
        self.version = str(info.get("codebase_version"))
        if not self.version.startswith(VERSIONS):
            raise ValueError(
                f"{path} is a LeRobot dataset {self.version}, expected v2 or v3; convert it with LeRobot's own tools."
            )
        try:
            self.rate_hz = float(info["fps"])
            self.features: Mapping[str, Feature] = dict(info["features"])
            self.data_path, self.video_path = str(info["data_path"]), info.get("video_path")
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"{file} lacks a usable {error}, expected fps, features and data_path; copy the dataset again."
            ) from error
        self.action_meaning = str(info.get("action_meaning") or "")
        self.robot = str(info.get("robot_type") or "unknown")
        self.chunk_size = int(info.get("chunks_size") or 1000)
        self.total = int(info.get("total_episodes") or 0)

    def episodes(self, videos: Collection[str], only: Collection[int] | None = None) -> list[Recorded]:
        """List the episodes in the order of their numbers.

        Args:
            videos: Video features that are needed.
            only: Numbers of the episodes that are wanted, all if not given.

        Raises:
            FileNotFoundError: The list is absent.
            ValueError: A wanted episode is not in it.
        """
        listed = self._in_one_file_each(videos) if self.version.startswith("v2.") else self._in_shared_files(videos)
        listed.sort(key=lambda episode: episode.number)
        if only is None:
            return listed
        wanted = set(only)
        if unknown := sorted(wanted - {episode.number for episode in listed}):
            raise ValueError(
                f"{self.path} has no episode {', '.join(map(str, unknown[:5]))}, expected numbers from 0 to "
                f"{listed[-1].number if listed else 0}; set data.reading.episodes."
            )
        return [episode for episode in listed if episode.number in wanted]

    def tasks(self) -> dict[int, str]:
        """Give the sentences by ``task_index``; none where the dataset has no list of them."""
        lines, table = self.path / "meta/tasks.jsonl", self.path / "meta/tasks.parquet"
        if lines.is_file():
            return {int(row["task_index"]): str(row["task"]) for row in _json_lines(lines)}
        if not table.is_file():
            return {}
        rows = pyarrow_parquet(self.path).read_table(table).to_pylist()
        column = next((name for name in TEXT_COLUMNS if rows and name in rows[0]), None)
        if rows and column is None:
            raise ValueError(
                f"{table} has the columns {', '.join(rows[0])}, expected one of {', '.join(TEXT_COLUMNS)}."
            )
        return {int(row["task_index"]): str(row[column]) for row in rows}

    def _in_one_file_each(self, videos: Collection[str]) -> list[Recorded]:
        file = self.path / "meta/episodes.jsonl"
        if not file.is_file():
            raise FileNotFoundError(f"{self.path} lacks meta/episodes.jsonl; copy the dataset again.")
        listed = []
        for row in _json_lines(file):
            number = int(row["episode_index"])
            place = {"episode_chunk": number // self.chunk_size, "episode_index": number}
            films = {key: (self._file(self.video_path, video_key=key, **place), 0.0) for key in videos}
            tasks = tuple(str(task) for task in row.get("tasks") or ())
            listed.append(Recorded(number, int(row["length"]), self._file(self.data_path, **place), films, tasks))
        return listed

    def _in_shared_files(self, videos: Collection[str]) -> list[Recorded]:
        files = sorted(self.path.glob("meta/episodes/chunk-*/file-*.parquet"))
        if not files:
            raise FileNotFoundError(
                f"{self.path} lacks meta/episodes/chunk-000/file-000.parquet; copy the dataset again."
            )
        parquet, listed = pyarrow_parquet(self.path), []
        for file in files:
            known = parquet.read_schema(file).names
            for row in parquet.read_table(file, columns=[n for n in known if not n.startswith("stats/")]).to_pylist():
                films = {
                    key: (
                        self._file(self.video_path, video_key=key, **_place(row, f"videos/{key}")),
                        float(row[f"videos/{key}/from_timestamp"]),
                    )
                    for key in videos
                }
                table = self._file(self.data_path, **_place(row, "data"))
                tasks = tuple(str(task) for task in row.get("tasks") or ())
                listed.append(Recorded(int(row["episode_index"]), int(row["length"]), table, films, tasks))
        return listed

    def _file(self, template: Any, **place: Any) -> Path:
        try:
            return self.path / str(template).format(**place)
        except (KeyError, IndexError, ValueError) as error:
            raise ValueError(
                f"{self.path / INFO} names files as '{template}', which needs {error}; expected "
                f"{', '.join(place)} at most."
            ) from error


def picture_size(feature: Feature) -> tuple[int, int]:
    """Give height and width of a picture feature, whose channels may come first or last."""
    names, shape = feature.get("names"), [int(side) for side in feature["shape"]]
    first = isinstance(names, list) and str(names[0]).startswith("channel")
    if first or (shape[0] in CHANNELS and shape[-1] not in CHANNELS):
        shape = shape[1:]
    return shape[0], shape[1]


def is_picture(feature: Feature) -> bool:
    """Tell whether a feature is a camera's; depth is none."""
    facts = {**(feature.get("video_info") or {}), **(feature.get("info") or {})}
    return feature.get("dtype") in PICTURES and not facts.get("video.is_depth_map")


def width(feature: Feature) -> int:
    """Numbers in one step of a numeric feature."""
    count = 1
    for side in feature["shape"]:
        count *= int(side)
    return count


def pyarrow_parquet(path: Path) -> ModuleType:
    """Import what reads the tables.

    Raises:
        ImportError: pyarrow is not installed.
    """
    try:
        import pyarrow.parquet as parquet
    except ImportError as error:
        raise ImportError(
            f"{path} needs pyarrow ({error}); install it with pip install 'uva_lightning[data]'."
        ) from error
    module: ModuleType = parquet
    return module


def _place(row: Mapping[str, Any], key: str) -> dict[str, int]:
    try:
        return {"chunk_index": int(row[f"{key}/chunk_index"]), "file_index": int(row[f"{key}/file_index"])}
    except KeyError as error:
        raise ValueError(f"The list of episodes lacks the column {error}; copy the dataset's meta/ again.") from error


def _json(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text())
    except ValueError as error:
        raise ValueError(f"{file} is no valid JSON ({error}); copy it again.") from error
    if not isinstance(content, dict):
        raise ValueError(f"{file} holds a {type(content).__name__}, expected keys such as fps and features.")
    return content


def _json_lines(file: Path) -> list[dict[str, Any]]:
    rows = []
    for number, line in enumerate(file.read_text().splitlines(), 1):
        if line.strip():
            try:
                rows.append(dict(json.loads(line)))
            except (ValueError, TypeError) as error:
                raise ValueError(
                    f"Line {number} of {file} is no JSON object ({error}); copy the file again."
                ) from error
    return rows
