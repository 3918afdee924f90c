"""Where the time of a training step goes: one timeline that is cut into parts, and the arithmetic done in each."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

DATA, TOKENIZER, TRUNK, HEADS = "data", "tokenizer", "trunk", "heads"
HEADS_BACKWARD, TRUNK_BACKWARD = "heads_backward", "trunk_backward"
SYNCHRONISATION, OPTIMIZER, AVERAGE, OTHER = "synchronisation", "optimizer", "average", "other"
PARTS = {
    DATA: "waiting for data, and writing a checkpoint where one is due",
    TOKENIZER: "encoding pictures, or drawing latents from a cache",
    TRUNK: "latent transformer, forward",
    HEADS: "heads, forward",
    HEADS_BACKWARD: "heads, backward",
    TRUNK_BACKWARD: "latent transformer, backward",
    SYNCHRONISATION: "gradients between processes, where the backward pass does not hide it",
    OPTIMIZER: "clipping and update",
    AVERAGE: "average of the weights",
    OTHER: "assignment, masks, normalisation, balancing, logging",
}
"""What a step consists of; together they are all of its time."""
_PAUSED = "paused"


class Mark(ABC):
    """The present moment on the timeline of a device."""

    @abstractmethod
    def reached(self) -> bool:
        """Whether the device has come so far."""

    @abstractmethod
    def wait(self) -> None:
        """Wait until it has."""

    @abstractmethod
    def until(self, later: Any) -> float:
        """Give the time to a later mark of the same kind in s; both are reached."""


class HostMark(Mark):
    """A moment of this process, for devices that do not run behind it."""

    def __init__(self) -> None:
        self._time = time.perf_counter()

    def reached(self) -> bool:
        """See ``Mark``."""
        return True

    def wait(self) -> None:
        """See ``Mark``."""

    def until(self, later: Any) -> float:
        """See ``Mark``."""
        return later._time - self._time


class CudaMark(Mark):
    """A place in the current stream: the process goes on, and the time is read when the GPU has got there."""

    def __init__(self) -> None:
        self._event = torch.cuda.Event(enable_timing=True)
        self._event.record()

    def reached(self) -> bool:
        """See ``Mark``."""
        return self._event.query()

    def wait(self) -> None:
        """See ``Mark``."""
        self._event.synchronize()

    def until(self, later: Any) -> float:
        """See ``Mark``."""
        return self._event.elapsed_time(later._event) / 1000


class StepClock:
    """Cut a timeline into parts: what begins ends what was before, so that the parts are all of the time.

    On a GPU the timeline is that of its stream. Nothing waits for the GPU but ``lap``.

    Args:
        device: Where the work is done.
        mark: Makes a mark; by the device if not given.
    """

    def __init__(self, device: torch.device, mark: Callable[[], Mark] | None = None) -> None:
        self._mark: Callable[[], Mark] = mark or (CudaMark if device.type == "cuda" else HostMark)
        self._marks: deque[tuple[str, Mark]] = deque()
        self._seconds: dict[str, float] = defaultdict(float)
        self.flops = PartFlops()
        self.part = _PAUSED

    def switch(self, part: str) -> str:
        """Let a part begin.

        Returns:
            The part that ends with it.
        """
        before, self.part = self.part, part
        if part != before:
            self.flops.credit(before)
            self._marks.append((part, self._mark()))
            self._fold()
        return before

    def pause(self) -> None:
        """Let the time until the next part not count."""
        self.switch(_PAUSED)

    @property
    def paused(self) -> bool:
        """Whether time does not count."""
        return self.part == _PAUSED

    @contextmanager
    def during(self, part: str) -> Iterator[None]:
        """Interrupt the present part, unless time does not count."""
        if self.paused:
            yield
            return
        before = self.switch(part)
        try:
            yield
        finally:
            self.switch(before)

    def lap(self) -> dict[str, float]:
        """Give the time of each part since the last lap in s, and begin a new lap in the present part."""
        self._marks.append((self.part, self._mark()))
        self._marks[-1][1].wait()
        self._fold()
        seconds = {part: time for part, time in self._seconds.items() if part != _PAUSED}
        self._seconds.clear()
        return seconds

    def _fold(self) -> None:
        """Add up what lies before the last mark that is reached; few marks are ever kept."""
        while len(self._marks) > 1 and self._marks[1][1].reached():
            part, begin = self._marks.popleft()
            self._seconds[part] += begin.until(self._marks[0][1])


def _attention(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    return sdpa_flop_count(query, key, value)


def _attention_backward(_: Any, query: Any, key: Any, value: Any, *__: Any, **___: Any) -> int:
    return 2 * sdpa_flop_count(query, key, value)


_OPS = torch.ops.aten
_OWN_COUNTS = {
    _OPS._scaled_dot_product_flash_attention_for_cpu: _attention,
    _OPS._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,
    _OPS._scaled_dot_product_flash_attention_backward: _attention_backward,
    _OPS._scaled_dot_product_efficient_attention_backward: _attention_backward,
    _OPS._scaled_dot_product_cudnn_attention_backward: _attention_backward,
}
"""Torch does not know attention on the CPU, and counts what the fused backward kernels compute again; here the same
model has the same FLOPs with every kernel."""


class PartFlops:
    """Count the arithmetic of each part while it is switched on: matrix products, convolutions and attention."""

    def __init__(self) -> None:
        self._counter: FlopCounterMode | None = None
        self._credited = 0
        self._parts: dict[str, int] = defaultdict(int)

    @property
    def counting(self) -> bool:
        """Whether it is switched on."""
        return self._counter is not None

    def begin(self) -> None:
        """Count from here; everything runs some times slower."""
        self._parts.clear()
        self._credited, self._counter = 0, FlopCounterMode(display=False, custom_mapping=_OWN_COUNTS)
        self._counter.__enter__()

    def credit(self, part: str) -> None:
        """Give what was counted since to a part."""
        if self._counter is not None:
            total = self._counter.get_total_flops()
            self._parts[part] += total - self._credited
            self._credited = total

    def end(self, part: str) -> dict[str, int]:
        """Count no longer; ``part`` gets the rest.

        Returns:
            FLOPs of each part that has some.
        """
        self.credit(part)
        if self._counter is not None:
            self._counter.__exit__(None, None, None)
            self._counter = None
        return {part: flops for part, flops in self._parts.items() if flops}


def ordered(values: dict[str, float], parts: Sequence[str] = tuple(PARTS)) -> dict[str, float]:
    """Give the parts that have a value, in the order of a step."""
    return {part: values[part] for part in parts if part in values}
