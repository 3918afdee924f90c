"""``uva cache``: encode a data set once, into shards that every later run reads instead of the pictures."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch

from uva_lightning.commands.errors import UserError
from uva_lightning.datamodules.base import RobotDataModule
from uva_lightning.datamodules.shards.files import amount
from uva_lightning.datamodules.shards.index import Index
from uva_lightning.datamodules.shards.samplers import cache_latents
from uva_lightning.model.tokenizers.base import Tokenizer

MOST_WORKERS = 8
"""Processes on the CPU where the user names no number: each holds a tokenizer of its own."""


def cache(
    data: RobotDataModule,
    tokenizer: Tokenizer,
    out: Path,
    workers: int | None = None,
    devices: int | None = None,
    shard_mb: float = 64,
) -> None:
    """Encode a data set once, into shards; after a kill the same command goes on from there.

    Args:
        data: The data set, of the config's ``data:``.
        tokenizer: Encodes its pictures, of the config's ``model.tokenizer``.
        out: Folder of the shards; train from them with --data.path.
        workers: Processes on the CPU; as many as it has cores, 8 at most, if not given.
        devices: GPUs, with a process on each; all there are if not given, 0 for the CPU.
        shard_mb: Size of a shard in MB.
    """
    if shard_mb <= 0:
        raise UserError(f"shard_mb is {shard_mb}, expected more than 0, such as 64.")
    data.prepare_data()
    index = cache_latents(data, tokenizer, out, places(workers, devices), shard_mb)
    sys.stdout.write(summary(out, index))


def summary(out: Path, index: Index) -> str:
    """Say what was written."""
    episodes = [episode for shard in index.shards for episode in shard.episodes]
    steps, count = sum(episode.length for episode in episodes), index.origin.count
    variants = f" in {count} variants" if count > 1 else ""
    return (
        f"{out}: {len(index.shards)} shards, {len(episodes)} episodes, {steps} steps{variants}, "
        f"{amount(sum(shard.size for shard in index.shards))}; train from them with --data.path={out}\n"
    )


def places(workers: int | None, devices: int | None) -> tuple[str, ...]:
    """Say where each process works.

    Args:
        workers: See ``cache``.
        devices: See ``cache``.

    Raises:
        UserError: There are not so many GPUs, or the numbers contradict each other.
    """
    there = torch.cuda.device_count() if torch.cuda.is_available() else 0
    gpus = there if devices is None and workers is None else devices or 0
    if not 0 <= gpus <= there:
        raise UserError(f"devices is {gpus}, but torch sees {there} GPUs; give 0 to {there}.")
    if workers is not None and (workers < 1 or gpus):
        raise UserError(
            f"workers is {workers} with {gpus} devices, expected at least 1, and no devices; processes on GPUs are "
            "counted by --devices."
        )
    cores = min(os.cpu_count() or 1, MOST_WORKERS)
    return tuple(f"cuda:{number}" for number in range(gpus)) or ("cpu",) * (workers or cores)
