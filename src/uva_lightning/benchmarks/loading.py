"""How fast batches of windows come, and how long a training step would wait for them."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from uva_lightning.benchmarks.machine import MIB, peak_bytes, reset_peak
from uva_lightning.types import Batch

WARM = 2
"""Batches that are not counted: files are opened and tables are built."""
MILLISECONDS = 1000
ENOUGH = 50
"""Batches of which the numbers alone are fetched again, to tell their share of the time."""
BEARABLE = 0.02
"""Share of a step that a loader may keep it waiting."""


@dataclass(frozen=True)
class Loading:
    """Speed of one way of loading, in one process with one thread of torch.

    Args:
        what: Where pictures or latents come from.
        windows: Windows that were fetched.
        windows_per_s: In the time that passed.
        windows_per_cpu_s: In the time of processors: less where a decoder uses several cores, more where files are
            waited for or other programs run.
        mb_per_s: Size of the batches, in 10^6 bytes.
        p50_ms: Median time of a batch.
        p95_ms: 95 % of the batches take no longer.
        read_share: Share of the time for pictures or latents; the rest is actions, states and index arithmetic. None
            where they cannot be told apart.
        batch: Windows of a batch.
        peak_mib: Largest memory of the process, with all it holds.
    """

    what: str
    windows: int
    windows_per_s: float
    windows_per_cpu_s: float
    mb_per_s: float
    p50_ms: float
    p95_ms: float
    read_share: float | None
    batch: int
    peak_mib: float

    def row(self) -> str:
        """Lay out as a row of ``HEAD``."""
        read = "" if self.read_share is None else f"{self.read_share:.0%}"
        return (
            f"{self.what:<28}{self.windows_per_s:>11.0f}{self.windows_per_cpu_s:>11.0f}{self.mb_per_s:>9.0f}"
            f"{self.p50_ms:>9.1f}{self.p95_ms:>9.1f}{read:>7}{self.peak_mib:>10.0f}\n"
        )


HEAD = f"{'':<28}{'windows/s':>11}{'/s of CPU':>11}{'MB/s':>9}{'p50 ms':>9}{'p95 ms':>9}{'read':>7}{'peak MiB':>10}\n"


def measure(loader: DataLoader[Batch], what: str, seconds: float) -> Loading:
    """Fetch batches in this process, pass after pass, for some seconds; at least one batch.

    Args:
        loader: Random windows, without worker processes.
        what: Where pictures or latents come from.
        seconds: How long.

    Raises:
        ValueError: The loader has worker processes.
    """
    if loader.num_workers:
        raise ValueError(
            f"The loader has {loader.num_workers} workers, expected 0 to measure one core; set data.reading.workers=0."
        )
    reset_peak()
    times: list[float] = []
    windows = size = 0
    with one_thread():
        batches = _endless(loader)
        for _ in islice(batches, WARM):
            pass
        start, before_cpu = time.perf_counter(), time.process_time()
        while not times or time.perf_counter() - start < seconds:
            before = time.perf_counter()
            batch = next(batches)
            times.append(time.perf_counter() - before)
            windows, size = windows + len(batch), size + size_of(batch)
        passed, cpu = time.perf_counter() - start, time.process_time() - before_cpu
        numbers = _numbers_seconds(loader)
    took = sum(times)
    p50, p95 = np.quantile(times, (0.5, 0.95)) * MILLISECONDS
    return Loading(
        what,
        windows,
        windows / passed,
        windows / max(cpu, 1e-9),
        size / passed / 1e6,
        float(p50),
        float(p95),
        None if numbers is None else max(0.0, 1 - numbers * len(times) / took),
        round(windows / len(times)),
        peak_bytes() / MIB,
    )


@dataclass(frozen=True)
class Stall:
    """How long a step waits for its batch, by calculation from the rate of one core, the slower of the two measured.

    Args:
        load_ms: Time of one core for a batch.
        step_ms: Time of a training step without waiting.
    """

    load_ms: float
    step_ms: float

    def share(self, workers: int) -> float:
        """Share of the time spent waiting; with 0 workers loading and training take turns.

        What it costs to hand a batch from a worker to the training process is not in it.
        """
        if not workers:
            return self.load_ms / (self.load_ms + self.step_ms)
        return max(0.0, 1 - self.step_ms * workers / self.load_ms)

    def workers(self) -> int:
        """Fewest worker processes, each with a core of its own, for a share below ``BEARABLE``; 0 may do."""
        if self.share(0) < BEARABLE:
            return 0
        return max(1, math.ceil((1 - BEARABLE) * self.load_ms / self.step_ms))

    def sentence(self) -> str:
        """Say it in one line."""
        few = self.workers()
        enough = f", and {self.share(few):.1%} with {few} worker{'s' if few > 1 else ''}" if few else ""
        return (
            f"a batch takes {self.load_ms:.1f} ms, a step {self.step_ms:g} ms: a GPU waits {self.share(0):.1%} of the "
            f"time without workers{enough}"
        )


def stall(loading: Loading, batch: int, step_ms: float) -> Stall:
    """Compute how long a step of ``batch`` windows waits.

    Raises:
        ValueError: The step takes no time.
    """
    if step_ms <= 0:
        raise ValueError(f"step_ms is {step_ms}, expected the time of a training step in ms, such as 150.")
    return Stall(batch / min(loading.windows_per_s, loading.windows_per_cpu_s) * MILLISECONDS, step_ms)


def size_of(batch: Batch) -> int:
    """Bytes of all tensors of a batch."""
    parts: list[Any] = [batch.action, batch.past_action, batch.text]
    for group in (batch.video, batch.latents, batch.state, batch.future_state):
        parts += group.values()
    return sum(part.nbytes for part in parts if isinstance(part, Tensor))


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch use one thread, as it does in a worker process."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _endless(loader: DataLoader[Batch]) -> Iterator[Batch]:
    while True:
        yield from loader


def _numbers_seconds(loader: DataLoader[Batch]) -> float | None:
    """Time for a batch without pictures and latents, where the data set can leave them out."""
    dataset: Any = loader.dataset
    if not hasattr(dataset, "numbers") or loader.sampler is None:
        return None
    chosen = list(islice(iter(loader.sampler), ENOUGH))
    start = time.perf_counter()
    for rows in chosen:
        dataset.numbers(rows)
    return (time.perf_counter() - start) / len(chosen)
