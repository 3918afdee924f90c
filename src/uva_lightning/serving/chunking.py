"""Run chunks of actions smoothly: temporal ensembling, and asking ahead in real time.

Black 2025 is "Real-time execution of action chunking flow policies".
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from uva_lightning.policy.committed import Rest

Chunk = NDArray[np.float32]


class TemporalEnsemble:
    """Average what successive chunks say about the same step (ACT, Zhao 2023).

    A prediction counts ``exp(-decay * i)``, where ``i`` is 0 for the oldest chunk that still reaches the step; a small
    ``decay`` takes new observations up faster.

    Args:
        decay: As above, at least 0; ACT uses 0.01.
    """

    def __init__(self, decay: float = 0.01) -> None:
        if decay < 0 or not math.isfinite(decay):
            raise ValueError(f"decay is {decay}, expected a number from 0 on; ACT uses 0.01.")
        self.decay = decay
        self._chunks: list[Chunk] = []  # oldest first, each from the present step on

    def reset(self) -> None:
        """Begin an episode."""
        self._chunks = []

    def add(self, chunk: Chunk, steps: int = 1) -> Chunk:
        """Take a new chunk and give the average from now on.

        Args:
            chunk: f32[h, a], whose first action is for now.
            steps: Control steps since the last chunk.

        Returns:
            f32[h, a].
        """
        earlier = [old[steps:] for old in self._chunks if len(old) > steps]
        self._chunks = [*earlier, np.asarray(chunk, dtype=np.float32)]
        total, weight = np.zeros(chunk.shape, np.float64), np.zeros((len(chunk), 1))
        for index in range(len(chunk)):
            known = [old[index] for old in self._chunks if len(old) > index]
            factors = np.exp(-self.decay * np.arange(len(known)))
            total[index] = factors @ np.stack(known)
            weight[index] = factors.sum()
        averaged: Chunk = (total / weight).astype(np.float32)
        return averaged


Ask = Callable[[Mapping[str, Any], Rest | None], Chunk]
"""Gives a chunk f32[h, a], whose first action is for the step of the observation."""


class RealTimeChunking:
    """Ask for the next chunk while the present one is run, as in real-time chunking (Black 2025, algorithm 1).

    ``step`` is called once in each control step and gives one action at once; it waits only where a chunk has run out.
    The policy is told what it is committed to, so that the new chunk continues the present one without a jump.

    Args:
        ask: Policy; called in a thread of its own.
        execute: Steps of a chunk after which the next one is asked for, at least 1.
        delay: Steps that the first answer is expected to take; later the longest of the last ones counts.
        remembered: Number of delays that are remembered.

    Attributes:
        late: Steps that had to wait for a chunk.
    """

    def __init__(self, ask: Ask, execute: int = 8, delay: int = 1, remembered: int = 10) -> None:
        if execute < 1 or delay < 1 or remembered < 1:
            raise ValueError(f"execute is {execute}, delay {delay}, remembered {remembered}; expected at least 1 each.")
        self.execute, self.late = execute, 0
        self._ask, self._expected = ask, deque([delay], maxlen=remembered)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="chunking")
        self.reset()

    def reset(self) -> None:
        """Begin an episode; a chunk that is being computed is dropped."""
        self._chunk: Chunk | None = None
        self._place = 0  # of the present step in the chunk
        self._asked: Future[Chunk] | None = None
        self._since = 0  # steps since it was asked for

    @property
    def delay(self) -> int:
        """Steps that an answer is expected to take."""
        return max(self._expected)

    def step(self, observation: Mapping[str, Any]) -> NDArray[np.float32]:
        """Give the action f32[a] of this control step.

        Args:
            observation: Of this step; the policy sees those at which it is asked.

        Raises:
            ValueError: A chunk came so late, or is so short, that it says nothing about the present.
        """
        if self._asked is not None:
            self._since += 1
            over = self._chunk is None or self._place >= len(self._chunk)
            self.late += over and not self._asked.done()
            if over or self._asked.done():
                self._take(self._asked)
        if self._chunk is None or self._place >= len(self._chunk):
            self._chunk, self._place = self._thread.submit(self._ask, observation, None).result(), 0
        elif self._asked is None and self._place >= self.execute:
            rest = self._chunk[self._place :]
            committed = Rest(rest, min(self.delay, len(rest)))
            self._asked, self._since = self._thread.submit(self._ask, observation, committed), 0
        action: NDArray[np.float32] = self._chunk[self._place]
        self._place += 1
        return action

    def close(self) -> None:
        """End the thread, after the answer it waits for."""
        self._thread.shutdown(cancel_futures=True)

    def __enter__(self) -> Self:
        """Give the executor."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the thread."""
        self.close()

    def _take(self, asked: Future[Chunk]) -> None:
        """Go on with the chunk that was asked for ``_since`` steps ago; wait for it where it is not there."""
        self._asked = None  # also where it has failed
        chunk = asked.result()
        self._expected.append(self._since)
        if self._since >= len(chunk):
            raise ValueError(
                f"The chunk came {self._since} steps after it was asked for and has {len(chunk)} actions, expected "
                "more; use a faster policy, a longer chunk, or run the robot slower."
            )
        self._chunk, self._place = chunk, self._since
