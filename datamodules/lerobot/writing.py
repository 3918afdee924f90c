"""Write episodes of any kind as a LeRobot dataset v3.0, one after another, and read them back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm.auto import tqdm

from uva_lightning.datamodules.fields import Fields
from uva_lightning.datamodules.lerobot.films import Compression, Films
from uva_lightning.datamodules.lerobot.meta import pyarrow_parquet
from uva_lightning.datamodules.lerobot.stats import Moments, looked_at, pixels
from uva_lightning.datamodules.store import EpisodeStore
from uva_lightning.types import DataSpec

ACTION, STATE, CAMERA = "action", "observation.state", "observation.images."
DATA_PATH = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
VIDEO_PATH = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
COUNTERS = ("timestamp", "frame_index", "episode_index", "index", "task_index")
DATA_MB, CHUNK = 100, 1000
Numbers = Mapping[str, NDArray[Any]]


def fields_of(store: EpisodeStore, known: Fields | None = None) -> Fields:
    """Name the features of a written dataset, as the data class reads them, or else as LeRobot calls them.

    Args:
        store: The episodes.
        known: Names under which the data class reads LeRobot datasets, if it does.
    """
    if (
        known is not None
        and store.action is not None
        and set(known.video) >= set(store.video)
        and set(known.state) == set(store.state)
    ):
        return known.only(tuple(store.video))
    states = {name: STATE if len(store.state) == 1 else f"observation.{name}" for name in store.state}
    return Fields(
        {camera: f"{CAMERA}{camera}" for camera in store.video}, "" if store.action is None else ACTION, states
    )


def write_dataset(
    path: Path,
    store: EpisodeStore,
    spec: DataSpec,
    compression: Compression | None = None,
    fields: Fields | None = None,
) -> None:
    """Write all episodes; only a few pictures are in memory at a time.

    Args:
        path: Folder, which is there and empty.
        store: The episodes.
        spec: Their rate and the meaning of their actions.
        compression: How pictures become video; as LeRobot does if not given.
        fields: Names of the features; LeRobot's own if not given.

    Raises:
        ImportError: pyarrow or PyAV is not installed.
        ValueError: Pictures cannot be stored as a video.
    """
    writer = _Writer(path, store, spec, compression or Compression(), fields or fields_of(store))
    try:
        with tqdm(total=store.steps * len(store.video), unit="frame", desc="writing", mininterval=1) as bar:
            for episode in range(store.episodes):
                writer.add(episode, bar)
        writer.finish()
    except BaseException:
        writer.abandon()
        raise


class _Writer:
    """The files of a dataset that is being written."""

    def __init__(
        self, path: Path, store: EpisodeStore, spec: DataSpec, compression: Compression, fields: Fields
    ) -> None:
        import pyarrow

        self.arrow, self.parquet = pyarrow, pyarrow_parquet(path)
        self.path, self.store, self.spec = path, store, spec
        self.fields = fields
        self.sentences = sorted(set(store.instructions or [""]))
        self.films = {
            key: Films(path / "videos" / key, spec.rate_hz, (frames.shape[1], frames.shape[2]), compression)
            for key, frames in ((self.fields.video[camera], frames) for camera, frames in store.video.items())
        }
        self.rows: list[dict[str, Any]] = []
        self.totals: dict[str, Moments] = {}
        self.seen: dict[str, int] = {}
        self._table: Any = None
        self._file, self._bytes = -1, 0

    def add(self, episode: int, bar: Any) -> None:
        """Append an episode to the table, to the videos and to the list."""
        begin, end = int(self.store.begins[episode]), int(self.store.ends[episode])
        numbers = self._numbers(episode, begin, end)
        stats = self._stats(numbers)
        row: dict[str, Any] = {"episode_index": episode, "tasks": [self._told(episode)], "length": end - begin}
        row |= {"data/chunk_index": 0, "data/file_index": self._append(numbers)}
        row |= {"dataset_from_index": begin, "dataset_to_index": end}
        for camera, frames in self.store.video.items():
            key = self.fields.video[camera]
            films = self.films[key]
            for written in films.add(frames, begin, end):
                bar.update(written)
            first = films.place.first
            row |= {f"videos/{key}/chunk_index": 0, f"videos/{key}/file_index": films.place.file}
            row |= {f"videos/{key}/from_timestamp": first / self.spec.rate_hz}
            row |= {f"videos/{key}/to_timestamp": (first + end - begin) / self.spec.rate_hz}
            stats |= self._picture_stats(key, frames[begin + looked_at(end - begin)])
        row |= {f"stats/{key}/{name}": value for key, entry in stats.items() for name, value in entry.items()}
        self.rows.append({**row, "meta/episodes/chunk_index": 0, "meta/episodes/file_index": 0})

    def finish(self) -> None:
        """Complete the files that are open, and write what is known at the end."""
        self._close_table()
        for films in self.films.values():
            films.finish()
        meta = self.path / "meta"
        (meta / "episodes/chunk-000").mkdir(parents=True)
        self.parquet.write_table(self.arrow.Table.from_pylist(self.rows), meta / "episodes/chunk-000/file-000.parquet")
        self.parquet.write_table(_tasks(self.arrow, self.sentences), meta / "tasks.parquet")
        stats = {key: self._entry(key, total, self.seen.get(key)) for key, total in self.totals.items()}
        (meta / "stats.json").write_text(json.dumps(stats, indent=4) + "\n")
        (meta / "info.json").write_text(json.dumps(self._info(), indent=4) + "\n")

    def abandon(self) -> None:
        """Leave the files that are open as they are."""
        self._close_table()
        for films in self.films.values():
            films.abandon()

    def _close_table(self) -> None:
        if self._table is not None:
            self._table.close()
            self._table = None

    def _numbers(self, episode: int, begin: int, end: int) -> Numbers:
        """Give the columns of an episode, in the order of the features."""
        steps = np.arange(end - begin)
        numbers: dict[str, NDArray[Any]] = {}
        if self.store.action is not None:
            numbers[ACTION] = self.store.action[begin:end]
        numbers |= {self.fields.state[name]: values[begin:end] for name, values in self.store.state.items()}
        task = self.sentences.index(self._told(episode))
        return {
            **numbers,
            "timestamp": (steps / self.spec.rate_hz).astype(np.float32),
            "frame_index": steps,
            "episode_index": np.full(len(steps), episode),
            "index": begin + steps,
            "task_index": np.full(len(steps), task),
        }

    def _told(self, episode: int) -> str:
        return "" if self.store.instructions is None else self.store.instructions[episode]

    def _append(self, numbers: Numbers) -> int:
        """Write rows to the table that is open and give the number of its file."""
        table = self.arrow.table({key: self._column(values) for key, values in numbers.items()})
        if self._table is None or self._bytes > DATA_MB * 10**6:
            self._close_table()
            self._file, self._bytes = self._file + 1, 0
            file = self.path / DATA_PATH.format(chunk_index=0, file_index=self._file)
            file.parent.mkdir(parents=True, exist_ok=True)
            self._table = self.parquet.ParquetWriter(file, table.schema)
        self._table.write_table(table)
        self._bytes += table.nbytes
        return self._file

    def _column(self, values: NDArray[Any]) -> Any:
        if values.ndim == 1 or values.shape[1] == 1:  # LeRobot keeps a single number as it is
            return self.arrow.array(values.reshape(-1))
        flat = self.arrow.array(np.ascontiguousarray(values).reshape(-1))
        return self.arrow.FixedSizeListArray.from_arrays(flat, values.shape[1])

    def _stats(self, numbers: Numbers) -> dict[str, Any]:
        stats = {}
        for key, values in numbers.items():
            own = Moments()
            for moments in (own, self.totals.setdefault(key, Moments())):
                moments.add(values.reshape(len(values), -1))
            stats[key] = own.entry()
        return stats

    def _picture_stats(self, key: str, pictures: NDArray[np.uint8]) -> dict[str, Any]:
        own = Moments()
        for moments in (own, self.totals.setdefault(key, Moments())):
            moments.add(pixels(pictures))
        self.seen[key] = self.seen.get(key, 0) + len(pictures)
        return {key: self._entry(key, own, len(pictures))}

    def _entry(self, key: str, moments: Moments, pictures: int | None) -> dict[str, Any]:
        return moments.entry() if pictures is None else moments.entry(pictures, (3, 1, 1))

    def _info(self) -> dict[str, Any]:
        rate, store = self.spec.rate_hz, self.store
        return {
            "codebase_version": "v3.0",
            "robot_type": "unknown",
            "total_episodes": store.episodes,
            "total_frames": store.steps,
            "total_tasks": len(self.sentences),
            "chunks_size": CHUNK,
            "data_files_size_in_mb": DATA_MB,
            "video_files_size_in_mb": max((films.compression.file_mb for films in self.films.values()), default=0),
            "fps": int(rate) if float(rate).is_integer() else rate,
            "splits": {"train": f"0:{store.episodes}"},
            "data_path": DATA_PATH,
            "video_path": VIDEO_PATH,
            "features": self._features(),
            "action_meaning": self.spec.action_meaning,
            "conventions": dict(self.spec.conventions),
        }

    def _features(self) -> dict[str, Any]:
        features: dict[str, Any] = {key: self._film_feature(films) for key, films in self.films.items()}
        numbers = {} if self.store.action is None else {ACTION: self.store.action}
        numbers |= {self.fields.state[name]: values for name, values in self.store.state.items()}
        for key, values in numbers.items():
            features[key] = {"dtype": "float32", "shape": [values.shape[1]], "names": None}
        names = [name.strip() for name in self.spec.action_meaning.split(",")]
        if ACTION in features and len(names) == features[ACTION]["shape"][0] > 1:
            features[ACTION]["names"] = names
        for key in COUNTERS:
            features[key] = {"dtype": "float32" if key == "timestamp" else "int64", "shape": [1], "names": None}
        return features

    def _film_feature(self, films: Films) -> dict[str, Any]:
        height, width = films.size
        info = {"height": height, "width": width, "codec": "h264", "pix_fmt": "yuv420p"}
        info |= {"is_depth_map": False, "fps": float(films.rate), "channels": 3}
        return {
            "dtype": "video",
            "shape": [height, width, 3],
            "names": ["height", "width", "channels"],
            "info": {**{f"video.{name}": value for name, value in info.items()}, "has_audio": False},
        }


def _tasks(arrow: Any, sentences: list[str]) -> Any:
    """Give the table of sentences, which LeRobot reads with pandas: they are its index."""
    text = {"pandas_type": "unicode", "numpy_type": "object", "metadata": None}
    number = {"pandas_type": "int64", "numpy_type": "int64", "metadata": None}
    pandas = {
        "index_columns": ["__index_level_0__"],
        "column_indexes": [{"name": None, "field_name": None, **text, "metadata": {"encoding": "UTF-8"}}],
        "columns": [
            {"name": "task_index", "field_name": "task_index", **number},
            {"name": None, "field_name": "__index_level_0__", **text},
        ],
        "creator": {"library": "pyarrow", "version": arrow.__version__},
        "pandas_version": "2.2.3",
    }
    table = arrow.table({"task_index": np.arange(len(sentences)), "__index_level_0__": sentences})
    return table.replace_schema_metadata({"pandas": json.dumps(pandas)})
