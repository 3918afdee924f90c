"""How fast windows come from shards, on generated latents of any size."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from uva_lightning.datamodules.base import RobotDataModule
from uva_lightning.datamodules.faults import Faults
from uva_lightning.datamodules.reading import Reading, Streaming
from uva_lightning.datamodules.shards.build import Job, build
from uva_lightning.datamodules.shards.index import Origin
from uva_lightning.datamodules.shards.samplers import facts_of
from uva_lightning.datamodules.shards.writer import Sampler, Tick, npy
from uva_lightning.datamodules.store import EpisodeStore
from uva_lightning.types import DataSpec

KEY = "generated"


class Generated(RobotDataModule):
    """Episodes without pictures, of which only latents are ever asked for."""

    facts = DataSpec(cameras=("top",), image_size=8, action_dim=10, state_dims={"joints": 7}, rate_hz=10)

    def read(self) -> EpisodeStore:
        """There is nothing to read but shards."""
        raise ValueError(f"There are no shards at {self.path}, expected those of write_shards.")


class GeneratedLatents(Sampler):
    """Normal numbers in the shape of a tokenizer's moments."""

    def __init__(self, store: EpisodeStore, tokens: int, numbers: int) -> None:
        self.store, self.tokens, self.numbers = store, tokens, numbers

    def open(self, device: str) -> EpisodeStore:
        """See the base class."""
        return self.store

    def members(self, episode: int, tick: Tick) -> dict[str, bytes]:
        """See the base class."""
        length, rng = int(self.store.lengths[episode]), np.random.default_rng(episode)
        values: NDArray[np.float16] = rng.standard_normal(
            (1, length, self.tokens, self.numbers), dtype=np.float32
        ).astype(np.float16)
        tick(length)
        return {"latents.top.npy": npy(values)}


def write_shards(
    out: Path, episodes: int = 64, steps: int = 200, tokens: int = 256, numbers: int = 32, shard_mb: float = 64
) -> None:
    """Write shards of generated latents; KL-16's for pictures of 256 px if no sizes are given, 16 KB a frame.

    Args:
        out: Folder.
        episodes: Their number.
        steps: Steps of each.
        tokens: Tokens of a frame.
        numbers: Numbers of a token.
        shard_mb: Size of a shard in MB.
    """
    rng, total = np.random.default_rng(0), episodes * steps
    store = EpisodeStore(
        {"top": np.zeros((total, 8, 8, 3), dtype=np.uint8)},
        rng.standard_normal((total, 10), dtype=np.float32),
        {"joints": rng.standard_normal((total, 7), dtype=np.float32)},
        np.arange(1, episodes + 1) * steps,
    )
    about = {"class": "generated", "fingerprint": KEY, "moments": [tokens, numbers]}
    facts = facts_of(Generated(out))
    origin = Origin("latents", facts, KEY, {"symmetry": None, "drawn": 0}, about, None, shard_mb)
    job = Job(
        out, origin, GeneratedLatents(store, tokens, numbers), tokens * numbers * 2 + 68, 1, "frame", {}, Faults()
    )
    build(job, store, ("cpu",))


def windows_per_second(
    path: Path, batch_size: int = 64, seconds: float = 5, streaming: Streaming | None = None, workers: int = 0
) -> dict[str, float]:
    """Measure how many training windows come per second from shards that are in the page cache.

    Args:
        path: Shards of ``write_shards``.
        batch_size: Windows of a batch.
        seconds: How long to measure.
        streaming: Reads shard by shard if given, and any window at any time if not.
        workers: Processes that fetch batches.

    Returns:
        ``first``: windows/s of the first pass, in which each episode is checked once; ``rate``: windows/s after it;
        ``bytes``: size of a window's latents.
    """
    data = Generated(path, batch_size, reading=Reading(workers=workers, streaming=streaming))
    data.setup("fit")
    data.cache(lambda frames: frames, KEY)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        loader = data.train_dataloader()
        begin, count, size = time.perf_counter(), 0, 0
        for batch in loader:
            count, size = count + len(batch), batch.latents["top"][0].nbytes
        first = count / (time.perf_counter() - begin)
        begin, count = time.perf_counter(), 0
        while time.perf_counter() - begin < seconds:
            for batch in loader:
                count += len(batch)
                if time.perf_counter() - begin >= seconds:
                    break
        return {"first": first, "rate": count / (time.perf_counter() - begin), "bytes": float(size)}
    finally:
        torch.set_num_threads(threads)
