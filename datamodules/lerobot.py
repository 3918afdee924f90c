"""Read LeRobot datasets v3.0: parquet tables and mp4 videos that each hold many episodes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from uva_lightning.datamodules.faults import Faults
from uva_lightning.datamodules.fields import Fields, columns
from uva_lightning.datamodules.store import EpisodeStore
from uva_lightning.types import DataSpec

VERSION = "v3."
Rows = list[dict[str, Any]]


def matches(path: Path) -> bool:
    """Tell whether a path is a LeRobot dataset, of any version."""
    return (path / "meta/info.json").is_file()


def read(path: Path, fields: Fields, spec: DataSpec, faults: Faults) -> EpisodeStore:
    """Read all episodes; videos are decoded once, from front to end.

    Raises:
        ImportError: pyarrow or PyAV is not installed.
        FileNotFoundError: Files that the dataset names are absent.
        ValueError: Another version, or a field is missing or no video.
    """
    info = json.loads((path / "meta/info.json").read_text())
    version = info.get("codebase_version")
    if not str(version).startswith(VERSION):
        raise ValueError(
            f"{path} is a LeRobot dataset {version}, expected {VERSION}x; convert it with LeRobot's own "
            "lerobot.datasets.v30.convert_dataset_v21_to_v30."
        )
    if info["fps"] != spec.rate_hz:
        raise ValueError(
            f"{path} is recorded at {info['fps']} Hz, expected {spec.rate_hz:g} Hz; resample it, or change the rate in "
            "the facts of the datamodule."
        )
    fields.require(info["features"], path)
    parquet, av = _libraries(path)
    episodes = _episodes(parquet, path)
    tables = _files(path, info["data_path"], [_place(row, "data") for row in episodes])
    videos = {key: _videos(path, info, key, episodes) for key in fields.video.values()}
    _refuse_missing(path, [*tables, *(file for files in videos.values() for file in files)])

    names = sorted({fields.action, *fields.state.values()})
    parts = [parquet.read_table(file, columns=["index", *names]) for file in tables]
    order = np.argsort(np.concatenate([part["index"].to_numpy() for part in parts]), kind="stable")
    numbers = {name: np.concatenate([_matrix(part[name]) for part in parts])[order] for name in names}
    lengths = np.array([row["length"] for row in episodes], dtype=np.int64)
    return EpisodeStore(
        {
            camera: _frames(av, info["fps"], key, episodes, videos[key], info["features"][key]["shape"])
            for camera, key in fields.video.items()
        },
        columns(numbers[fields.action], spec.action_dim, fields.action, path),
        {name: columns(numbers[field], spec.state_dims[name], field, path) for name, field in fields.state.items()},
        np.cumsum(lengths),
    )


def _libraries(path: Path) -> tuple[ModuleType, ModuleType]:
    try:
        import av
        import pyarrow.parquet as parquet
    except ImportError as error:
        raise ImportError(
            f"Reading {path} needs pyarrow and PyAV ({error}); install them with pip install 'uva_lightning[data]'."
        ) from error
    return parquet, av


def _episodes(parquet: ModuleType, path: Path) -> Rows:
    """List the facts of each episode, in order."""
    files = sorted(path.glob("meta/episodes/chunk-*/file-*.parquet"))
    if not files:
        raise FileNotFoundError(f"{path} lacks meta/episodes/chunk-000/file-000.parquet; copy the dataset again.")
    rows: Rows = []
    for file in files:
        known = parquet.read_schema(file).names
        rows += parquet.read_table(file, columns=[name for name in known if "stats/" not in name]).to_pylist()
    return sorted(rows, key=lambda row: int(row["episode_index"]))


def _place(row: dict[str, Any], key: str) -> tuple[int, int]:
    return int(row[f"{key}/chunk_index"]), int(row[f"{key}/file_index"])


def _files(path: Path, template: str, places: Sequence[tuple[int, int]], key: str = "") -> dict[Path, None]:
    """Name the files of the given places once each, in order."""
    return {
        path / template.format(chunk_index=chunk, file_index=file, video_key=key): None
        for chunk, file in sorted(set(places))
    }


def _videos(path: Path, info: dict[str, Any], key: str, episodes: Rows) -> list[Path]:
    """Name the video file of each episode."""
    kind = info["features"][key]["dtype"]
    if kind != "video":
        raise ValueError(f"'{key}' in {path} is stored as {kind}, expected video; convert the dataset to mp4.")
    return [next(iter(_files(path, info["video_path"], [_place(row, f"videos/{key}")], key))) for row in episodes]


def _refuse_missing(path: Path, files: Sequence[Path]) -> None:
    missing = sorted({str(file.relative_to(path)) for file in files if not file.is_file()})
    if missing:
        more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
        raise FileNotFoundError(
            f"{path} lacks {len(missing)} of its files: {', '.join(missing[:5])}{more}; copy the dataset again, "
            "with its large files (git lfs pull)."
        )


def _matrix(column: Any) -> NDArray[np.float32]:
    """Turn a column of numbers or of lists of one length into f32[n, width]."""
    rows = column.combine_chunks()
    flat = rows.flatten() if hasattr(rows, "flatten") else rows
    values = np.asarray(flat.to_numpy(zero_copy_only=False), dtype=np.float32)
    return values.reshape(len(rows), -1)


def _frames(
    av: ModuleType, fps: float, key: str, episodes: Rows, files: Sequence[Path], shape: Sequence[int]
) -> NDArray[np.uint8]:
    """Decode each file once and put the frames of its episodes where they belong: u8[n, H, W, 3]."""
    ends = np.cumsum([row["length"] for row in episodes])
    frames = np.zeros((ends[-1], *shape), dtype=np.uint8)
    for file in dict.fromkeys(files):
        target: dict[int, int] = {}  # frame of the file -> step of the dataset
        for row, end, own in zip(episodes, ends, files, strict=True):
            if own == file:
                first = round(row[f"videos/{key}/from_timestamp"] * fps)
                target.update(zip(range(first, first + row["length"]), range(end - row["length"], end), strict=True))
        with av.open(str(file)) as container:
            container.streams.video[0].thread_type = "AUTO"
            to_rgb = av.video.reformatter.VideoReformatter()  # one for all frames: it keeps its tables
            for frame in container.decode(video=0):
                step = target.pop(round(float(frame.pts * frame.time_base) * fps), None)
                if step is not None:
                    frames[step] = to_rgb.reformat(frame, format="rgb24").to_ndarray()
        if target:
            raise ValueError(
                f"{file} lacks {len(target)} frames, first at {min(target) / fps:.2f} s; copy the dataset again."
            )
    return frames
