"""Checkpoint files that are whole at every moment, and the search for the newest of them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import CheckpointIO, TorchCheckpointIO
from lightning.fabric.utilities.types import _PATH
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from uva_lightning.whole_files import sync_folder

PARTIAL, PREVIOUS = ".partial", ".previous"
_NEEDED = ("state_dict", "optimizer_states", "loops")  # to go on with training


class WholeCheckpoints(CheckpointIO):
    """Write a checkpoint beside its place, force it to the disk, then rename it.

    Whatever kills the process or the machine, the file of that name is the old one or the new one. The old one stays as
    ``NAME.previous``. Reading, and everything that is not a local file, is left to Lightning.
    """

    def __init__(self) -> None:
        self.inner: CheckpointIO = TorchCheckpointIO()

    def save_checkpoint(self, checkpoint: dict[str, Any], path: _PATH, storage_options: Any | None = None) -> None:
        """Save a checkpoint.

        Args:
            checkpoint: Tensors and plain values, loadable with ``weights_only``.
            path: Where to; a folder that is missing is made.
            storage_options: For other places than local files.
        """
        if "://" in str(path) or storage_options is not None:
            self.inner.save_checkpoint(checkpoint, path, storage_options)
            return
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(target.name + PARTIAL)
        try:
            with partial.open("wb") as file:
                torch.save(checkpoint, file)
                file.flush()
                os.fsync(file.fileno())
        except BaseException:
            partial.unlink(missing_ok=True)  # a full disk must not stay full of what nobody can load
            raise
        _keep(target)
        os.replace(partial, target)
        sync_folder(target.parent)

    def load_checkpoint(
        self, path: _PATH, map_location: Callable[..., Any] | None = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Load a checkpoint, to the CPU if not told otherwise."""
        return self.inner.load_checkpoint(path, map_location or (lambda storage, _: storage), weights_only)

    def remove_checkpoint(self, path: _PATH) -> None:
        """Remove a checkpoint and what was kept of its name."""
        self.inner.remove_checkpoint(path)
        self.inner.remove_checkpoint(f"{path}{PREVIOUS}")


def checkpoint_folders(trainer: Trainer) -> list[Path]:
    """List the folders in which the trainer's callbacks save, also before training starts."""
    folders = []
    for callback in trainer.checkpoint_callbacks:
        if not isinstance(callback, ModelCheckpoint):
            continue
        folder = callback.dirpath or _default_folder(trainer)
        folders += [Path(folder)] if "://" not in str(folder) else []
    return list(dict.fromkeys(folders)) or [_default_folder(trainer)]


def newest_whole(folders: Iterable[Path], since: float = 0.0) -> Path | None:
    """Find the newest checkpoint from which training can go on.

    Args:
        folders: Where to look.
        since: Time in s since the epoch, by the clock of the file system; older files are left aside.

    Returns:
        Its path, or nothing if there is none.
    """
    found = [path for folder in folders for suffix in ("", PREVIOUS) for path in folder.glob(f"*.ckpt{suffix}")]
    dated = sorted(((path.stat().st_mtime, path.name, path) for path in found), reverse=True)
    return next((path for seconds, _, path in dated if seconds >= since and _resumable(path)), None)


def remove_leftovers(folders: Iterable[Path]) -> None:
    """Remove what a killed process left half written."""
    for folder in folders:
        for path in folder.glob(f"*.ckpt*{PARTIAL}"):
            path.unlink(missing_ok=True)


def _resumable(path: Path) -> bool:
    """Say whether a file is whole and holds a state of training; reads no tensor."""
    file = path / "meta.pt" if path.is_dir() else path  # of a sharded checkpoint; the last that is written
    try:
        content = torch.load(file, map_location="meta", mmap=True, weights_only=True)
    except Exception:  # the unpickler ends in any of them on bytes that mean nothing
        return False
    needed = _NEEDED[2:] if path.is_dir() else _NEEDED
    return isinstance(content, dict) and all(key in content for key in needed)


def _default_folder(trainer: Trainer) -> Path:
    """Give the folder that Lightning chooses where none is named."""
    if not trainer.loggers:
        return Path(trainer.default_root_dir) / "checkpoints"
    logger = trainer.loggers[0]
    version = logger.version if isinstance(logger.version, str) else f"version_{logger.version}"
    return Path(logger.save_dir or trainer.default_root_dir) / str(logger.name) / version / "checkpoints"


def _keep(target: Path) -> None:
    """Keep the file that will be replaced, without a moment in which its name is free."""
    if not target.is_file():
        return
    previous = target.with_name(target.name + PREVIOUS)
    link = target.with_name(f"{target.name}.link{PARTIAL}")
    try:
        link.unlink(missing_ok=True)
        os.link(target, link)
        os.replace(link, previous)
    except OSError:  # a file system without hard links
        os.replace(target, previous)
