"""``uva bench data``: how fast random training windows come out of a data set."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from uva_lightning.benchmarks.loading import HEAD, Loading, measure, stall
from uva_lightning.benchmarks.machine import MIB, free_bytes, machine
from uva_lightning.commands.checks import check_writable
from uva_lightning.datamodules.base import RobotDataModule
from uva_lightning.datamodules.latents import LatentsInMemory
from uva_lightning.datamodules.shards.speed import KEY, Generated, write_shards
from uva_lightning.datamodules.video_frames import VideoFrames
from uva_lightning.inspection.facts import innermost
from uva_lightning.results import write_json

TOKENS, MOMENTS = 256, 32
"""Latents of a frame as the base model has them: kl-f16 at 256 px, mean and log-variance of 16 channels."""
MEMORY_SHARE = 0.4
"""Share of the free memory that pictures or latents may take for a measurement."""
SHARDS, STEPS = 12800, 200
"""Steps of the shards that are generated, and of each of their episodes: 210 MB."""
WINDOWS = 100
"""Windows of the comparison with plain decoding of videos."""


def bench_data(
    data: RobotDataModule, seconds: float = 20, json: Path | None = None, step_ms: float | None = None
) -> None:
    """Measure random training windows of a data set on one core: as it is, from memory, and as cached latents.

    Latents, unless the data set is a cache itself, are random numbers of the base model's sizes (256 tokens of 32
    numbers a frame): what they mean does not change how long they take.

    Args:
        data: The data set, as for uva fit: --config FILE or --data CLASS --data.path PATH.
        seconds: How long each way of loading is measured.
        json: File for the numbers.
        step_ms: Time of a training step of data.batch_size windows on one GPU in ms, without waiting: the batch size
            over throughput/samples_per_second of a run whose throughput/data_wait_share is near 0. With it the share
            of the time that the GPU would wait is computed.
    """
    if seconds <= 0:
        raise ValueError(f"seconds is {seconds}, expected more than 0; set --seconds=20.")
    data.reading = replace(data.reading, workers=0)
    data.prepare_data()
    if json is not None:
        check_writable(json)
    data.setup("fit")
    said: dict[str, Any] = {"machine": machine(), "class": type(data).__name__, "path": str(data.path), "loading": []}
    where = said["machine"]
    sys.stdout.write(
        f"{where['processor']}, {where['cores']} cores, {where['memory_gib']} GiB, torch {where['torch']}\n"
        f"batches of {data.batch_size} windows, each of {2 * data.spec.frames} frames of {len(data.spec.cameras)} "
        f"cameras; one process, one thread\n\n{HEAD}"
    )
    for loading in measured(data, seconds):
        sys.stdout.write(loading.row())
        sys.stdout.flush()
        entry = asdict(loading)
        if step_ms is not None:
            waits = stall(loading, data.batch_size, step_ms)
            sys.stdout.write(f"  {waits.sentence()}\n")
            entry["stall"] = {
                **asdict(waits),
                "share_without_workers": waits.share(0),
                "workers_below_2_percent": waits.workers(),
            }
        said["loading"].append(entry)
    for camera, comparison in videos(data):
        sys.stdout.write(f"\n{camera}, from videos: {comparison.sentence()}\n")
        said.setdefault("video_ms_per_window", {})[camera] = asdict(comparison)
    if json is not None:
        write_json(json, said)


def measured(data: RobotDataModule, seconds: float) -> Iterator[Loading]:
    """Measure each way in which the data can be loaded.

    Args:
        data: After ``setup``.
        seconds: How long each.
    """
    if data.encoded_by is not None:
        data.cache(lambda frames: frames, data.encoded_by)
        yield measure(data.train_dataloader(), "its own latents, in shards", seconds)
    else:
        yield from _from_pictures(data, seconds)
    yield from _from_shards(data.batch_size, seconds)


def _from_shards(batch_size: int, seconds: float) -> Iterator[Loading]:
    """Measure shards of the base model's latents, of one camera, that lie in the page cache."""
    with TemporaryDirectory(prefix="uva-bench-") as folder:
        if shutil.disk_usage(folder).free < 2 * SHARDS * TOKENS * MOMENTS * 2:
            sys.stdout.write(f"{'latents in shards:':<28} left out, too little room in {folder}\n")
            return
        write_shards(Path(folder) / "shards", SHARDS // STEPS, STEPS, TOKENS, MOMENTS)
        made = Generated(Path(folder) / "shards", batch_size)
        made.setup("fit")
        made.cache(lambda frames: frames, KEY)
        for _ in made.train_dataloader():  # each episode is checked once, when it is first read
            pass
        yield measure(made.train_dataloader(), "latents in shards", seconds)


def _from_pictures(data: RobotDataModule, seconds: float) -> Iterator[Loading]:
    loader: Any = data.train_dataloader()
    store = data.store
    lazy = [name for name, video in store.video.items() if not isinstance(video, np.ndarray)]
    yield measure(loader, "pictures, read on demand" if lazy else "pictures in memory", seconds)
    size = sum(int(np.prod(video.shape)) for video in store.video.values())
    if lazy and _fits(size, "pictures in memory"):
        held = {name: np.ascontiguousarray(video[:]) for name, video in store.video.items()}
        loader.dataset.store = replace(store, video=held)
        yield measure(loader, "pictures in memory", seconds)
        del held, loader
    variants = len(data.train_dataloader().dataset.extras.encoded)  # type: ignore[attr-defined]
    shape = (variants, store.steps, TOKENS, MOMENTS)
    if _fits(2 * int(np.prod(shape)) * len(store.video), "latents in memory"):
        made = {camera: torch.randn(shape[2:]).half().repeat(*shape[:2], 1, 1) for camera in store.video}
        data.latents = {camera: LatentsInMemory(values) for camera, values in made.items()}
        yield measure(data.train_dataloader(), "latents in memory", seconds)
        data.latents = None


def videos(data: RobotDataModule) -> Iterator[tuple[str, Any]]:
    """Compare with plain decoding of whole windows, for each camera whose pictures are in videos."""
    from uva_lightning.video_speed import window_speed

    for camera, video in data.store.video.items():
        source = innermost(video)
        if isinstance(source, VideoFrames):
            yield camera, window_speed(source, data.window, WINDOWS)


def _fits(size: int, what: str) -> bool:
    """Tell whether something fits into memory, and say so where it does not."""
    free = free_bytes()
    if not free or size <= MEMORY_SHARE * free:
        return True
    sys.stdout.write(f"{what + ':':<28} left out, {size / MIB:.0f} MiB of {free / MIB:.0f} MiB free\n")
    return False
