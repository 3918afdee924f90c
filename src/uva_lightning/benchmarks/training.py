"""What a training step costs: its parts, its arithmetic, its memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint, ProgressBar, WeightAveraging
from lightning.pytorch.utilities.model_helpers import is_overridden
from torch import Tensor

from uva_lightning.benchmarks.machine import MIB, gpu_peak_bytes, peak_bytes, reset_peak, resident_bytes
from uva_lightning.benchmarks.peak import TERA, Peak, compute_dtype, device_peak
from uva_lightning.callbacks.requeue import Requeue
from uva_lightning.callbacks.step_parts import Lap, StepParts
from uva_lightning.callbacks.throughput import Throughput
from uva_lightning.step_clock import PARTS, ordered

IN_A_STEP = (
    "on_train_batch_start",
    "on_before_zero_grad",
    "on_before_backward",
    "on_after_backward",
    "on_before_optimizer_step",
    "on_train_batch_end",
)
"""Hooks that cost time in every step."""
NOT_MEASURED = (Checkpoint, ProgressBar, Requeue, Throughput)
"""What writes, shows or measures by itself."""
MILLISECONDS = 1000
PEAK_SECONDS = 1.0
"""How long the peak of the device is measured, before and after."""


@dataclass(frozen=True)
class Memory:
    """Memory in MiB.

    Args:
        parameters: All weights of the model; those of tokenizer and text encoder are not among them.
        optimizer: State of the optimizer.
        average: Averages of the weights.
        process: Largest memory of the process in the measured steps.
        growth: How much more that is than before training.
        gpu: Largest memory of tensors on the GPU in the measured steps; 0 where there is none.
    """

    parameters: float
    optimizer: float
    average: float
    process: float
    growth: float
    gpu: float


class Measured(StepParts):
    """Measure some steps of a training run, after some that only warm up; the first of these counts the arithmetic.

    Args:
        warmup: Updates of the weights that do not count, at least 1.
        peak: What the device could do; looked up or measured if not given.
    """

    def __init__(self, warmup: int, peak: Peak | None = None) -> None:
        super().__init__()
        self.warmup, self.peak, self._given = warmup, peak, peak is not None
        self.lap_done = Lap()
        self.memory: Memory | None = None
        self._before, self._warm = 0, False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note what there is, and what the device could do."""
        self._before = resident_bytes()
        self._look(trainer, pl_module)
        super().on_train_start(trainer, pl_module)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Begin to measure after the last step that warms up."""
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        if not self._warm and trainer.global_step >= self.warmup:
            self._warm = True
            reset_peak()
            if pl_module.device.type == "cuda":
                torch.cuda.reset_peak_memory_stats(pl_module.device)
            self.lap()

    def batch_done(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """End with the last step."""
        if self._warm and trainer.global_step >= trainer.max_steps:
            self.lap_done = self.lap()
            self.memory = self._held(trainer, pl_module)
            self._look(trainer, pl_module)

    def _look(self, trainer: Trainer, module: LightningModule) -> None:
        """Look for the peak, before and after: where other programs run, the higher one is nearer to the truth."""
        if self._given:
            return
        found = device_peak(module.device, compute_dtype(str(trainer.precision)), PEAK_SECONDS)
        if self.peak is None or found.flops_per_s > self.peak.flops_per_s:
            self.peak = found

    def _held(self, trainer: Trainer, module: LightningModule) -> Memory:
        parameters = list(module.parameters())
        callbacks: list[Any] = getattr(trainer, "callbacks", [])
        averages = sum(isinstance(callback, WeightAveraging) for callback in callbacks)
        state = [v for optimizer in trainer.optimizers for entry in optimizer.state.values() for v in entry.values()]
        process = peak_bytes()
        return Memory(
            parameters=_mib(parameters),
            optimizer=_mib([value for value in state if isinstance(value, Tensor)]),
            average=averages * _mib([p for p in parameters if p.requires_grad]),
            process=process / MIB,
            growth=(process - self._before) / MIB,
            gpu=gpu_peak_bytes(module.device) / MIB,
        )


def add(trainer: Trainer, measured: Measured) -> None:
    """Add the measurement; of the other callbacks those stay that take part in a step, and do not write or show."""
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]  # set by Lightning with setattr
    callbacks[:] = [
        callback
        for callback in callbacks
        if not isinstance(callback, NOT_MEASURED) and any(is_overridden(hook, callback, Callback) for hook in IN_A_STEP)
    ]
    callbacks.append(measured)  # last: what the others do in a step is in it


def described(trainer: Trainer, module: LightningModule, measured: Measured) -> dict[str, Any]:
    """Give the numbers of a measurement, as ``uva bench train`` writes them; its help describes them.

    Raises:
        ValueError: Training ended before the last step.
    """
    lap, memory, peak = measured.lap_done, measured.memory, measured.peak
    if memory is None or peak is None:
        raise ValueError(
            f"Training ended at step {trainer.global_step}, expected {trainer.max_steps} to measure; leave "
            "trainer.max_epochs and trainer.max_time out."
        )
    flops = sum(measured.flops.values())
    per_s = lap.samples / lap.total
    return {
        "device": str(module.device),
        "processes": trainer.world_size,
        "strategy": type(trainer.strategy).__name__,
        "precision": str(trainer.precision),
        "batch_size": lap.samples / lap.batches,
        "accumulated": trainer.accumulate_grad_batches,
        "warmup": measured.warmup,
        "steps": lap.steps,
        "samples_per_s": per_s * trainer.world_size,
        "step_ms": lap.total / lap.steps * MILLISECONDS,
        "parts_ms": {part: time / lap.steps * MILLISECONDS for part, time in ordered(lap.seconds).items()},
        "flops_per_sample": flops,
        "parts_flops_per_sample": ordered(measured.flops),
        "flops_per_s": per_s * flops,
        "peak": {"flops_per_s": peak.flops_per_s, "source": peak.source},
        "mfu": peak.share(lap.samples * flops, lap.total),
        "parameters": sum(p.numel() for p in module.parameters()),
        "trained": sum(p.numel() for p in module.parameters() if p.requires_grad),
        "memory_mib": vars(memory).copy(),
    }


def table(said: dict[str, Any]) -> str:
    """Lay a measurement out for people."""
    lines = [f"{'':<18}{'ms':>10}{'share':>8}{'GFLOP/sample':>14}{'TFLOP/s':>9}\n"]
    samples = said["samples_per_s"] * said["step_ms"] / MILLISECONDS / said["processes"]
    for part, time in said["parts_ms"].items():
        flops = said["parts_flops_per_sample"].get(part, 0.0)
        done = f"{flops / 1e9:>14.3f}{flops * samples / time * MILLISECONDS / TERA:>9.3f}" if flops and time else ""
        lines.append(f"{part:<18}{time:>10.2f}{time / said['step_ms']:>8.1%}{done}".rstrip() + "\n")
    total = f"{said['flops_per_sample'] / 1e9:>14.3f}{said['flops_per_s'] / TERA:>9.3f}"
    memory, peak = said["memory_mib"], said["peak"]
    gpu = f", GPU {memory['gpu']:.0f}" if memory["gpu"] else ""
    return (
        "".join(lines) + f"{'step':<18}{said['step_ms']:>10.2f}{1:>8.1%}{total}\n\n"
        f"{said['samples_per_s']:.1f} samples/s; MFU {said['mfu']:.1%} of {peak['flops_per_s'] / TERA:.3f} TFLOP/s "
        f"({peak['source']})\n"
        f"memory in MiB: parameters {memory['parameters']:.0f}, optimizer {memory['optimizer']:.0f}, average "
        f"{memory['average']:.0f}; process {memory['process']:.0f} at the peak, {memory['growth']:.0f} more than "
        f"before{gpu}\n"
    )


def legend(parts: dict[str, float]) -> str:
    """Say what the parts are that a table shows."""
    return "".join(f"  {part:<18}{PARTS[part]}\n" for part in parts)


def _mib(tensors: list[Any]) -> float:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors) / MIB
