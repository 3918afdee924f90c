"""Read shards: numbers at once, latents and pictures when they are asked for."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor

from uva_lightning.datamodules.faults import Broken, Faults
from uva_lightning.datamodules.frames import Frames
from uva_lightning.datamodules.latents import Latents
from uva_lightning.datamodules.order import Order, Sharded, Shuffled
from uva_lightning.datamodules.reading import Reading, Streaming
from uva_lightning.datamodules.shards.index import INDEX, NUMBERS, PLAN, TOKENIZER, Episode, Index
from uva_lightning.datamodules.shards.members import Members, NoFrames, PackedFrames, ShardLatents
from uva_lightning.datamodules.shards.places import Place, place_of
from uva_lightning.datamodules.store import EpisodeStore, hash_of
from uva_lightning.datamodules.windows import Index as Numbers
from uva_lightning.datamodules.windows import Windows
from uva_lightning.types import DataSpec

if TYPE_CHECKING:
    from uva_lightning.datamodules.base import RobotDataModule


def matches(location: str) -> bool:
    """Whether shards lie there, or have begun to; anything with ``://`` must be shards."""
    folder = Path(location)
    return "://" in location or (folder / INDEX).is_file() or (folder / PLAN).is_file()


def opened(location: str, reading: Reading, faults: Faults) -> Shards | None:
    """Open shards, and refuse those that are not whole.

    Args:
        location: A folder, or a URL of fsspec: https://, s3://, file:// and others.
        reading: Which episodes are taken, and how remote shards are fetched.
        faults: Takes the episodes that local shards lack.

    Returns:
        The shards; None where there are none.

    Raises:
        ValueError: The index is missing or damaged.
        Broken: A shard is cut off or missing, and the user did not say to skip that.
    """
    if not matches(location):
        return None
    place = place_of(location, reading.streaming)
    if "://" not in location and not (Path(location) / INDEX).is_file():
        done = len(list(Path(location).glob("*.tar.json")))
        raise ValueError(
            f"{location} holds {done} shards but no {INDEX}, expected all of them: writing was interrupted; run the "
            "same command again, it goes on from there."
        )
    index = Index.load(place.text(INDEX), location)
    place.expect({**index.files, **{shard.name: (shard.size, shard.hash) for shard in index.shards}})
    tensors = _tensors(place, NUMBERS, index)
    found = Shards(location, place, index, tensors, _table(index))
    chosen = reading.chosen(len(found.rows))
    found = found if chosen is None else found.select(chosen)
    lost = {row for row in range(len(found.rows)) if (fault := found.fault(row)) is not None and _noted(faults, fault)}
    whole = [row for row in range(len(found.rows)) if row not in lost]
    if not whole:
        faults.report(location, 0)
    return found.select(whole)


def stored_facts(location: str, reading: Reading | None) -> DataSpec | None:
    """Give the facts of the data of which shards were made, for data that describe themselves; None where none are."""
    if not matches(location):
        return None
    text = place_of(location, None if reading is None else reading.streaming).text(INDEX)
    stored, known = Index.load(text, location).origin.data, {fact.name for fact in fields(DataSpec)}
    about = {name: value for name, value in stored.items() if name in known}
    return DataSpec(**{**about, "cameras": tuple(about["cameras"])})


@dataclass(frozen=True)
class Row:
    """An episode, the number of its shard, and where its steps begin in the numbers of all."""

    episode: Episode
    shard: int
    begin: int


@dataclass(frozen=True)
class Shards:
    """Shards that are open for reading.

    Args:
        location: As the user named them.
        place: Where their files are.
        index: All about them.
        tensors: Numbers of all their episodes.
        rows: The episodes that are read.
    """

    location: str
    place: Place
    index: Index
    tensors: Mapping[str, Tensor]
    rows: tuple[Row, ...]

    @property
    def has_latents(self) -> bool:
        """Whether they hold latents, or pictures."""
        return self.index.origin.kind == "latents"

    def select(self, rows: Sequence[int]) -> Shards:
        """Take some episodes, in the given order."""
        if unknown := [row for row in rows if not 0 <= row < len(self.rows)]:
            raise ValueError(
                f"There is no episode {unknown[0]} in {self.location}, expected 0 to {len(self.rows) - 1}; choose "
                "others with data.reading.episodes."
            )
        return replace(self, rows=tuple(self.rows[row] for row in rows))

    def fault(self, row: int) -> Broken | None:
        """Say what keeps an episode from being read, as far as that shows from the sizes of local files."""
        shard, episode = self.index.shards[self.rows[row].shard], self.rows[row].episode
        there = self.place.size(shard.name)
        last = max(member.offset + member.size for member in episode.members.values())
        if there is None or there == shard.size or (last <= there < shard.size):
            return None
        what = "is missing" if there < 0 else f"has {there:,} bytes, expected {shard.size:,}: it is cut off"
        return Broken(
            f"{self.location}/{shard.name} {what}, so that {episode.label} cannot be read; "
            "copy it again, or delete the folder and make it anew."
        )

    def check(self, data: RobotDataModule) -> None:
        """Compare with what a data class expects.

        Raises:
            ValueError: These are shards of other data.
        """
        from uva_lightning.datamodules.shards.samplers import facts_of

        found, wanted = dict(self.index.origin.data), json.loads(json.dumps(facts_of(data)))
        told = f"{self.location} holds shards of {found.pop('class')}"
        name, cameras = wanted.pop("class"), wanted.pop("cameras")
        if lacking := [camera for camera in cameras if camera not in found["cameras"]]:
            raise ValueError(
                f"{told} with the cameras {found['cameras']}, {name} expects {lacking[0]} too; make them again with it."
            )
        if wrong := [key for key, value in wanted.items() if found.get(key) != value]:
            key = wrong[0]
            raise ValueError(
                f"{told} with {key} = {found.get(key)}, {name} expects {wanted[key]}; point data.path to shards of "
                "this data, or make them again."
            )

    def store(self, cameras: Sequence[str]) -> EpisodeStore:
        """Give the episodes; where the shards hold latents, their pictures cannot be read."""
        origin, lengths = self.index.origin, np.array([row.episode.length for row in self.rows], dtype=np.int64)
        steps = np.concatenate([np.arange(row.begin, row.begin + row.episode.length) for row in self.rows])
        numbers = {name: self.tensors[name][torch.from_numpy(steps)].numpy() for name in self.tensors if name != "text"}
        shape = (int(lengths.sum()), *(int(origin.data["image_size"]),) * 2, 3)
        episodes = [row.episode for row in self.rows]
        spoken = [episode.instruction for episode in episodes if episode.instruction is not None]
        names = [episode.name or f"episode {episode.number} of the source" for episode in episodes]
        video: dict[str, Frames] = {
            camera: NoFrames(shape, self.location)
            if self.has_latents
            else PackedFrames(self.members(f"pictures.{camera}.bin"), self.members(f"starts.{camera}.npy"), shape)
            for camera in cameras
        }
        return EpisodeStore(
            video,
            numbers.pop("action", None),
            {name.removeprefix("state."): values for name, values in numbers.items()},
            np.cumsum(lengths),
            spoken if len(spoken) == len(episodes) else None,
            names,
            hash_of(self.index.files, [shard.hash for shard in self.index.shards], [e.number for e in episodes]),
        )

    def latents_for(self, data: RobotDataModule, fingerprint: str) -> dict[str, Latents]:
        """Give the latents of each camera, in the variants that a run wants.

        Args:
            data: Says which.
            fingerprint: Of the run's tokenizer.

        Raises:
            ValueError: They are of another tokenizer, or lack variants.
        """
        self._refuse_other(fingerprint, data)
        origin, wanted = self.index.origin, data.variants
        mirrors, draws = range(1 if wanted.symmetry is None else 2), range(1 + wanted.drawn)
        kept = tuple(mirror * (1 + origin.drawn) + draw for mirror in mirrors for draw in draws)
        shape = (origin.count, sum(row.episode.length for row in self.rows), *origin.moments)
        files = {camera: self.members(f"latents.{camera}.npy") for camera in data.spec.cameras}
        return {camera: ShardLatents(members, shape, kept) for camera, members in files.items()}

    def members(self, name: str) -> Members:
        """Give one file of each episode."""
        shards = self.index.shards
        return Members(
            self.place,
            [shards[row.shard].name for row in self.rows],
            [row.episode.members[name] for row in self.rows],
            np.cumsum([row.episode.length for row in self.rows]),
            [row.episode.label for row in self.rows],
        )

    def shard_of(self, episodes: Numbers) -> Numbers:
        """Give the number of the shard of each episode."""
        shards: Numbers = np.array([row.shard for row in self.rows], dtype=np.int64)[episodes]
        return shards

    def follow(self, order: Order, streaming: Streaming | None) -> Callable[[int, int, int], None] | None:
        """Give what fetches remote shards ahead of the batches it is told of."""
        if not self.place.remote or not isinstance(order, Sharded):
            return None
        ahead, every = (streaming or Streaming()).ahead, max(1, order.buffer * order.lanes // order.batch_size // 8)
        shards, place, last = self.index.shards, self.place, [-every]

        def announce(number: int, first: int, count: int) -> None:
            if not 0 <= number - last[0] < every:
                last[0] = number
                place.soon([shards[shard].name for shard in order.needed(number, first, count, ahead)])

        return announce

    def vectors(self, data: RobotDataModule) -> Tensor | None:
        """Give the vectors of the instructions, f32[e, w], where the shards have them.

        Raises:
            ValueError: Another class made them than the one in the config.
        """
        made = self.index.origin.text
        if data.text is None or made is None:
            return None
        wanted = {"class": type(data.text).__name__, "width": data.text.width}
        if made != wanted:
            raise ValueError(
                f"{self.location} has vectors of instructions by {made['class']}, width {made['width']}, but "
                f"data.text is {wanted['class']}, width {wanted['width']}; use the same, or make the shards again."
            )
        place = {row.episode.number: at for at, row in enumerate(_table(self.index))}
        return self.tensors["text"][[place[row.episode.number] for row in self.rows]]

    def tokenizer(self) -> dict[str, Tensor] | None:
        """Give what the tokenizer had learnt before it encoded the pictures, where it learns anything."""
        return _tensors(self.place, TOKENIZER, self.index) if TOKENIZER in self.index.files else None

    def _refuse_other(self, fingerprint: str, data: RobotDataModule) -> None:
        about = self.index.origin.tokenizer or {}
        if about["fingerprint"] != fingerprint:
            raise ValueError(
                f"{self.location} holds latents of the tokenizer {about['class']} with the fingerprint "
                f"{about['fingerprint']}, this run has {fingerprint}; set model.tokenizer as in the cache, or make a "
                "cache with this one."
            )
        if data.encoding.online:
            raise ValueError(
                f"{self.location} holds latents only, but this run encodes pictures in every step; leave "
                "data.encoding.online out (with data.augment also set data.encoding.variants), or point data.path to "
                "the pictures."
            )
        had, wanted = self.index.origin.variants, data.variants.facts()
        for what, value in wanted.items():
            if value and had[what] != value:
                raise ValueError(
                    f"{self.location} holds latents with {what} = {had[what]} of their variants, this run has {value}; "
                    "set data.symmetry, data.augment, data.encoding.variants and data.seed as in the cache, or make a "
                    "cache with these."
                )


def order_of(
    samples: int, windows: Windows, batch_size: int, seed: int, shards: Shards | None, streaming: Streaming | None
) -> Order:
    """Decide in which order samples are trained on: shard by shard where shards are streamed.

    Args:
        samples: Their number: all windows, once or more often.
        windows: Of training.
        batch_size: Samples of a batch over all processes.
        seed: Seed of the order.
        shards: Where the data lie in shards.
        streaming: How these are read.
    """
    if shards is None or not (shards.place.remote or streaming):
        return Shuffled(samples, batch_size, seed)
    streaming = streaming or Streaming()
    where = shards.shard_of(windows.episode_index(np.arange(samples) % len(windows)))
    return Sharded(where, batch_size, seed, streaming.lanes_for(batch_size), streaming.buffer)


def _table(index: Index) -> tuple[Row, ...]:
    rows, begin = [], 0
    for number, shard in enumerate(index.shards):
        for episode in shard.episodes:
            rows.append(Row(episode, number, begin))
            begin += episode.length
    return tuple(rows)


def _noted(faults: Faults, fault: Broken) -> bool:
    faults.add(fault)
    return True


def _tensors(place: Place, name: str, index: Index) -> dict[str, Tensor]:
    try:
        return load(place.content(name))
    except SafetensorError as error:
        raise ValueError(f"{place.location}/{name} is damaged ({error}), expected numbers; copy it again.") from error
