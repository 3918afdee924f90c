"""How long the stages of a decision take."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch

MILLISECONDS = 1000.0


class Stages:
    """Add up the time of named stages: encode, text, trunk, action head, video head, decode.

    Args:
        synchronize: Wait for the GPU at both ends of a stage. Without it a stage is the time until its work is queued,
            and only the whole is right on a GPU; with it the whole is slower.
    """

    def __init__(self, synchronize: bool = False) -> None:
        self.synchronize = synchronize and torch.cuda.is_available()
        self.ms: dict[str, float] = {}

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Time a stage; one that runs several times is added up."""
        start = self._now()
        try:
            yield
        finally:
            self.ms[name] = self.ms.get(name, 0.0) + (self._now() - start) * MILLISECONDS

    def take(self) -> dict[str, float]:
        """Give the times in ms since the last call, and begin anew."""
        taken, self.ms = self.ms, {}
        return taken

    def _now(self) -> float:
        if self.synchronize:
            torch.cuda.synchronize()
        return time.perf_counter()
