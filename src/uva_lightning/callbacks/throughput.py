"""How fast training is, where its time goes, and how much of the device it uses."""

from __future__ import annotations

from lightning.pytorch import LightningModule, Trainer

from uva_lightning.benchmarks.machine import MIB, gpu_peak_bytes, peak_bytes
from uva_lightning.benchmarks.peak import Peak, compute_dtype, device_peak
from uva_lightning.callbacks.step_parts import StepParts
from uva_lightning.step_clock import DATA, ordered

SAMPLES_PER_SECOND = "throughput/samples_per_second"
DATA_WAIT = "throughput/data_wait_share"
MFU = "throughput/mfu"
MEMORY = "throughput/peak_memory_mib"
PART = "throughput/{}_ms"


class Throughput(StepParts):
    """Log samples per second over all processes, the parts of a step, and the share of the device's peak.

    Logs, over the steps since they were last logged, without validation and without the batch whose arithmetic is
    counted:

    - ``throughput/samples_per_second`` of all processes; ``RunProgress`` shows it.
    - ``throughput/data_wait_share``: share of the time from the end of one step to the begin of the next: waiting for
      data, and writing a checkpoint where one is due. On a GPU its own time counts: what the loader does while it is
      busy is no waiting.
    - ``throughput/<part>_ms``: mean time of a batch in each part of a step, see ``step_clock.PARTS``; of rank 0.
    - ``throughput/mfu``: arithmetic over time, as share of the device's peak at the precision of training; of rank 0.
      It is counted in the first batch, and in the first of each stage of a curriculum.
    - ``throughput/peak_memory_mib`` of the GPU since the start, or of the process where there is none; of rank 0.

    Args:
        mfu: Count and log. Without it the first batch is not slowed down.
    """

    def __init__(self, mfu: bool = True) -> None:
        super().__init__(mfu)
        self.mfu = mfu
        self._logged = 0
        self._peak: Peak | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock, after a look at the device."""
        if self.mfu:
            self._peak = device_peak(pl_module.device, compute_dtype(str(trainer.precision)))
        self._logged = trainer.global_step
        super().on_train_start(trainer, pl_module)

    def batch_done(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log where it is due."""
        interval: int = trainer.log_every_n_steps  # type: ignore[attr-defined]  # set by Lightning with setattr
        step = trainer.global_step
        if not interval or step == self._logged or step % interval:
            return
        self._logged = step
        lap = self.lap()
        values = {SAMPLES_PER_SECOND: lap.samples * trainer.world_size / lap.total}
        values[DATA_WAIT] = lap.seconds.get(DATA, 0.0) / lap.total
        values |= {PART.format(part): 1000 * time / lap.batches for part, time in ordered(lap.seconds).items()}
        if self._peak is not None:
            values[MFU] = self._peak.share(lap.samples * sum(self.flops.values()), lap.total)
        values[MEMORY] = (gpu_peak_bytes(pl_module.device) or peak_bytes()) / MIB
        for name, value in values.items():
            pl_module.log(name, value, batch_size=1)
