"""An arm in another process: what it is told goes to a file, and files make it hang as ARX's SDK does, or break."""

from __future__ import annotations

import ctypes
import os
import struct
import time
from pathlib import Path

import numpy as np

from uva_lightning.robot.fake_arm import FakeArm

ROW = struct.Struct("<9d")
SOFT = 1.0


class Part:
    """Tells which process makes it."""

    def __init__(self, folder: str) -> None:
        with (Path(folder) / "made").open("a") as file:
            file.write(f"{os.getpid()}\n")


class LoggedArm(FakeArm):
    """Writes time, softness and set-point of every command.

    Args:
        folder: Of ``sent``, ``hang`` and ``break``.
        q: Where it lies at the begin, rad.
        part: Something else that only the driver's process may make.
    """

    def __init__(self, folder: str, q: list[float] | None = None, part: Part | None = None) -> None:
        super().__init__()
        self.folder, self.q = Path(folder), np.zeros(6) if q is None else np.array(q)
        self._file = (self.folder / "sent").open("ab", buffering=0)

    def state(self):
        if (self.folder / "hang").exists():
            ctypes.PyDLL(None).sleep(1000)  # keeps the interpreter's lock: no thread and no signal handler runs
        if (self.folder / "break").exists():
            raise ZeroDivisionError("nobody has thought of this")
        return super().state()

    def command(self, q, opening):
        self._file.write(ROW.pack(time.monotonic(), 0.0, *q, opening))
        super().command(q, opening)

    def damp(self):
        self._file.write(ROW.pack(time.monotonic(), SOFT, *self.q, self.opening))
        super().damp()


def sent(folder):
    """Give times f64[n], softness bool[n] and set-points f64[n, 7]."""
    rows = np.array(list(ROW.iter_unpack((folder / "sent").read_bytes())))
    return rows[:, 0], rows[:, 1] == SOFT, rows[:, 2:]
