"""Files of episodes within shards, mapped into memory and checked when they are first touched."""

from __future__ import annotations

import io
import mmap
import zlib
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from uva_lightning.datamodules.faults import Broken
from uva_lightning.datamodules.frames import LazyFrames, Pictures, Steps
from uva_lightning.datamodules.reopening import Reopening
from uva_lightning.datamodules.shards.index import Member
from uva_lightning.datamodules.shards.places import Place
from uva_lightning.datamodules.windows import Index

OPEN_SHARDS = 128
"""Shards mapped at a time; a map also keeps the disk space of a shard that has been deleted meanwhile."""
HEADER = 4096
"""Bytes in which the header of an array ends."""


class Members(Reopening):
    """One file of every episode, each checked once in every process.

    Args:
        place: Where the shards are.
        shards: Shard of each episode.
        members: Where its file lies in the shard.
        ends: i64[e], exclusive end of each episode in steps.
        names: What messages call it.
    """

    def __init__(
        self, place: Place, shards: Sequence[str], members: Sequence[Member], ends: Index, names: Sequence[str]
    ) -> None:
        self.place, self.shards, self.members, self.ends, self.names = place, shards, members, ends, names
        self._forget()

    def _forget(self) -> None:
        self._maps: OrderedDict[str, mmap.mmap] = OrderedDict()
        self._heads: dict[int, tuple[np.dtype[Any], tuple[int, ...], int]] = {}
        self._sound: set[int] = set()

    def begin(self, episode: int) -> int:
        """First step of an episode."""
        return int(self.ends[episode - 1]) if episode else 0

    def bytes(self, episode: int) -> memoryview:
        """Give the file of an episode, without copying it.

        Raises:
            Broken: It is not there, or its content is not what was written.
        """
        member, whole = self.members[episode], self._map(episode)
        content = memoryview(whole)[member.offset : member.offset + member.size]
        if episode not in self._sound:
            if len(content) != member.size or zlib.crc32(content) != member.crc:
                raise self.broken(episode, f"its checksum is {zlib.crc32(content):08x}, expected {member.crc:08x}")
            self._sound.add(episode)
        return content

    def array(self, episode: int) -> NDArray[Any]:
        """Give the array of an episode, without copying it.

        Raises:
            Broken: See ``bytes``.
        """
        content = self.bytes(episode)
        if episode not in self._heads:
            header = io.BytesIO(content[:HEADER])
            np.lib.format.read_magic(header)
            shape, _, dtype = np.lib.format.read_array_header_1_0(header)
            self._heads[episode] = dtype, shape, header.tell()
        dtype, shape, offset = self._heads[episode]
        return np.frombuffer(content, dtype, offset=offset).reshape(shape)

    def broken(self, episode: int, what: str) -> Broken:
        """Say what is wrong with an episode."""
        return Broken(
            f"{self.place.location}/{self.shards[episode]} is damaged in {self.names[episode]}: {what}; copy the shard "
            "again, or set data.reading.on_error=skip."
        )

    def _map(self, episode: int) -> mmap.mmap:
        shard = self.shards[episode]
        if shard in self._maps:
            self._maps.move_to_end(shard)
            return self._maps[shard]
        with self.place.open(shard) as file:
            try:
                self._maps[shard] = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            except ValueError as error:  # an empty file
                raise self.broken(episode, str(error)) from error
        if len(self._maps) > OPEN_SHARDS:
            self._maps.popitem(last=False)
        return self._maps[shard]


class ShardLatents:
    """Latents of a camera, see ``Latents``.

    Args:
        members: f16[v, n, s, m] of every episode.
        shape: Of all episodes together.
        kept: Variants that are shown, in this order.
    """

    def __init__(self, members: Members, shape: tuple[int, ...], kept: tuple[int, ...]) -> None:
        self.members, self.shape = members, (len(kept), *shape[1:])
        self._variants, self._kept = shape[0], np.array(kept)

    def read(self, variant: Tensor, steps: Tensor) -> Tensor:
        """See ``Latents``."""
        index, change = steps.numpy(), self._kept[variant.numpy()]
        owner = np.searchsorted(self.members.ends, index, side="right")
        if (owner != owner[:, :1]).any():  # no window goes beyond an episode, but nothing forbids to ask for such
            flat = self.read(variant.expand(steps.shape).reshape(-1, 1), steps.reshape(-1, 1))
            return flat.reshape(*steps.shape, *self.shape[2:])
        out = np.empty((*index.shape, *self.shape[2:]), dtype=np.float16)
        for row, episode in enumerate(owner[:, 0].tolist()):
            array = self._array(episode)[change[row, 0]]
            array.take(index[row] - self.members.begin(episode), axis=0, out=out[row], mode="clip")
        return torch.from_numpy(out)

    def _array(self, episode: int) -> NDArray[np.float16]:
        array = self.members.array(episode)
        length = int(self.members.ends[episode]) - self.members.begin(episode)
        expected = (self._variants, length, *self.shape[2:])
        if array.shape != expected or array.dtype != np.float16:
            raise self.members.broken(episode, f"it holds {array.dtype}{list(array.shape)}, expected {list(expected)}")
        return array


class PackedFrames(LazyFrames):
    """Pictures of a camera, decoded when they are asked for.

    Args:
        blobs: PNG files of every episode, one behind the other.
        starts: i64[n + 1] of every episode: where each begins, and the end.
        shape: Steps, height, width and 3.
    """

    def __init__(self, blobs: Members, starts: Members, shape: tuple[int, ...]) -> None:
        super().__init__(shape)
        self.blobs, self.starts = blobs, starts

    def _read(self, steps: Steps) -> Pictures:
        pictures = np.empty((len(steps), *self.shape[1:]), dtype=np.uint8)
        for row, episode in enumerate(np.searchsorted(self.blobs.ends, steps, side="right").tolist()):
            at = int(steps[row]) - self.blobs.begin(episode)
            first, last = self.starts.array(episode)[at : at + 2].tolist()
            try:
                with Image.open(io.BytesIO(self.blobs.bytes(episode)[first:last]), formats=["PNG"]) as picture:
                    pictures[row] = np.asarray(picture)
            except (OSError, ValueError) as error:
                raise self.blobs.broken(episode, f"the picture of step {at} cannot be decoded ({error})") from error
        return pictures


class NoFrames(LazyFrames):
    """Pictures that are not there, because shards hold latents alone.

    Args:
        shape: Steps, height, width and 3.
        location: The shards.
    """

    def __init__(self, shape: tuple[int, ...], location: str) -> None:
        super().__init__(shape)
        self.location = location

    def _read(self, steps: Steps) -> Pictures:
        raise ValueError(
            f"{self.location} holds latents and no pictures, but pictures were asked for; point data.path to the data "
            "that it was made of."
        )
