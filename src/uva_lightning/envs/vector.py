"""Environments in worker processes that stay; one that dies is replaced, and its episodes go on where they were."""

from __future__ import annotations

import multiprocessing
from collections.abc import Mapping, Sequence
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Self

from uva_lightning.envs.games import Chunk, Order, Recipe, Seen, Start, serve

PATIENCE_S = 600.0
"""Seconds after which a worker that does not answer counts as dead."""
STARTUP_S = 600.0
"""Seconds that the first answer of a worker may take at least: simulators load their scenes."""
MOST_CRASHES = 3
"""Crashes of a worker one after another, without an answer between, that are taken."""
_FAREWELL_S = 5.0


class EnvironmentFailed(ChildProcessError):
    """An environment raised an error, or ends its process whatever is done."""


class _Worker:
    """A process, and what would bring another one to where it is."""

    def __init__(self) -> None:
        self.past: dict[int, list[Order]] = {}  # orders of the episodes under way, by their numbers
        self.launch()

    def launch(self) -> None:
        """Start the process."""
        context = multiprocessing.get_context("spawn")  # a fork would share the threads and the GPU of this process
        self.connection: Connection
        self.connection, other = context.Pipe()
        self.process = context.Process(target=serve, args=(other,), name="uva environments", daemon=True)
        self.process.start()
        self.answered = False
        other.close()

    def end(self, seconds: float) -> None:
        """End the process, by force where it does not end by itself."""
        self.connection.close()
        self.process.join(seconds)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()
        self.process.close()


class Workers:
    """Play episodes side by side in several processes, which are kept for further ones. Use it in a ``with`` block.

    When a worker dies or does not answer, another one takes its place and repeats what its episodes have been through:
    simulators give the same again, so that no result is lost or changed.

    Args:
        count: Processes, at least 1.
        patience_s: Seconds that an answer may take.

    Attributes:
        crashes: Workers that had to be replaced.
    """

    def __init__(self, count: int = 1, patience_s: float = PATIENCE_S) -> None:
        if count < 1:
            raise ValueError(f"The number of workers is {count}, expected at least 1.")
        self.patience_s, self.crashes = patience_s, 0
        self._workers = [_Worker() for _ in range(count)]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def begin(self, recipe: Recipe, starts: Sequence[Start]) -> dict[int, Seen]:
        """Begin episodes, numbered from 0, in the place of all that are under way.

        Raises:
            EnvironmentFailed: One of the environments cannot be made or reset.
        """
        left: dict[_Worker, list[Order]] = {w: [(number, "leave") for number in w.past] for w in self._workers}
        for worker in self._workers:
            worker.past.clear()
        self._exchange(left)
        return self._give({number: ("begin", recipe, start) for number, start in enumerate(starts)})

    def step(self, chunks: Mapping[int, Chunk]) -> dict[int, Seen]:
        """Run a chunk, f32[h, a], in each of some episodes; those that end are forgotten.

        Raises:
            EnvironmentFailed: An environment raised an error, or a worker dies again and again.
        """
        return self._give({number: ("step", chunk) for number, chunk in chunks.items()})

    def close(self) -> None:
        """End all processes."""
        for worker in self._workers:
            worker.end(_FAREWELL_S)
        self._workers = []

    @property
    def processes(self) -> list[int]:
        """Process ids of the workers."""
        return [worker.process.pid or 0 for worker in self._workers]

    def _give(self, wanted: Mapping[int, Order]) -> dict[int, Seen]:
        shares: dict[_Worker, list[Order]] = {}
        for number, (verb, *given) in sorted(wanted.items()):
            worker = self._workers[number % len(self._workers)]
            shares.setdefault(worker, []).append((number, verb, *given))
        answers = self._exchange(shares)
        for worker, orders in shares.items():
            for number, *order in orders:
                worker.past.setdefault(number, []).append((number, *order))
                if answers[number].over:
                    del worker.past[number]
        return answers

    def _exchange(self, shares: Mapping[_Worker, list[Order]]) -> dict[int, Seen]:
        """Let all workers work at the same time, and replace those that die."""
        sent = {worker: _send(worker, orders) for worker, orders in shares.items() if orders}
        answers: dict[int, Seen] = {}
        for worker, reached in sent.items():
            orders = shares[worker]
            given = self._receive(worker) if reached else None
            for _ in range(MOST_CRASHES):
                if given is not None:
                    break
                given = self._again(worker, orders)
            if given is None:
                raise EnvironmentFailed(
                    f"The worker of the episodes {sorted({order[0] for order in orders})} died {MOST_CRASHES + 1} "
                    "times at the same step, expected it to live; what the simulator wrote stands above, and memory "
                    "may be short: try fewer workers. Finished episodes are kept."
                )
            answers |= dict(zip((order[0] for order in orders), given, strict=True))
        return answers

    def _again(self, worker: _Worker, orders: list[Order]) -> list[Seen] | None:
        """Replace a worker, repeat its episodes, and ask again; None if it dies once more."""
        self.crashes += 1
        worker.end(0)
        worker.launch()
        past = [order for numbered in worker.past.values() for order in numbered]
        return self._receive(worker) if _send(worker, orders, past) else None

    def _receive(self, worker: _Worker) -> list[Seen] | None:
        """Take an answer; None where there will be none."""
        try:
            if not worker.connection.poll(self.patience_s if worker.answered else max(self.patience_s, STARTUP_S)):
                return None
            answer: list[Seen] | str = worker.connection.recv()
            worker.answered = True
        except (EOFError, OSError):
            return None
        if isinstance(answer, str):
            raise EnvironmentFailed(answer)
        return answer


def _send(worker: _Worker, orders: Sequence[Order], past: Sequence[Order] = ()) -> bool:
    try:
        worker.connection.send((past, orders))
    except OSError:
        return False
    return True
