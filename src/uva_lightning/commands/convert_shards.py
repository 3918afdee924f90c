"""``uva convert shards``: any data set as shards, with its pictures."""

from __future__ import annotations

import sys
from pathlib import Path

from uva_lightning.commands.cache import summary
from uva_lightning.commands.errors import UserError
from uva_lightning.datamodules.base import RobotDataModule
from uva_lightning.datamodules.shards.samplers import pack_pictures


def to_shards(data: RobotDataModule, out: Path, workers: int = 1, shard_mb: float = 64) -> None:
    """Write any data set as shards, with its pictures without loss, and compare them with the source.

    Args:
        data: The data set, as for uva fit.
        out: Folder of the shards; train from them with --data.path.
        workers: Processes.
        shard_mb: Size of a shard in MB, about.
    """
    for name, value in (("workers", workers), ("shard_mb", shard_mb)):
        if value <= 0:
            raise UserError(f"{name} is {value}, expected more than 0.")
    data.prepare_data()
    sys.stdout.write(summary(out, pack_pictures(data, out, workers, shard_mb)))
