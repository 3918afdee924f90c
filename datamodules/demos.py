"""Read a folder of ``uva demos``: ``meta.json`` and one ``episode_000000.npz`` per episode."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from uva_lightning.datamodules.faults import Faults
from uva_lightning.datamodules.fields import Fields, columns
from uva_lightning.datamodules.store import EpisodeStore
from uva_lightning.types import DataSpec

FORMAT = "uva_lightning demos"


def matches(path: Path) -> bool:
    """Tell whether a path is a folder of demonstrations."""
    meta = path / "meta.json"
    return meta.is_file() and FORMAT in meta.read_text()


def complete(path: Path) -> bool:
    """Tell whether a folder of demonstrations has all its episodes."""
    meta = json.loads((path / "meta.json").read_text())
    return len(list(path.glob("episode_*.npz"))) >= int(meta["episodes"])


def read(path: Path, fields: Fields, spec: DataSpec, faults: Faults) -> EpisodeStore:
    """Read all episodes in the order of their numbers.

    Raises:
        ValueError: The folder is unfinished, a file is damaged or lacks a field.
    """
    meta = json.loads((path / "meta.json").read_text())
    files = sorted(path.glob("episode_*.npz"))
    if len(files) < meta["episodes"]:
        command = " ".join(f"--{name} {meta[name]}" for name in ("episodes", "seed", "candidates"))
        raise ValueError(
            f"{path} holds {len(files)} of {meta['episodes']} episodes, expected all; "
            f"finish it with: uva demos {meta['env']} --out {path} {command}"
        )
    lengths = []
    for file in files:
        with _open(file) as arrays:
            fields.require(arrays.files, file)
            lengths.append(len(_array(arrays, fields.action, file)))
    ends = np.cumsum(lengths, dtype=np.int64)
    size = spec.image_size
    video = {camera: np.empty((ends[-1], size, size, 3), dtype=np.uint8) for camera in fields.video}
    action = np.empty((ends[-1], spec.action_dim), dtype=np.float32)
    state = {name: np.empty((ends[-1], spec.state_dims[name]), dtype=np.float32) for name in fields.state}
    for file, end, length in zip(files, ends, lengths, strict=True):
        rows = slice(end - length, end)
        with _open(file) as arrays:
            for camera, field in fields.video.items():
                frames = _array(arrays, field, file)
                if frames.shape != (length, size, size, 3):
                    raise ValueError(
                        f"'{field}' in {file} is {list(frames.shape)}, expected [{length}, {size}, {size}, 3]; "
                        "delete this file and run uva demos again."
                    )
                video[camera][rows] = frames
            action[rows] = columns(_array(arrays, fields.action, file), spec.action_dim, fields.action, file)
            for name, field in fields.state.items():
                state[name][rows] = columns(_array(arrays, field, file), spec.state_dims[name], field, file)
    return EpisodeStore(video, action, state, ends)


def _open(file: Path) -> np.lib.npyio.NpzFile:
    try:
        arrays = np.load(file, allow_pickle=False)
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise _damaged(file, error) from error
    if not isinstance(arrays, np.lib.npyio.NpzFile):
        raise ValueError(f"{file} is a single array, expected an npz file; delete it and run uva demos again.")
    return arrays


def _array(arrays: np.lib.npyio.NpzFile, name: str, file: Path) -> NDArray[Any]:
    try:
        array: NDArray[Any] = arrays[name]
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise _damaged(file, error) from error
    return array


def _damaged(file: Path, error: Exception) -> ValueError:
    return ValueError(f"{file} is damaged ({error}), expected a whole npz file; delete it and run uva demos again.")
