"""How fast training is, and how much of the time it waits."""

from __future__ import annotations

import time
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

SAMPLES_PER_SECOND = "throughput/samples_per_second"
DATA_WAIT = "throughput/data_wait_share"


class Throughput(Callback):
    """Log samples per second over all processes, and the share of the time between steps.

    Logs ``throughput/samples_per_second`` and ``throughput/data_wait_share``, over the steps since they were last
    logged, without validation. The share is the time from the end of one step to the begin of the next: waiting for
    data, and writing a checkpoint where one is due. ``RunProgress`` shows the rate.
    """

    def __init__(self) -> None:
        self._start = self._idle_since = self._paused = 0.0
        self._samples, self._waited = 0, 0.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock."""
        self._start = self._idle_since = time.perf_counter()
        self._samples, self._waited = 0, 0.0

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Stop waiting."""
        self._waited += time.perf_counter() - self._idle_since

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count the samples and wait for the next."""
        now = time.perf_counter()
        self._samples += len(batch)
        interval: int = trainer.log_every_n_steps  # type: ignore[attr-defined]  # set by Lightning with setattr
        if interval and trainer.global_step % interval == 0:
            elapsed = now - self._start
            pl_module.log(SAMPLES_PER_SECOND, self._samples * trainer.world_size / elapsed, batch_size=1)
            pl_module.log(DATA_WAIT, self._waited / elapsed, batch_size=1)
            self._samples, self._waited, self._start = 0, 0.0, now
        self._idle_since = now

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop the clock."""
        self._paused = time.perf_counter()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Go on."""
        pause = time.perf_counter() - self._paused
        self._start, self._idle_since = self._start + pause, self._idle_since + pause
