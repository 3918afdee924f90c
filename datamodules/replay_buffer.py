"""Read Diffusion Policy's replay buffer: zarr format 2 with ``data/<field>`` of one length, as folder or .zip.

Instructions are read from ``meta/instructions``, one sentence per episode, which is ours, or else from CLIP's tokens,
as UVA's LIBERO caches have them.
"""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from uva_lightning.datamodules.faults import Faults
from uva_lightning.datamodules.fields import Fields, columns
from uva_lightning.datamodules.instructions import from_clip_tokens
from uva_lightning.datamodules.store import EpisodeStore
from uva_lightning.types import DataSpec

ENDS, INSTRUCTIONS = "episode_ends", "instructions"
BLOCK = 64
"""Pictures read at a time, where a chunk holds fewer."""


def matches(path: Path) -> bool:
    """Tell whether a path looks like a replay buffer."""
    if path.is_dir():
        return any((path / name).exists() for name in (".zgroup", "zarr.json", f"meta/{ENDS}"))
    return path.suffix == ".zip"


def read(path: Path, fields: Fields, spec: DataSpec, faults: Faults) -> EpisodeStore:
    """Read all episodes; pictures chunk by chunk, as u8 whether they are stored as u8 or as floats from 0 to 255.

    Raises:
        ImportError: zarr is not installed.
        ValueError: The group lacks a field or holds pictures in another range.
    """
    try:
        import zarr
    except ImportError as error:
        raise ImportError(
            f"Reading {path} needs zarr 3 ({error}); install it with pip install 'uva_lightning[data]'."
        ) from error
    if path.is_file() and not zipfile.is_zipfile(path):
        raise ValueError(f"{path} is no whole zip file, expected a zipped replay buffer; copy or download it again.")
    store: Any = zarr.storage.ZipStore(path, mode="r") if path.is_file() else zarr.storage.LocalStore(path)
    _register_picture_codecs()
    try:
        root = _group(zarr, store, path)
        keys = set(_members(root, "data"))
        fields.require(keys, path)
        if ENDS not in _members(root, "meta"):
            raise ValueError(f"{path} lacks meta/{ENDS}: found data/ with {', '.join(sorted(keys))}, expected both.")
        ends = np.asarray(root[f"meta/{ENDS}"][:], dtype=np.int64)
        return EpisodeStore(
            {camera: _pictures(root[f"data/{field}"], field, path) for camera, field in fields.video.items()},
            np.asarray(root[f"data/{fields.action}"][:], dtype=np.float32),
            {
                name: columns(root[f"data/{field}"][:], spec.state_dims[name], field, path)
                for name, field in fields.state.items()
            },
            ends,
            _instructions(root, fields.instructions, ends),
        )
    finally:
        store.close()


def _register_picture_codecs() -> None:
    """Let zarr decode pictures stored as JPEG 2000 or XL, if the package for that is there."""
    try:
        from imagecodecs.numcodecs import register_codecs
    except ImportError:
        return
    register_codecs(verbose=False)


def _instructions(root: Any, field: str | None, ends: NDArray[np.int64]) -> list[str] | None:
    if field is None:
        return None
    if INSTRUCTIONS in _members(root, "meta"):
        return [str(sentence) for sentence in root[f"meta/{INSTRUCTIONS}"][:]]
    if field not in _members(root, "data"):
        return None
    begins = np.concatenate([[0], ends[:-1]])
    return from_clip_tokens(np.stack([root[f"data/{field}"][int(begin)][0] for begin in begins]))


def _group(zarr: Any, store: Any, path: Path) -> Any:
    try:
        return zarr.open_group(store, mode="r")
    except Exception as error:
        raise ValueError(
            f"{path} is no zarr group ({type(error).__name__}: {error}), expected a replay buffer with data/ and meta/."
        ) from error


def _members(root: Any, name: str) -> list[str]:
    try:
        return [key for key, _ in root[name].members()] if name in root else []
    except Exception as error:
        if "imagecodecs" not in str(error):
            raise
        raise ImportError(
            f"The pictures are stored in a format that needs imagecodecs ({error}); pip install 'uva_lightning[data]'."
        ) from error


def _pictures(array: Any, field: str, path: Path) -> NDArray[np.uint8]:
    """Read u8[n, H, W, 3] without ever holding all of it as floats, which would take four times the memory."""
    if array.ndim != 4 or array.shape[-1] != 3:
        raise ValueError(f"'{field}' in {path} has the shape {list(array.shape)}, expected [n, H, W, 3].")
    pictures = np.empty(array.shape, dtype=np.uint8)
    chunk = int(array.chunks[0])
    block = chunk * max(1, BLOCK // chunk)
    for first in range(0, len(pictures), block):
        values = array[first : first + block]
        if values.dtype != np.uint8:
            low, high = float(values.min()), float(values.max())
            if not (low >= 0 and 1 < high <= 255):  # also catches NaN
                raise ValueError(
                    f"'{field}' in {path} has values from {low:g} to {high:g} in steps {first} to "
                    f"{first + len(values) - 1}, expected 0 to 255; scale the pictures in the dataset."
                )
            values = np.rint(values)
        pictures[first : first + block] = values
    return pictures
