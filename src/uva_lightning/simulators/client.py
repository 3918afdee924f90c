"""A simulator in its own environment, seen from here: a process that is asked and answers."""

from __future__ import annotations

import contextlib
import os
import subprocess
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO, cast

from numpy.typing import NDArray

from uva_lightning.simulators.installed import Installed
from uva_lightning.simulators.wire import Arrays, Refused, receive, send

HERE = Path(__file__).parent
PATIENCE_S = 300.0
"""Seconds after which a simulator that does not answer counts as dead."""
_FAREWELL_S = 5.0


class SimulatorDied(ChildProcessError):
    """The process of a simulator ended by itself, or does not answer any more."""


class Client:
    """Start a simulator, ask it, and end it.

    Args:
        kind: Its name, or ``file.py:Class``.
        place: Where its environment lies.
        patience_s: Seconds that an answer may take.
    """

    def __init__(self, kind: str, place: Installed, patience_s: float = PATIENCE_S) -> None:
        self.kind, self.patience_s = kind, patience_s
        clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        self.process = subprocess.Popen(
            [str(place.python), "-I", str(HERE), kind, str(place.folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=clean,
        )

    def ask(
        self, verb: str, arrays: Arrays | None = None, **given: Any
    ) -> tuple[Mapping[str, Any], Mapping[str, NDArray[Any]]]:
        """Have the simulator do something.

        Args:
            verb: Method of the simulator.
            arrays: Its arguments that are arrays.
            given: Its other arguments.

        Raises:
            ValueError: It refuses.
            SimulatorDied: Its process is gone, or did not answer in time.
            RuntimeError: It failed, with its traceback.
        """
        over = threading.Event()

        def give_up() -> None:
            over.set()
            self.process.kill()

        late = threading.Timer(self.patience_s, give_up)
        late.daemon = True
        late.start()
        try:
            send(cast(BinaryIO, self.process.stdin), {"verb": verb, **given}, arrays)
            head, found = receive(cast(BinaryIO, self.process.stdout))
        except (EOFError, OSError) as error:
            status = self.process.wait()
            why = f"did not answer for {self.patience_s:.0f} s" if over.is_set() else f"ended with status {status}"
            raise SimulatorDied(
                f"The simulator {self.kind} {why} at '{verb}', expected an answer; what it wrote stands above, and "
                "memory may be short: try fewer workers."
            ) from error
        finally:
            late.cancel()
        if words := head.get("error"):
            raise ValueError(words) if head.get("kind") == "refused" else RuntimeError(words)
        return head, found

    def close(self) -> None:
        """End the process."""
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):  # what a dead worker did not read is lost with it
                    stream.close()  # the worker ends when its pipe does
        try:
            self.process.wait(_FAREWELL_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


__all__ = ["Client", "Refused", "SimulatorDied"]
