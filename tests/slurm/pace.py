"""Let the first life of a job train slowly, so that something can happen to it; the weights do not depend on it."""

import os
import time
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer


class Pace(Callback):
    """Wait after every step.

    Args:
        seconds: How long.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds if os.environ.get("SLURM_RESTART_COUNT", "0") == "0" else 0.0

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Wait."""
        time.sleep(self.seconds)
