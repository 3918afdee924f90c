"""Micro-batching: the requests that wait while the model works go into its next call together."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from uva_lightning.serving.served import Served, Session
from uva_lightning.serving.wire import Message

SHARE = 0.25
"""Waiting for others may take so much of the time of one call."""

REMEMBERED = 4
"""Calls after which clients that no longer ask at once are not waited for."""

_log = logging.getLogger(__name__)


class PolicyError(Exception):
    """A defect of the policy, not of the request; the server's log has the traceback."""


@dataclass(frozen=True)
class Answer:
    """A reply with how it came about.

    Args:
        reply: Of the policy.
        wait_ms: From the request to the start of the call.
        infer_ms: Duration of the call.
        batch: Requests that it answered.
    """

    reply: Message
    wait_ms: float
    infer_ms: float
    batch: int


@dataclass
class _Waiting:
    session: Session
    message: Message
    answer: asyncio.Future[Answer]
    since: float = field(default_factory=time.perf_counter)


@dataclass
class _Pace:
    """How a session asks: when it was answered last, unless it waits, and whether it then asked again at once."""

    answered: float = -math.inf
    quick: bool = True


class Batcher:
    """Hand the requests of many clients to one model, one call at a time, in the order in which they came.

    Clients that ask again as soon as they are answered, or as many as lately asked at once, are waited for, so that
    they stay in step: for ``wait_s``, or a quarter of the time that a call takes if that is less.

    Args:
        served: Answers; all its work is done in one thread of its own.
        most: Requests in a call.
        wait_s: Longest wait for others, in s.
    """

    def __init__(self, served: Served, most: int = 32, wait_s: float = 0.005) -> None:
        if most < 1 or wait_s < 0:
            raise ValueError(f"most is {most} and wait_s {wait_s}, expected at least 1 request and at least 0 s.")
        self.served, self.most, self.wait_s = served, most, wait_s
        self.calls, self.answered, self.largest = 0, 0, 0
        self._waiting: deque[_Waiting] = deque()
        self._paces: dict[int, _Pace] = {}
        self._arrived = asyncio.Event()
        self._usual_s = 0.0  # duration of a call
        self._bursts = deque([1], maxlen=REMEMBERED)  # requests that came close together
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="policy")
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to answer, on the running loop."""
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Answer nothing any more; a call that is under way ends first."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        for one in self._waiting:
            one.answer.cancel()
        self._waiting.clear()
        await asyncio.to_thread(self._thread.shutdown)

    @property
    def waiting(self) -> int:
        """Requests that wait for a call."""
        return len(self._waiting)

    async def open(self) -> Session:
        """Begin a session, in the thread of the model."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, self.served.open)

    async def metadata(self) -> Message:
        """Give the facts, in the thread of the model."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, self.served.metadata)

    async def close(self, session: Session) -> None:
        """End a session: nobody waits for it any more."""
        self._paces.pop(id(session), None)
        await asyncio.get_running_loop().run_in_executor(self._thread, session.close)

    async def ask(self, session: Session, message: Message) -> Answer:
        """Wait for the answer to one request; a session asks one at a time.

        Raises:
            ValueError: The request cannot be answered; the text is for who asked.
            PolicyError: The policy failed.
        """
        one = _Waiting(session, message, asyncio.get_running_loop().create_future())
        pace = self._paces.setdefault(id(session), _Pace())
        pace.quick = math.isinf(pace.answered) or one.since - pace.answered <= self._patience
        pace.answered = -math.inf
        self._waiting.append(one)
        self._arrived.set()
        return await one.answer

    async def _run(self) -> None:
        while True:
            if not self._waiting:
                self._arrived.clear()
                await self._arrived.wait()
            await self._gather()
            batch = [self._waiting.popleft() for _ in range(min(self.most, len(self._waiting)))]
            batch = [one for one in batch if not one.answer.cancelled()]  # whose client has gone meanwhile
            if batch:
                await self._call(batch)

    @property
    def _patience(self) -> float:
        return min(self.wait_s, SHARE * self._usual_s)

    async def _gather(self) -> None:
        """Wait for those who are about to ask."""
        until = time.perf_counter() + self._patience
        while len(self._waiting) < self.most and self._expects() and (left := until - time.perf_counter()) > 0:
            self._arrived.clear()
            try:
                await asyncio.wait_for(self._arrived.wait(), left)
            except TimeoutError:
                return

    def _expects(self) -> bool:
        """Say whether a session may ask any moment."""
        if len(self._waiting) < min(max(self._bursts), len(self._paces)):
            return True
        since = time.perf_counter() - self._patience
        return any(pace.quick and pace.answered >= since for pace in self._paces.values())

    async def _call(self, batch: list[_Waiting]) -> None:
        start = time.perf_counter()
        work = asyncio.get_running_loop().run_in_executor(self._thread, self._work, batch)
        outcomes = await asyncio.shield(work)
        taken = time.perf_counter() - start
        self._usual_s = taken if not self.calls else 0.8 * self._usual_s + 0.2 * taken
        self.calls, self.answered = self.calls + 1, self.answered + len(batch)
        self.largest = max(self.largest, len(batch))
        self._bursts.append(len(batch) + len(self._waiting))
        for one, outcome in zip(batch, outcomes, strict=True):
            if (pace := self._paces.get(id(one.session))) is not None:
                pace.answered = time.perf_counter()
            if one.answer.cancelled():
                continue
            if isinstance(outcome, Exception):
                one.answer.set_exception(outcome)
            else:
                wait = 1000 * (start - one.since)
                one.answer.set_result(Answer(outcome, wait, 1000 * taken, len(batch)))

    def _work(self, batch: list[_Waiting]) -> list[Message | Exception]:
        """Answer a batch in the model's thread; whoever cannot be answered does not spoil it for the others."""
        outcomes: dict[int, Message | Exception] = {}
        prepared: dict[int, Any] = {}
        for index, one in enumerate(batch):
            try:
                prepared[index] = one.session.prepare(one.message)
            except Exception as error:
                outcomes[index] = _told(error)
        if prepared:
            outcomes |= dict(zip(prepared, self._infer(list(prepared.values())), strict=True))
        return [outcomes[index] for index in range(len(batch))]

    def _infer(self, prepared: list[Any]) -> list[Message | Exception]:
        try:
            replies = list(self.served.infer(prepared))
        except Exception as error:
            if len(prepared) == 1:
                return [_told(error)]
            return [outcome for one in prepared for outcome in self._infer([one])]
        if len(replies) != len(prepared):
            return [PolicyError(f"The policy gave {len(replies)} replies to {len(prepared)} requests.")] * len(prepared)
        return [*replies]


def _told(error: Exception) -> Exception:
    """Give what a client is told: the sentence of a refusal, and of a defect no more than its name."""
    if isinstance(error, ValueError):
        return error
    _log.error("The policy failed.", exc_info=error)
    return PolicyError(f"The policy failed with {type(error).__name__}; the log of the server says where.")
