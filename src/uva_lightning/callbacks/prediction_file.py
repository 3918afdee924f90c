"""Keep what ``uva predict`` predicts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import BasePredictionWriter
from lightning.pytorch.utilities import rank_zero_info
from safetensors.torch import save_file

from uva_lightning.callbacks.evaluation import run_folder
from uva_lightning.whole_files import whole


class PredictionFile(BasePredictionWriter):
    """Write all predictions of a process into ``predictions_RANK.safetensors`` in the run folder."""

    def __init__(self) -> None:
        super().__init__(write_interval="epoch")

    def write_on_epoch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        predictions: Sequence[Any],
        batch_indices: Sequence[Any],
    ) -> None:
        """Join the batches: one tensor per entry, f32[n, h, a] for actions."""
        path = run_folder(trainer) / f"predictions_{trainer.global_rank}.safetensors"
        names = predictions[0].keys() if predictions else ()
        joined = {name: torch.cat([batch[name].cpu() for batch in predictions]).contiguous() for name in names}
        with whole(path) as partial:
            save_file(joined, partial)
        rank_zero_info(f"Predictions of {sum(len(v) for v in joined.values()) // max(1, len(joined))} windows: {path}")
