"""Find out in which layout a dataset lies on disk, and read it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from uva_lightning.datamodules import demos, hdf5, lerobot, replay_buffer
from uva_lightning.datamodules.faults import Faults
from uva_lightning.datamodules.fields import Fields
from uva_lightning.datamodules.store import EpisodeStore
from uva_lightning.types import DataSpec


@dataclass(frozen=True)
class Layout:
    """A layout on disk: what it looks like, how to know it and how to read it."""

    looks: str
    matches: Callable[[Path], bool]
    read: Callable[[Path, Fields, DataSpec, Faults], EpisodeStore]


LAYOUTS: dict[str, Layout] = {
    "demos": Layout("folder of episode_000000.npz with meta.json, from 'uva demos'", demos.matches, demos.read),
    "hdf5": Layout("robomimic's or LIBERO's HDF5: one file or a folder of them", hdf5.matches, hdf5.read),
    "lerobot": Layout(
        "LeRobot v2.x or v3.0: folder with meta/info.json, data/ and videos/", lerobot.matches, lerobot.read
    ),
    "replay_buffer": Layout(
        "Diffusion Policy replay buffer: zarr folder or .zip with data/ and meta/episode_ends",
        replay_buffer.matches,
        replay_buffer.read,
    ),
}
"""Known layouts by name; a datamodule says for each what its fields are called there."""


def read_episodes(
    path: Path, fields: Mapping[str, Fields], spec: DataSpec, faults: Faults | None = None
) -> EpisodeStore:
    """Read a dataset in whichever layout it lies.

    Args:
        path: Folder or file.
        fields: Names of the fields, for each layout in which this dataset exists.
        spec: Facts of the dataset; a state entry takes the first columns of its field, as many as the facts say.
        faults: Takes what is broken; the first fault stops if not given.

    Raises:
        FileNotFoundError: There is nothing at the path.
        ValueError: No known layout, or its content is not as expected.
        ImportError: A package that the layout needs is missing.
    """
    if not path.exists():
        ours = "record one with: uva demos pusht --out" if "demos" in fields else "try without: --data.generate"
        raise FileNotFoundError(
            f"There is no dataset at {path}; set data.path to one, or {ours} "
            f"{path if 'demos' in fields else 'RandomEpisodes'}"
        )
    for name, names in fields.items():
        if LAYOUTS[name].matches(path):
            return LAYOUTS[name].read(path, names.only(spec.cameras), spec, faults or Faults())
    inside = sorted(entry.name for entry in path.iterdir())[:8] if path.is_dir() else []
    known = "; ".join(LAYOUTS[name].looks for name in fields)
    raise ValueError(
        f"{path} is in no known layout (it holds {', '.join(inside) or 'nothing readable'}), expected one of: {known}."
    )
