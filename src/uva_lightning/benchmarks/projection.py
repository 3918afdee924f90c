"""Time and price of a run on other devices, computed from what a step was measured to consist of."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from uva_lightning.benchmarks.peak import TERA
from uva_lightning.step_clock import HEADS, HEADS_BACKWARD, SYNCHRONISATION, TOKENIZER, TRUNK, TRUNK_BACKWARD

BY_SAMPLE = (TOKENIZER, TRUNK, HEADS, HEADS_BACKWARD, TRUNK_BACKWARD)
"""Parts whose time grows with the samples of a process; that of the others does not."""
UPDATE_BYTES = 40
"""Bytes that an update moves per weight in float32: AdamW reads weight, gradient and two moments and writes all but the
gradient (28), the average of the weights reads two and writes one (12)."""
WEIGHT_BYTES = 4
HOUR, DAY = 3600, 24 * 3600
GIGA = 1e9


@dataclass(frozen=True)
class Stage:
    """What a step of one stage consists of, as ``uva bench train`` measured it.

    Args:
        name: Of the file.
        flops: FLOPs of a sample, forward and backward.
        trained: Weights that are trained.
        sample_s: Time of a sample in the parts that grow with them, in s, on the device that was measured.
        fixed_s: Time of the other parts of a step, in s.
    """

    name: str
    flops: float
    trained: int
    sample_s: float
    fixed_s: float


@dataclass(frozen=True)
class Device:
    """What the run is projected on.

    Args:
        peak: FLOP/s of one.
        mfu: Share of the peak that the arithmetic reaches. None: the times that were measured count.
        bandwidth: Bytes/s of its memory.
        link: Bytes/s of an all-reduce, as nccl-tests prints for its bus.
    """

    peak: float
    mfu: float | None
    bandwidth: float
    link: float


@dataclass(frozen=True)
class Step:
    """Time of one update in s.

    Args:
        samples: Tokenizer, transformer and heads.
        fixed: Update and average; if measured, also what else there is.
        synchronisation: Of the gradients, as if nothing of it were hidden behind the backward pass.
    """

    samples: float
    fixed: float
    synchronisation: float

    @property
    def total(self) -> float:
        """All of it."""
        return self.samples + self.fixed + self.synchronisation


def read_stage(path: Path, encoding: float | None = None) -> Stage:
    """Read what ``uva bench train`` wrote.

    Args:
        path: Its JSON.
        encoding: FLOPs of encoding a sample's pictures, in place of the measured ones.

    Raises:
        ValueError: It is something else.
    """
    said = _read(path)
    parts, flops = said["parts_ms"], dict(said["parts_flops_per_sample"])
    if encoding is not None:
        flops[TOKENIZER] = encoding
    samples = said["batch_size"] * said["accumulated"]
    by_sample = sum(parts.get(part, 0.0) for part in BY_SAMPLE) / 1000
    fixed = sum(time for part, time in parts.items() if part not in (*BY_SAMPLE, SYNCHRONISATION)) / 1000
    return Stage(path.stem, sum(flops.values()), said["trained"], by_sample / samples, fixed)


def encoding_flops(path: Path) -> float:
    """Give the FLOPs of encoding a sample's pictures.

    Raises:
        ValueError: The measurement is one from a cache.
    """
    flops = _read(path)["parts_flops_per_sample"].get(TOKENIZER)
    if not flops:
        raise ValueError(
            f"{path} has no FLOPs of a tokenizer, expected a measurement with pictures; run uva bench train with "
            "--config configs/options/online.yaml."
        )
    return float(flops)


def step_time(stage: Stage, batch: int, devices: int, device: Device) -> Step:
    """Compute the time of an update.

    Args:
        stage: What it consists of.
        batch: Samples of all devices together.
        devices: How many.
        device: Of which kind.

    Raises:
        ValueError: There are more devices than samples.
    """
    if not 1 <= devices <= batch:
        raise ValueError(f"gpus has {devices}, expected 1 to {batch}, a sample for each; change --gpus or --batch.")
    each = batch / devices
    moved = 2 * (devices - 1) / devices * WEIGHT_BYTES * stage.trained
    if device.mfu is None:
        return Step(each * stage.sample_s, stage.fixed_s, moved / device.link)
    update = UPDATE_BYTES * stage.trained / device.bandwidth
    return Step(each * stage.flops / (device.peak * device.mfu), update, moved / device.link)


def row(stages: list[Stage], steps: int, batch: int, devices: int, device: Device, price: float) -> str:
    """Lay the projection of a run out, the stages after one another.

    Args:
        stages: What their steps consist of.
        steps: Updates in each.
        batch: Samples of an update.
        devices: How many.
        device: Of which kind.
        price: Of a device for an hour.
    """
    times = [step_time(stage, batch, devices, device) for stage in stages]
    seconds = steps * sum(time.total for time in times)
    lost = 1 - sum(time.samples for time in times) / sum(time.total for time in times)
    hours = seconds / HOUR * devices
    mfu = "" if device.mfu is None else f"{device.mfu:.0%}"
    return (
        f"{mfu:>4}{devices:>6}{seconds / steps / len(stages) * 1000:>10.1f}{lost:>8.1%}"
        f"{steps * len(stages) * batch / seconds:>11.0f}{seconds / HOUR:>10.1f}{seconds / DAY:>8.1f}{hours:>11.0f}"
        f"{hours * price:>11.0f}\n"
    )


HEAD = (
    f"{'MFU':>4}{'GPUs':>6}{'step ms':>10}{'lost':>8}{'samples/s':>11}{'hours':>10}{'days':>8}{'GPU hours':>11}"
    f"{'price':>11}\n"
)


def summary(stage: Stage) -> str:
    """Say what a stage consists of."""
    return f"{stage.name}: {stage.flops / TERA:.3f} TFLOP/sample, {stage.trained / 1e6:.1f} M trained parameters\n"


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise ValueError(f"There is no {path}, expected what uva bench train --json wrote.")
    try:
        said = json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"{path} is no JSON ({error}), expected what uva bench train --json wrote.") from error
    needed = {"schema", "parts_ms", "parts_flops_per_sample", "batch_size", "accumulated", "trained"}
    if not isinstance(said, dict) or needed - set(said):
        raise ValueError(f"{path} lacks keys of a measurement, expected what uva bench train --json wrote.")
    return said
