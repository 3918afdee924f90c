"""Read Diffusion Policy's replay buffer: zarr with ``data/<field>`` of one length, as folder or .zip, format 2 or 3.

Instructions are read from ``meta/instructions``, one sentence per episode, which is ours, or else from CLIP's tokens,
as UVA's LIBERO caches have them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from uva_lightning.datamodules.faults import Broken, Faults
from uva_lightning.datamodules.fields import Fields, columns
from uva_lightning.datamodules.frames import IN_MEMORY_BYTES, Frames, chosen
from uva_lightning.datamodules.instructions import from_clip_tokens
from uva_lightning.datamodules.store import EpisodeStore, hash_of
from uva_lightning.datamodules.zarr_frames import ZarrFrames, codec_named, open_store
from uva_lightning.types import DataSpec

ENDS, INSTRUCTIONS = "episode_ends", "instructions"

Numbers = NDArray[np.float32]
Spans = list[tuple[int, int, int]]
"""Number, first and last exclusive step of episodes."""


def matches(path: Path) -> bool:
    """Tell whether a path looks like a replay buffer."""
    if path.is_dir():
        return any((path / name).exists() for name in (".zgroup", "zarr.json", f"meta/{ENDS}"))
    return path.suffix == ".zip"


def read(path: Path, fields: Fields, spec: DataSpec, faults: Faults) -> EpisodeStore:
    """Read the numbers of all episodes, and their pictures too where these are few; else they are read when asked for.

    Raises:
        Broken: An episode is damaged and ``faults`` says to stop, or nothing can be made of the whole file.
        ImportError: zarr or a package that decodes the pictures is not installed.
        ValueError: The group lacks a field or has one of another kind.
    """
    store: Any = open_store(path)
    try:
        root = _group(store, path)
        keys = set(_members(root, "data", path))
        fields.require(keys, path)
        if ENDS not in _members(root, "meta", path):
            raise Broken(
                f"{path} lacks meta/{ENDS}: found data/ with {', '.join(sorted(keys))}, expected both; copy the file "
                "again, or write the exclusive end of each episode there."
            )
        ends = _ends(root[f"meta/{ENDS}"], path)
        _refuse_mixed_lengths(root, fields, path)
        spans = _whole(ends, int(root[f"data/{fields.action}"].shape[0]), path, faults)
        told = _instructions(root, fields.instructions, ends)
        numbers = _numbers(root, fields, spec, path)
        spans = _finite(numbers, spans, path, faults)
    finally:
        store.close()
    frames = {camera: ZarrFrames(path, f"data/{field}", ends) for camera, field in fields.video.items()}
    video, spans = _pictures(frames, spans, faults)
    if not spans:
        raise Broken(f"{path} has no whole episode, expected at least one; copy the file again.")
    return _store(path, video, numbers, spans, told)


def field_names(path: Path) -> set[str]:
    """Name what ``data/`` holds."""
    store = open_store(path)
    try:
        return set(_members(_group(store, path), "data", path))
    finally:
        store.close()


def _store(
    path: Path,
    video: Mapping[str, Frames],
    numbers: Mapping[str, Numbers],
    spans: Spans,
    told: Sequence[str] | None,
) -> EpisodeStore:
    """Put together the episodes that are left."""
    lengths = [end - begin for _, begin, end in spans]
    rows = np.concatenate([np.arange(begin, end) for _, begin, end in spans])
    if len(rows) < len(numbers[""]):  # else there is nothing to copy
        video = {camera: chosen(frames, rows) for camera, frames in video.items()}
    return EpisodeStore(
        video,
        numbers[""][rows],
        {name: values[rows] for name, values in numbers.items() if name},
        np.cumsum(lengths),
        None if told is None else [told[number] for number, _, _ in spans],
        names=[f"{path.name}: episode {number}" for number, _, _ in spans],
        identity=None if all(isinstance(frames, np.ndarray) for frames in video.values()) else _identity(path),
    )


def _identity(path: Path) -> str:
    """Hash names, sizes and times of the files."""
    files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
    facts = ((file, file.stat()) for file in files)
    return hash_of(
        *((file.relative_to(path.parent).as_posix(), stat.st_size, stat.st_mtime_ns) for file, stat in facts)
    )


def _ends(array: Any, path: Path) -> NDArray[np.int64]:
    """Read the exclusive ends of the episodes.

    Raises:
        Broken: They are no whole numbers, or do not rise.
    """
    if array.ndim != 1 or array.dtype.kind not in "ui":
        raise Broken(
            f"meta/{ENDS} in {path} is {array.dtype}{list(array.shape)}, expected whole numbers [episodes], the "
            "exclusive end of each episode; write them again."
        )
    ends = np.asarray(array[:], dtype=np.int64)
    falls = np.flatnonzero(np.diff(ends, prepend=0) < 0)
    if not len(ends) or len(falls):
        what = f"falls to {ends[falls[0]]} at episode {falls[0]}" if len(falls) else "is empty"
        raise Broken(f"meta/{ENDS} in {path} {what}, expected exclusive ends that rise; write them again.")
    return ends


def _refuse_mixed_lengths(root: Any, fields: Fields, path: Path) -> None:
    lengths = {name: int(root[f"data/{name}"].shape[0]) for name in sorted(fields.names())}
    if len(set(lengths.values())) > 1:
        listed = ", ".join(f"'{name}' {steps}" for name, steps in lengths.items())
        raise Broken(
            f"The fields in {path} have different numbers of steps ({listed}), expected the same for all; it may not "
            "have been written fully, so copy or convert it again."
        )


def _whole(ends: NDArray[np.int64], steps: int, path: Path, faults: Faults) -> Spans:
    """Give the episodes that have steps and lie within the data."""
    if ends[-1] < steps:
        raise Broken(
            f"{path} has {steps} steps, but its last episode ends at {ends[-1]}, expected the same; the recording of "
            f"the last episode was cut off: add its end, or cut the fields to {ends[-1]} steps."
        )
    spans: Spans = []
    for number, (begin, end) in enumerate(zip([0, *ends[:-1].tolist()], ends.tolist(), strict=True)):
        if begin == end:
            faults.add(
                Broken(
                    f"Episode {number} in {path} is empty (it ends at step {end}, as the one before), expected steps; "
                    f"remove its entry from meta/{ENDS}, or leave it out with data.reading.on_error=skip."
                )
            )
        elif end > steps:
            faults.add(
                Broken(
                    f"Episode {number} in {path} ends at step {end}, but there are {steps} steps; the file is cut "
                    "off, so copy it again, or leave such episodes out with data.reading.on_error=skip."
                )
            )
        else:
            spans.append((number, begin, end))
    return spans


def _numbers(root: Any, fields: Fields, spec: DataSpec, path: Path) -> dict[str, Numbers]:
    """Read the actions, under the empty name, and the states."""
    wanted = {"": fields.action, **fields.state}
    numbers: dict[str, Numbers] = {}
    for name, field in wanted.items():
        array = root[f"data/{field}"]
        if array.dtype.kind not in "uif":
            raise Broken(f"'{field}' in {path} is {array.dtype}, expected numbers; convert it.")
        try:
            values = array[:]
        except Exception as error:  # whatever the codec or the zip file raises
            raise Broken(
                f"'{field}' in {path} cannot be decoded ({type(error).__name__}: {error}), expected the numbers of "
                "all steps; copy the file again."
            ) from error
        width = spec.state_dims[name] if name else int(np.prod(array.shape[1:]))
        numbers[name] = columns(values, width, field, path)
    return numbers


def _finite(numbers: Mapping[str, Numbers], spans: Spans, path: Path, faults: Faults) -> Spans:
    """Leave out episodes with NaN or infinity."""
    bad: dict[str, NDArray[np.bool_]] = {
        name: np.logical_not(np.isfinite(values).all(axis=1)) for name, values in numbers.items()
    }
    kept: Spans = []
    for number, begin, end in spans:
        worst = {name or "action": int(rows[begin:end].argmax()) for name, rows in bad.items() if rows[begin:end].any()}
        if not worst:
            kept.append((number, begin, end))
            continue
        name, step = next(iter(worst.items()))
        faults.add(
            Broken(
                f"'{name}' in {path} is not finite in episode {number}, first at its step {step}, expected finite "
                "numbers; repair it, or leave such episodes out with data.reading.on_error=skip."
            )
        )
    return kept


def _pictures(frames: Mapping[str, ZarrFrames], spans: Spans, faults: Faults) -> tuple[Mapping[str, Frames], Spans]:
    """Read the pictures where they are few, and leave out episodes of which some are damaged."""
    if sum(pictures.nbytes for pictures in frames.values()) > IN_MEMORY_BYTES:
        return frames, spans
    loaded = {camera: pictures.load() for camera, pictures in frames.items()}
    damaged: dict[int, Broken] = {}
    for _, found in reversed(loaded.values()):
        damaged |= found
    for number, _, _ in spans:
        if number in damaged:
            faults.add(damaged[number])
    video = {camera: pictures for camera, (pictures, _) in loaded.items()}
    return video, [span for span in spans if span[0] not in damaged]


def _instructions(root: Any, field: str | None, ends: NDArray[np.int64]) -> list[str] | None:
    if field is None:
        return None
    if INSTRUCTIONS in root["meta"]:
        return [str(sentence) for sentence in root[f"meta/{INSTRUCTIONS}"][:]]
    if field not in root["data"]:
        return None
    last = int(root[f"data/{field}"].shape[0]) - 1
    begins = np.minimum(np.concatenate([[0], ends[:-1]]), last)
    return from_clip_tokens(np.stack([root[f"data/{field}"][int(begin)][0] for begin in begins]))


def _group(store: Any, path: Path) -> Any:
    import zarr

    try:
        return zarr.open_group(store, mode="r")
    except Exception as error:
        raise ValueError(
            f"{path} is no zarr group ({type(error).__name__}: {error}), expected a replay buffer with data/ and meta/."
        ) from error


def _members(root: Any, name: str, path: Path) -> list[str]:
    with codec_named(path):
        return [key for key, _ in root[name].members()] if name in root else []
