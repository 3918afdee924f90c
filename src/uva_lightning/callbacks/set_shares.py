"""Which share of what each process trains on is from which data set."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor

from uva_lightning.types import Batch, DataSpec


class SetShares(Callback):
    """Log the realised share of each data set of a mixture in every process; with a single data set there is nothing.

    Logs ``data/<set>/share_rank<n>`` over the steps since it was last logged, and tells the shares since the start of
    the run, or of its resume, at each validation and at the end of each epoch.
    """

    def __init__(self) -> None:
        self._counts: Tensor | None = None
        self._total: Tensor | None = None
        self._told = -1

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        """Count, and log where the log is due."""
        names = _names(pl_module)
        if getattr(batch, "source", None) is None or not names:
            return
        counts = torch.bincount(batch.source, minlength=len(names))  # type: ignore[arg-type]
        self._counts = counts if self._counts is None else self._counts + counts
        self._total = counts if self._total is None else self._total + counts
        interval: int = trainer.log_every_n_steps  # type: ignore[attr-defined]  # set by Lightning with setattr
        if interval and trainer.global_step % interval == 0:
            for rank, shares in enumerate(_gathered(pl_module, self._counts)):
                for name, share in zip(names, shares.tolist(), strict=True):
                    pl_module.log(f"data/{name}/share_rank{rank}", share, batch_size=1)
            self._counts = None

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Tell the shares so far."""
        self._tell(trainer, pl_module)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Tell the shares so far."""
        self._tell(trainer, pl_module)

    def _tell(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._total is None or trainer.global_step == self._told or trainer.sanity_checking:
            return
        self._told = trainer.global_step
        names = _names(pl_module)
        lines = [
            f"rank {rank}: " + ", ".join(f"{name} {share:.1%}" for name, share in zip(names, row.tolist(), strict=True))
            for rank, row in enumerate(_gathered(pl_module, self._total))
        ]
        rank_zero_info(f"Samples trained on by step {trainer.global_step}, {'; '.join(lines)}.")


def _names(module: LightningModule) -> list[str]:
    spec = getattr(module, "spec", None)
    return list(spec.sets) if isinstance(spec, DataSpec) else []


def _gathered(module: LightningModule, counts: Tensor) -> Tensor:
    """Give the shares in every process, f32[processes, sets]; all of them must call it."""
    every: Any = module.all_gather(counts.to(module.device))
    rows: Tensor = every.reshape(-1, len(counts)).cpu()
    return rows / rows.sum(dim=1, keepdim=True)
