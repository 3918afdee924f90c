"""Write one shard: a tar in WebDataset's layout, the same bytes from the same episodes."""

from __future__ import annotations

import io
import json
import tarfile
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from webdataset import TarWriter

from uva_lightning.datamodules.faults import Broken, Faults
from uva_lightning.datamodules.shards.files import digest, written
from uva_lightning.datamodules.shards.index import Episode, Member, Shard
from uva_lightning.datamodules.store import EpisodeStore

OWNER, MODE = "uva", 0o644
Tick = Callable[[int], object]


class Sampler(ABC):
    """Makes what a shard holds of an episode besides its numbers; pickled, to be sent to other processes."""

    @abstractmethod
    def open(self, device: str) -> EpisodeStore:
        """Get ready to work on a device, once in each process, and give the episodes."""

    @abstractmethod
    def members(self, episode: int, tick: Tick) -> dict[str, bytes]:
        """Make the files of an episode.

        Args:
            episode: Its number.
            tick: Told how many frames are done.

        Raises:
            Broken: The episode cannot be read.
        """

    def text(self, episode: int) -> NDArray[np.float32] | None:
        """Give the vector of the instruction, f32[w], where there is one."""
        return None


def shard_name(number: int) -> str:
    """Name a shard."""
    return f"shard-{number:06d}.tar"


def write_shard(path: Path, episodes: Sequence[int], sampler: Sampler, store: EpisodeStore, tick: Tick) -> Shard:
    """Write the shard of some episodes.

    Args:
        path: The tar.
        episodes: Their numbers.
        sampler: Makes their files.
        store: Holds their numbers.
        tick: Told how many frames are done.

    Returns:
        What the index says of it.

    Raises:
        Broken: An episode cannot be read.
        OSError: It cannot be written.
    """
    with written(path) as part:
        with part.open("wb") as file, TarWriter(file, OWNER, OWNER, MODE, encoder=False, mtime=0.0) as tar:
            for episode in episodes:
                about = {"instruction": _entry(store.instructions, episode), "name": _entry(store.names, episode)}
                files = {**sampler.members(episode, tick), **_numbers(store, episode), "json": _json(about)}
                if (vector := sampler.text(episode)) is not None:
                    files["text.npy"] = npy(vector)
                tar.write({"__key__": f"episode-{episode:08d}", **files})
        size, sum_, members = part.stat().st_size, digest(part), _members(part)
    entries = tuple(
        Episode(
            episode,
            int(store.lengths[episode]),
            _entry(store.names, episode),
            _entry(store.instructions, episode),
            members[f"episode-{episode:08d}"],
        )
        for episode in episodes
    )
    return Shard(path.name, size, sum_, entries)


def whole_episodes(episodes: Sequence[int], store: EpisodeStore, faults: Faults) -> list[int]:
    """Leave out, where the user says so, the episodes with pictures that cannot be read."""
    if not faults.skips:
        return list(episodes)
    kept = []
    for episode in episodes:
        try:
            for frames in store.video.values():
                for first in range(int(store.begins[episode]), int(store.ends[episode]), 64):
                    frames[first : min(first + 64, int(store.ends[episode]))]
        except Broken as fault:
            faults.add(fault)
        else:
            kept.append(episode)
    return kept


def npy(values: NDArray[Any]) -> bytes:
    """Write an array in NumPy's format."""
    file = io.BytesIO()
    np.save(file, np.ascontiguousarray(values), allow_pickle=False)
    return file.getvalue()


def shard_json(shard: Shard) -> str:
    """Write what the index says of a shard."""
    return json.dumps(asdict(shard), sort_keys=True) + "\n"


def _numbers(store: EpisodeStore, episode: int) -> dict[str, bytes]:
    span = slice(int(store.begins[episode]), int(store.ends[episode]))
    named = {f"state.{name}.npy": npy(values[span]) for name, values in store.state.items()}
    return named if store.action is None else {"action.npy": npy(store.action[span]), **named}


def _json(content: dict[str, Any]) -> bytes:
    return (json.dumps(content, sort_keys=True) + "\n").encode()


def _entry(values: Sequence[str] | None, episode: int) -> str | None:
    return None if values is None else str(values[episode])


def _members(path: Path) -> dict[str, dict[str, Member]]:
    """Find the files of each episode in a tar."""
    found: dict[str, dict[str, Member]] = {}
    with tarfile.open(path, "r:") as tar, path.open("rb") as file:
        for entry in tar:
            key, _, name = entry.name.partition(".")
            file.seek(entry.offset_data)
            found.setdefault(key, {})[name] = Member(entry.offset_data, entry.size, zlib.crc32(file.read(entry.size)))
    return found
