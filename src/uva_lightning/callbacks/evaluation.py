"""What callbacks share that use the model during training and must leave no trace."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lightning.pytorch import Trainer
from lightning.pytorch.utilities.seed import isolate_rng
from torch import nn


@contextmanager
def undisturbed(module: nn.Module) -> Iterator[None]:
    """Evaluate a module; its modes and all random generators are afterwards as they were."""
    modes = {part: part.training for part in module.modules()}
    try:
        with isolate_rng():
            module.eval()
            yield
    finally:
        for part, training in modes.items():
            part.training = training


def run_folder(trainer: Trainer) -> Path:
    """Give the folder of this run; call it on every rank, since they agree on it."""
    return Path(trainer.log_dir or trainer.default_root_dir)


def rehearsing(trainer: Trainer) -> bool:
    """Tell whether this is Lightning's sanity check or a ``fast_dev_run``, which leave no results."""
    return trainer.sanity_checking or bool(trainer.fast_dev_run)  # type: ignore[attr-defined]  # set with setattr
