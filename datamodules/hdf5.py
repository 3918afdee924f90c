"""Read robomimic's and LIBERO's HDF5: ``data/demo_<i>`` with actions and ``obs/<name>``, one file or a folder."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from uva_lightning.datamodules.demo_schema import DemoSchema
from uva_lightning.datamodules.faults import Broken, Faults
from uva_lightning.datamodules.fields import Fields, columns
from uva_lightning.datamodules.hdf5_frames import DemoFrames, Piece, h5py_for
from uva_lightning.datamodules.store import EpisodeStore, hash_of
from uva_lightning.types import DataSpec

SUFFIXES = (".hdf5", ".h5")
FILE_NAME, PROBLEM_INFO = "file name", "problem_info"
"""Where instructions come from: UVA's rule, or the attribute of ``data`` that LIBERO's files have."""
FILE_END = "_demo"
UPRIGHT = "opencv"
"""Value of robosuite's ``macros_image_convention`` for pictures whose rows are stored from top to bottom."""

Numbers = NDArray[np.float32]
ActionRule = Callable[[Any, str], Numbers]
"""Makes actions f32[n, a] of a demonstration, an ``h5py.Group``, and the words that name it."""


@dataclass(frozen=True)
class DemoFields(Fields):
    """Names within a demonstration, such as ``obs/agentview_rgb``; ``instructions`` names where they come from.

    Args:
        actions: Makes actions of a demonstration; as stored if not given.
        upside_down: Whether pictures are stored from bottom to top, as OpenGL draws them.
        schema: What else such files hold, for those that are made up.
    """

    actions: ActionRule | None = None
    upside_down: bool = False
    schema: DemoSchema | None = None


class Demo(NamedTuple):
    """One demonstration: its numbers, and where its pictures are."""

    name: str
    action: Numbers
    state: Mapping[str, Numbers]
    pictures: Mapping[str, Piece]
    sizes: Mapping[str, tuple[int, int]]
    instruction: str | None


def matches(path: Path) -> bool:
    """Tell whether a path is an HDF5 file or a folder of them."""
    return bool(files_in(path))


def files_in(path: Path) -> list[Path]:
    """List HDF5 files, sorted by name: the path itself or what lies directly in the folder."""
    if path.is_dir():
        return sorted(file for file in path.iterdir() if file.suffix in SUFFIXES and not file.name.startswith("."))
    return [path] if path.suffix in SUFFIXES and path.is_file() else []


def read(path: Path, fields: Fields, spec: DataSpec, faults: Faults) -> EpisodeStore:
    """Read the numbers of all demonstrations; pictures are read when they are indexed.

    Files are sorted by name and demonstrations by number.

    Raises:
        ImportError: h5py is not installed.
        Broken: A file or demonstration cannot be used, unless ``faults`` collects them.
        ValueError: There is none that can be used.
    """
    files, names = files_in(path), fields if isinstance(fields, DemoFields) else DemoFields(**vars(fields))
    sizes: dict[str, tuple[int, int]] = {}
    demos: list[Demo] = []
    for file in files:
        for demo in _demos(file, names, spec, faults):
            sizes = sizes or dict(demo.sizes)
            if demo.sizes == sizes:
                demos.append(demo)
            else:
                faults.add(
                    Broken(
                        f"{demo.name} has pictures of {dict(demo.sizes)} pixels, {demos[0].name} has {sizes}, "
                        "expected one size; put them into a folder of their own."
                    )
                )
    if not demos:
        faults.report(path, 0)
    return EpisodeStore(
        {camera: DemoFrames([demo.pictures[camera] for demo in demos], sizes[camera]) for camera in names.video},
        np.concatenate([demo.action for demo in demos]),
        {name: np.concatenate([demo.state[name] for demo in demos]) for name in names.state},
        np.cumsum([len(demo.action) for demo in demos], dtype=np.int64),
        None if names.instructions is None else [demo.instruction or "" for demo in demos],
        names=[demo.name for demo in demos],
        identity=hash_of(identity(files), [demo.name for demo in demos]),
    )


def identity(files: Sequence[Path]) -> str:
    """Hash names, sizes and times of change."""
    digest = hashlib.blake2b(digest_size=8)
    for file in files:
        stat = file.stat()
        digest.update(f"{file.name} {stat.st_size} {stat.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def demo_names(group: Any) -> list[str]:
    """Sort the names of demonstrations by number: demo_2 before demo_10."""
    return sorted(group, key=lambda name: [int(part) for part in re.findall(r"\d+", name)])


def _demos(file: Path, names: DemoFields, spec: DataSpec, faults: Faults) -> Iterator[Demo]:
    try:
        content = h5py_for(file).File(file, "r")
    except OSError as error:
        faults.add(Broken(f"{file} is no whole HDF5 file ({error}); copy or download it again."))
        return
    with content:
        data = content.get("data")
        if data is None or not len(data):
            found = ", ".join(content) or "nothing"
            faults.add(Broken(f"{file} has no demonstrations (it holds {found}), expected data/demo_0 and so on."))
            return
        try:
            instruction = _instruction(file, data, names.instructions)
        except Broken as fault:
            faults.add(fault)
            return
        for name in demo_names(data):
            try:
                yield _demo(file, data[name], names, spec, instruction)
            except Broken as fault:
                faults.add(fault)
            except (OSError, KeyError, RuntimeError) as error:  # h5py has one for each part of a damaged file
                faults.add(Broken(f"{file.name}: {name} cannot be read ({error}); copy or download the file again."))


def _demo(file: Path, demo: Any, names: DemoFields, spec: DataSpec, instruction: str | None) -> Demo:
    where = f"{file.name}: {demo.name.rpartition('/')[2]}"
    steps = _steps(demo, names, where)
    for field in names.video.values():
        pictures = demo[field]
        if pictures.dtype != np.uint8 or pictures.ndim != 4 or pictures.shape[-1] != 3:
            found = f"{pictures.dtype}{list(pictures.shape)}"
            raise Broken(f"{where} has {found} as '{field}', expected pictures u8[n, H, W, 3]; convert them.")
    flipped = names.upside_down and demo.parent.attrs.get("macros_image_convention") != UPRIGHT
    action = demo[names.action][:] if names.actions is None else names.actions(demo, where)
    state: dict[str, Numbers] = {}
    for name, field in names.state.items():
        try:
            numbers = columns(demo[field][:], spec.state_dims[name], field, Path(where))
        except ValueError as error:
            raise Broken(f"{error} Name another field.") from error
        state[name] = _finite(numbers, field, where)
    return Demo(
        where,
        _finite(action, names.action, where),
        state,
        {camera: Piece(file, demo[field].name, steps, flipped) for camera, field in names.video.items()},
        {camera: demo[field].shape[1:3] for camera, field in names.video.items()},
        instruction,
    )


def _steps(demo: Any, names: DemoFields, where: str) -> int:
    """Count the steps of a demonstration that has all its fields, of one length."""
    if missing := sorted(name for name in names.names() if name not in demo):
        observed = [f"obs/{name}" for name in demo.get("obs", ())]
        found = ", ".join(sorted([name for name in demo if name != "obs"] + observed))
        raise Broken(f"{where} lacks {', '.join(missing)}: found {found or 'nothing'}; name the fields that it has.")
    lengths = {name: len(demo[name]) for name in sorted(names.names())}
    if len(set(lengths.values())) > 1:
        listed = ", ".join(f"{name} {length}" for name, length in lengths.items())
        raise Broken(f"{where} has fields of different lengths ({listed}), expected one length; repair or remove it.")
    if not lengths[names.action]:
        raise Broken(f"{where} is empty, expected at least one step; remove it.")
    return lengths[names.action]


def _finite(numbers: NDArray[Any], field: str, where: str) -> Numbers:
    numbers = np.asarray(numbers, dtype=np.float32)
    bad = np.flatnonzero(~np.isfinite(numbers.reshape(len(numbers), -1)).all(axis=1))
    if len(bad):
        raise Broken(
            f"{where} has NaN or infinity in '{field}' at {len(bad)} steps, first at {bad[0]}, expected finite "
            "numbers; repair or remove it."
        )
    return numbers


def _instruction(file: Path, data: Any, rule: str | None) -> str | None:
    """Tell what the robot is told in a file: UVA takes its name without ``_demo.hdf5``, with the name of the scene."""
    if rule is None:
        return None
    if rule == FILE_NAME:
        return file.stem.removesuffix(FILE_END).replace("_", " ")
    try:
        return "".join(json.loads(data.attrs[rule])["language_instruction"]).strip()
    except (KeyError, TypeError, ValueError) as error:
        raise Broken(
            f"{file} has no language_instruction in the attribute '{rule}' of data ({error!r}), expected LIBERO's; "
            "take the file's name instead: data.files.instruction=file_name."
        ) from error
