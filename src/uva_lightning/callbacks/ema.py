"""Average the weights over the steps of training, with UVA's warm-up."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint, WeightAveraging
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor

from uva_lightning.strategies.fully_sharded import FullySharded
from uva_lightning.strategies.sharded import own, put_together

_EXTRA_STATE = "_extra_state"


class EMA(WeightAveraging):
    """Keep an exponential moving average of the trained weights.

    Average number ``k`` (from 0) moves towards the weights by ``1 - decay``, where decay is
    ``min(max_decay, 1 - k ** -power)``, so that the start is soon forgotten. Validation, with all callbacks' hooks in
    it, and what is done after training see the average. A checkpoint's ``state_dict`` is the average, too, at whatever
    moment it is written; ``current_model_state`` is what training goes on from.

    Frozen parameters have no average: those of the model stand in, without a copy.

    Args:
        max_decay: Largest decay, in [0, 1).
        power: How fast the decay rises, positive.
    """

    def __init__(self, max_decay: float = 0.9999, power: float = 0.75) -> None:
        if not 0 <= max_decay < 1:
            raise ValueError(f"max_decay is {max_decay}, expected a number in [0, 1); UVA has 0.9999.")
        if power <= 0:
            raise ValueError(f"power is {power}, expected a positive number; UVA has 0.75.")
        super().__init__(use_buffers=False, multi_avg_fn=self._move)
        self.max_decay, self.power = max_decay, power
        self._shown = False  # whether the model holds the average, and our copy the weights that are trained

    def decay(self, averaged: int) -> float:
        """Give the share of the old average that is kept, after so many averagings."""
        return 0.0 if averaged < 1 else min(self.max_decay, 1.0 - averaged**-self.power)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Copy the model.

        Raises:
            ValueError: A ``ModelCheckpoint`` saves weights only; Lightning then does not ask for the average.
        """
        super().setup(trainer, pl_module, stage)
        if stage != "fit":
            return
        self._shown = False
        if any(isinstance(c, ModelCheckpoint) and c.save_weights_only for c in trainer.checkpoint_callbacks):
            raise ValueError(
                "ModelCheckpoint has save_weights_only=True, expected false beside EMA: such a file would hold the "
                "last weights instead of their average; set save_weights_only to false."
            )

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Follow the model to its device, where it came after the copy was made, and share what is frozen."""
        if self._average_model is None:
            return
        self._average_model.module.to(pl_module.device)  # its counter stays on the CPU: reading it must not wait
        if isinstance(trainer.strategy, FullySharded):
            trainer.strategy.cut(self._average_model.module)
            return
        for average, current in zip(self._average_model.module.parameters(), pl_module.parameters(), strict=True):
            if not current.requires_grad:
                average.data = current.data

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Show the average."""
        self._show(trainer, pl_module, True)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep showing the average: other callbacks may roll it out in this hook, whatever their order."""

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Go back to the weights that are trained."""
        self._show(trainer, pl_module, False)

    def begin_anew(self, pl_module: LightningModule) -> None:
        """Put the average into the model and average anew from there, as a run that starts from a checkpoint."""
        if self._average_model is None:
            return
        for average, current in zip(self._average_model.module.parameters(), pl_module.parameters(), strict=True):
            current.data.copy_(average.data)
        self._average_model.n_averaged.zero_()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave the average in the model; the trained weights are kept for checkpoints written from now on."""
        self._show(trainer, pl_module, True)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Store both, each under its key."""
        fitting = self._average_model is not None and trainer.state.fn == TrainerFn.FITTING
        if fitting and not self._shown:  # after Ctrl-C the last step may not be averaged yet
            self.on_train_batch_end(trainer, pl_module, None, None, 0)
            checkpoint["callbacks"][self.state_key] = self.state_dict()
        super().on_save_checkpoint(trainer, pl_module, checkpoint)
        if self._average_model is None:
            return
        average, current = checkpoint["state_dict"], checkpoint["current_model_state"]
        average = put_together(average, trainer.is_global_zero)
        checkpoint["state_dict"] = average
        average |= {name: value for name, value in current.items() if name.endswith(_EXTRA_STATE)}
        if self._shown:
            checkpoint["state_dict"], checkpoint["current_model_state"] = current, average

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Take both to go on with training; an evaluation has the average already."""
        if trainer.state.fn == TrainerFn.FITTING:
            super().on_load_checkpoint(trainer, pl_module, checkpoint)

    def _show(self, trainer: Trainer, pl_module: LightningModule, average: bool) -> None:
        if self._average_model is not None and trainer.state.fn == TrainerFn.FITTING and average != self._shown:
            self._swap_models(pl_module)
            self._shown = average

    def _move(self, averages: Any, currents: Any, _: Tensor | int) -> None:
        """Move the averages towards the current weights."""
        if self._average_model is not None:
            step = 1.0 - self.decay(int(self._average_model.n_averaged))
            torch._foreach_lerp_([own(x) for x in averages], [own(x) for x in currents], step)
