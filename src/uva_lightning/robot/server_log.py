"""What happened at an arm, one JSON object a line: it is on the disk before anything else goes on."""

from __future__ import annotations

import contextlib
import json
import sys
from pathlib import Path
from typing import Any


class EventLog:
    """Append events to a file. A full disk must not stop an arm from being stopped: it is only told.

    Args:
        path: File; its folder is made where absent. None writes to stderr alone.
        aloud: Whether each event is also told on stderr.
    """

    def __init__(self, path: Path | None, aloud: bool = False) -> None:
        self.path, self.aloud, self.broken = path, aloud, ""
        self._file = None
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("a", encoding="utf-8")

    def add(self, time: float, wall: float, kind: str, text: str, **numbers: Any) -> None:
        """Write an event: its time on the server's clock and on the wall's, its name, a sentence, and numbers."""
        line = json.dumps({"time": round(time, 6), "wall": round(wall, 3), "kind": kind, "text": text, **numbers})
        if self.aloud or self._file is None:
            self._tell(f"{kind}: {text}")
        if self._file is None:
            return
        try:
            self._file.write(f"{line}\n")
            self._file.flush()
        except (OSError, ValueError) as error:
            self.broken = f"{self.path} cannot be written ({error})"
            self._tell(f"uva arm serve: {self.broken}: {line}")

    @staticmethod
    def _tell(text: str) -> None:
        with contextlib.suppress(OSError):  # the terminal is gone
            sys.stderr.write(f"{text}\n")

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
