"""One progress bar for the whole run."""

from __future__ import annotations

import math
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import TQDMProgressBar

from uva_lightning.callbacks.throughput import SAMPLES_PER_SECOND


class RunProgress(TQDMProgressBar):
    """Show steps done, of how many, and the time left until the end of training; Lightning's bar ends each epoch.

    With ``Throughput`` it shows samples per second, too.
    """

    def get_metrics(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        """Give what stands behind the bar."""
        items = super().get_metrics(trainer, pl_module)
        items.pop("v_num", None)
        if (rate := trainer.callback_metrics.get(SAMPLES_PER_SECOND)) is not None:
            items["samples/s"] = f"{float(rate):.0f}"
        return items

    def on_train_start(self, *args: Any) -> None:
        """Begin where the run stands."""
        super().on_train_start(*args)
        bar, total = self.train_progress_bar, self.trainer.estimated_stepping_batches
        bar.reset(None if math.isinf(total) else int(total))
        bar.unit, bar.initial, bar.n = "step", self.trainer.global_step, self.trainer.global_step
        bar.set_description("Training")

    def on_train_epoch_start(self, trainer: Trainer, *args: Any) -> None:
        """Go on."""

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Move to the step."""
        bar = self.train_progress_bar
        if not bar.disable and self._should_update(trainer.global_step, bar.total):
            bar.n = trainer.global_step
            bar.set_postfix(self.get_metrics(trainer, pl_module))
