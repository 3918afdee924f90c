"""What shards hold of an episode: its latents, or its pictures without loss."""

from __future__ import annotations

import io
from collections.abc import Mapping
from copy import copy
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from uva_lightning.datamodules.faults import Broken
from uva_lightning.datamodules.latent_cache import source_hash
from uva_lightning.datamodules.latents import encode_episode
from uva_lightning.datamodules.shards.build import Job, build
from uva_lightning.datamodules.shards.index import TOKENIZER, Index, Origin
from uva_lightning.datamodules.shards.writer import Sampler, Tick, npy
from uva_lightning.datamodules.store import EpisodeStore
from uva_lightning.model.tokenizers.base import Tokenizer

if TYPE_CHECKING:
    from uva_lightning.datamodules.base import RobotDataModule

BLOCK = 64
PNG_LEVEL = 4


class LatentSampler(Sampler):
    """Latents of every camera in every variant.

    Args:
        data: The episodes.
        tokenizer: Encodes their pictures.
        vectors: f32[e, w], those of the instructions.
    """

    def __init__(self, data: RobotDataModule, tokenizer: Tokenizer, vectors: NDArray[np.float32] | None) -> None:
        self.data, self.tokenizer, self.vectors = data, tokenizer, vectors
        self.device = torch.device("cpu")

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "data": _unread(self.data)}

    def open(self, device: str) -> EpisodeStore:
        """See the base class."""
        self.device = torch.device(device)
        if self.device.type == "cuda":
            torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False
        self.tokenizer.to(self.device)
        return self.data.store

    def encode(self, frames: Tensor) -> Tensor:
        """Encode as training does: without gradients and autocast, and rounded by the caller."""
        with torch.no_grad():
            return self.tokenizer.encode(frames.to(self.device))

    def members(self, episode: int, tick: Tick) -> dict[str, bytes]:
        """See the base class."""
        store, variants = self.data.store, self.data.variants
        return {
            f"latents.{camera}.npy": npy(encode_episode(store, episode, camera, variants, self.encode, tick).numpy())
            for camera in store.video
        }

    def text(self, episode: int) -> NDArray[np.float32] | None:
        """See the base class."""
        return None if self.vectors is None else self.vectors[episode]


class PictureSampler(Sampler):
    """Pictures as PNG, one behind the other, and where each begins.

    Args:
        data: The episodes.
    """

    def __init__(self, data: RobotDataModule) -> None:
        self.data = data

    def __getstate__(self) -> dict[str, Any]:
        return {"data": _unread(self.data)}

    def open(self, device: str) -> EpisodeStore:
        """See the base class."""
        return self.data.store

    def members(self, episode: int, tick: Tick) -> dict[str, bytes]:
        """See the base class."""
        store, files = self.data.store, dict[str, bytes]()
        begin, end = int(store.begins[episode]), int(store.ends[episode])
        for camera, frames in store.video.items():
            blobs = []
            for first in range(begin, end, BLOCK):
                pictures = frames[first : min(first + BLOCK, end)]
                blobs += [_png(picture) for picture in pictures]
                tick(len(pictures))
            starts = np.cumsum([0, *map(len, blobs)]).astype(np.int64)
            files |= {f"pictures.{camera}.bin": b"".join(blobs), f"starts.{camera}.npy": npy(starts)}
        return files


def cache_latents(
    data: RobotDataModule, tokenizer: Tokenizer, out: Path, devices: tuple[str, ...], shard_mb: float
) -> Index:
    """Encode a data set into shards.

    Args:
        data: The data set; its ``symmetry``, ``augment``, ``encoding.variants`` and ``text`` say what is stored.
        tokenizer: Encodes its pictures; fitted on the training episodes where it is not yet, as ``uva fit`` does.
        out: Folder of the shards.
        devices: Where each process works.
        shard_mb: Size of a shard in MB, at most, unless an episode is larger.

    Raises:
        ValueError: The folder belongs to other data or has another writer.
        OSError: There is not enough room.
    """
    data.setup("fit")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # see build
    try:
        if not tokenizer.fitted:
            data.fit_tokenizer(tokenizer)
        store, variants = data.store, data.variants
        vectors = None if data.vectors is None else data.vectors.numpy()
        sampler = LatentSampler(data, tokenizer, vectors)
        sampler.open(devices[0])
        camera = next(iter(store.video))
        tokens, numbers = sampler.encode(torch.from_numpy(store.video[camera][:1])).shape[1:]
    finally:
        torch.set_num_threads(threads)
    about = {"class": type(tokenizer).__name__, "fingerprint": tokenizer.fingerprint(), "moments": [tokens, numbers]}
    text = None if data.text is None else {"class": type(data.text).__name__, "width": data.text.width}
    origin = Origin("latents", facts_of(data), source_hash(store), variants.facts(), about, text, shard_mb)
    cameras = len(store.video)
    step = cameras * len(variants) * tokens * numbers * 2 + _numbers_bytes(store)
    state = {name: value.cpu() for name, value in tokenizer.state().items()}
    extra = {TOKENIZER: state} if state else {}
    job = Job(out, origin, sampler, step, cameras * len(variants), "frame", extra, data.faults)
    return build(job, store, devices)


def pack_pictures(data: RobotDataModule, out: Path, workers: int = 1, shard_mb: float = 64) -> Index:
    """Write a data set into shards with its pictures as PNG, and compare all that was written with the source.

    Args:
        data: The data set.
        out: Folder of the shards.
        workers: Processes.
        shard_mb: Size of a shard in MB, about.

    Raises:
        ValueError: The folder belongs to other data or has another writer, or what is read back differs.
        OSError: There is not enough room.
    """
    from uva_lightning.datamodules.shards.reader import opened

    store = data.store
    origin = Origin("pictures", facts_of(data), source_hash(store), {}, None, None, shard_mb)
    sample = {camera: frames[:1][0] for camera, frames in store.video.items()}
    step = sum(len(_png(picture)) + 8 for picture in sample.values()) + _numbers_bytes(store)
    index = build(
        Job(out, origin, PictureSampler(data), step, len(sample), "picture", {}, data.faults), store, ("cpu",) * workers
    )
    written = opened(str(out), replace(data.reading, episodes=None), data.faults)
    if written is None:
        raise Broken(f"{out} has lost the index of its shards while they were written; make them again.")
    compare(store, written.store(tuple(store.video)), [e.number for shard in index.shards for e in shard.episodes])
    return index


def compare(source: EpisodeStore, written: EpisodeStore, numbers: list[int]) -> None:
    """Compare what was written with the source, episode by episode.

    Raises:
        ValueError: Something differs.
    """
    for place, number in enumerate(numbers):
        here, there = written.begins[place], source.begins[number]
        length = int(source.lengths[number])
        was: dict[str, Any] = {**source.numbers(), **source.video}
        now: dict[str, Any] = {**written.numbers(), **written.video}
        for what, values in was.items():
            other = now[what]
            for first in range(0, length, BLOCK):
                rows = np.arange(first, min(first + BLOCK, length))
                if not np.array_equal(np.asarray(values[there + rows]), np.asarray(other[here + rows])):
                    raise ValueError(
                        f"'{what}' of {source.name(number)} was read back differently within its steps {first} to "
                        f"{rows[-1]}, expected the same; check the disk and write the shards again."
                    )


def facts_of(data: RobotDataModule) -> Mapping[str, Any]:
    """Say what the source holds, as the index does."""
    facts = asdict(data.source_facts)
    kept = ("image_size", "action_dim", "state_dims", "rate_hz", "action_meaning", "conventions")
    about = {name: facts[name] for name in kept}
    about |= data.changed_pictures
    return {"class": type(data).__name__, "cameras": list(data.spec.cameras), **about}


def _unread(data: RobotDataModule) -> RobotDataModule:
    """Copy a data set without what it has read, which each process reads itself."""
    other = copy(data)
    other.forget()
    return other


def _numbers_bytes(store: EpisodeStore) -> int:
    return sum(4 * values.shape[1] for values in store.numbers().values())


def _png(picture: NDArray[np.uint8]) -> bytes:
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "PNG", compress_level=PNG_LEVEL)
    return file.getvalue()
