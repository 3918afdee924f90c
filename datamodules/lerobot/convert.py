"""``uva convert lerobot``: any data set as a LeRobot dataset v3.0."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from tqdm.auto import tqdm

from uva_lightning.datamodules.base import RobotDataModule
from uva_lightning.datamodules.faults import Faults
from uva_lightning.datamodules.fields import Fields
from uva_lightning.datamodules.lerobot.films import Compression
from uva_lightning.datamodules.lerobot.reading import read
from uva_lightning.datamodules.lerobot.writing import fields_of, write_dataset
from uva_lightning.datamodules.store import EpisodeStore
from uva_lightning.types import DataSpec
from uva_lightning.whole_files import whole_folder

BLOCK = 64
"""Pictures compared at a time."""
LARGEST = 12.0
"""Mean difference of a picture to the source that is taken for the codec's, of 255."""


@dataclass(frozen=True)
class Difference:
    """How pictures differ from the source, mean over a picture, of 255."""

    mean: float
    largest: float
    pictures: int


def to_lerobot(data: RobotDataModule, out: Path, crf: int = 23, file_mb: int = 200) -> None:
    """Write a data set as a LeRobot dataset v3.0 and compare it with the source.

    Args:
        data: The data set, as in uva fit.
        out: Folder of the new dataset.
        crf: Constant rate factor of the videos; lower is better and larger.
        file_mb: Megabytes after which a new video file begins.
    """
    compression = Compression(crf, file_mb)
    with whole_folder(out) as partial:
        data.prepare_data()
        store, spec = data.store, replace(data.recorded or data.facts, image_size=data.spec.image_size)
        told = write_compared(partial, store, spec, compression, fields_of(store, data.fields.get("lerobot")))
    sys.stdout.write(f"{out}: {told}\n")


def write_compared(
    path: Path, store: EpisodeStore, spec: DataSpec, compression: Compression, fields: Fields | None = None
) -> str:
    """Write episodes, read them back and compare; see ``write_dataset`` and ``compare``.

    Returns:
        What was written and how it differs, for people.
    """
    write_dataset(path, store, spec, compression, fields)
    difference = compare(path, store, spec, fields)
    seconds = store.steps / spec.rate_hz
    return (
        f"{store.episodes} episodes, {store.steps} steps ({seconds / 60:.1f} minutes) at {spec.rate_hz:g} Hz; "
        f"read back: numbers, ends and instructions are equal, {difference.pictures} pictures differ by "
        f"{difference.mean:.2f} of 255 on average, at most {difference.largest:.2f}."
    )


def compare(path: Path, store: EpisodeStore, spec: DataSpec, fields: Fields | None = None) -> Difference:
    """Read a written dataset and compare it with its source.

    Args:
        path: The dataset.
        store: Its source.
        spec: Facts of the source.
        fields: Names of the features; LeRobot's own if not given.

    Raises:
        ValueError: Something differs by more than a codec's loss.
    """
    states = {name: values.shape[1] for name, values in store.state.items()}
    width = spec.action_dim if store.action is None else store.action.shape[1]
    expected = replace(spec, cameras=tuple(store.video), state_dims=states, action_dim=width)
    written = read(path, fields or fields_of(store), expected, Faults())
    told = store.instructions if store.instructions is not None and any(store.instructions) else None
    same = {name: np.array_equal(values, written.numbers()[name]) for name, values in store.numbers().items()}
    same["ends of the episodes"] = np.array_equal(store.ends, written.ends)
    same["instructions"] = (None if told is None else list(told)) == written.instructions
    if other := [what for what, equal in same.items() if not equal]:
        raise ValueError(
            f"{path} differs from the source in {', '.join(other)}, expected equal ones; please report this."
        )
    return _picture_difference(path, store, written)


def _picture_difference(path: Path, store: EpisodeStore, written: EpisodeStore) -> Difference:
    """Compare every picture: an encoder that mixes some up leaves the others as they were."""
    total, largest, count = 0.0, 0.0, 0
    with tqdm(total=store.steps * len(store.video), unit="frame", desc="comparing", mininterval=1) as bar:
        for camera, frames in store.video.items():
            for first in range(0, store.steps, BLOCK):
                one, other = frames[first : first + BLOCK], written.video[camera][first : first + BLOCK]
                off = np.abs(one.astype(np.int16) - other).mean(axis=(1, 2, 3))
                if off.max() > LARGEST:
                    step = first + int(off.argmax())
                    episode = int(np.searchsorted(store.ends, step, side="right"))
                    raise ValueError(
                        f"Picture {step - store.begins[episode]} of '{camera}' in {store.name(episode)} differs by "
                        f"{off.max():.1f} of 255 from the source, expected at most {LARGEST:g}; set a lower --crf."
                    )
                total, largest, count = total + float(off.sum()), max(largest, float(off.max())), count + len(off)
                bar.update(len(off))
    return Difference(total / max(1, count), largest, count)
