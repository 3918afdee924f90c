"""``uva bench project``: what a run would take on other devices."""

from __future__ import annotations

import sys
from pathlib import Path

from uva_lightning.benchmarks.peak import TERA
from uva_lightning.benchmarks.projection import GIGA, HEAD, Device, encoding_flops, read_stage, row, summary

GPUS, UTILISATION = (1, 8, 64), (0.15, 0.3, 0.45)


def bench_project(
    files: list[Path],
    steps: int,
    batch: int,
    gpus: list[int] | None = None,
    mfu: list[float] | None = None,
    measured: bool = False,
    encode: Path | None = None,
    peak: float = 989.4,
    bandwidth: float = 3350.0,
    link: float = 350.0,
    price: float = 2.5,
) -> None:
    """Project the time and the price of a run from measurements of its stages.

    T = steps * sum over stages of [batch / gpus * FLOPs / (peak * MFU) + 40 bytes * weights / bandwidth
    + 2 (gpus - 1) / gpus * 4 bytes * weights / link]: the arithmetic of the samples, the update with the average of the
    weights, and the gradients' way between the GPUs, of which nothing is taken to be hidden. "lost" is the share of the
    last two. Reading data, validation and checkpoints are not in it.

    Args:
        files: JSON of uva bench train, one for each stage: '[video.json, joint.json]'.
        steps: Updates of the weights in each stage.
        batch: Samples of an update on all GPUs together.
        gpus: How many; [1, 8, 64] if not given.
        mfu: Shares of the peak; [0.15, 0.3, 0.45] if not given.
        measured: Take the times that were measured instead of FLOPs, peak and MFU: for files from the same GPU.
        encode: JSON of a measurement with pictures: as if they were encoded in every step, not read from a cache.
        peak: TFLOP/s of a GPU; that of an H100 SXM in half precision if not given.
        bandwidth: GB/s of its memory; that of an H100 SXM if not given.
        link: GB/s of an all-reduce ("busbw" of nccl-tests).
        price: Of a GPU for an hour, in any currency; 2.5 is an example.
    """
    for name, value in {"steps": steps, "batch": batch, "peak": peak, "bandwidth": bandwidth, "link": link}.items():
        if value <= 0:
            raise ValueError(f"{name} is {value}, expected a positive number; set --{name}.")
    if price < 0:
        raise ValueError(f"price is {price}, expected 0 or more; set --price.")
    if not files:
        raise ValueError("files is empty, expected a JSON of uva bench train for each stage; name them: '[a.json]'.")
    if wrong := [share for share in mfu or () if not 0 < share <= 1]:
        raise ValueError(f"mfu has {wrong[0]}, expected shares of the peak in (0, 1], such as 0.4.")
    encoding = None if encode is None else encoding_flops(encode)
    stages = [read_stage(path, encoding) for path in files]
    lines = [*map(summary, stages), f"{steps} updates of {batch} samples in each, {price:g} for a GPU hour\n\n", HEAD]
    for share in [None] if measured else mfu or UTILISATION:
        device = Device(peak * TERA, share, bandwidth * GIGA, link * GIGA)
        for count in gpus or GPUS:
            lines.append(row(stages, steps, batch, count, device, price))
    sys.stdout.write("".join(lines))
