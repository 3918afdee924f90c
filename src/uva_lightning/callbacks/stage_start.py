"""Begin each stage of a curriculum as a run of its own would."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from uva_lightning.callbacks.ema import EMA
from uva_lightning.module import UVAModule


class StageStart(Callback):
    """Let every stage but the first begin from the averaged weights of the one before, as UVA's second run does.

    Averaging and the moments of the optimizer begin anew, too, and ``AdamWCosine`` warms up again. A resumed run does
    the same: all follows from the number of the batch.
    """

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse to run where there is no average, or where a stage would begin within an optimizer step.

        Raises:
            ValueError: There is no ``EMA`` among the callbacks, or gradients of two stages would be added up.
        """
        if stage != "fit" or not isinstance(pl_module, UVAModule):
            return
        if _average(trainer) is None:
            raise ValueError("StageStart takes over averaged weights, but no EMA keeps them; add EMA to the callbacks.")
        accumulated = trainer.accumulate_grad_batches
        if wrong := [start for start in pl_module.sampler.starts if start % accumulated]:
            raise ValueError(
                f"A stage begins at batch {wrong[0]}, but trainer.accumulate_grad_batches is {accumulated}, expected a "
                "divisor of it; change the steps of the stages."
            )

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Take the average over, if a stage begins with this batch."""
        average = _average(trainer)
        if average is None or not isinstance(pl_module, UVAModule):
            return
        progress: Any = trainer.fit_loop.epoch_loop.batch_progress.total
        done = int(progress.processed)
        if done and done in pl_module.sampler.starts:
            average.begin_anew(pl_module)
            for optimizer in trainer.optimizers:
                optimizer.state.clear()


def _average(trainer: Trainer) -> EMA | None:
    callbacks: list[Any] = getattr(trainer, "callbacks", [])
    return next((callback for callback in callbacks if isinstance(callback, EMA)), None)
