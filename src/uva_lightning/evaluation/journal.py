"""Finished episodes on disk, one line each, so that an evaluation that was killed goes on where it was."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np


class Journal:
    """A file of lines that only grows. The key of a line has all that it follows from: nothing else passes for it.

    Use it in a ``with`` block.

    Args:
        path: The file; its folder is there.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.known: dict[str, dict[str, Any]] = {}
        whole = 0
        if path.exists():
            for line in path.read_bytes().splitlines(keepends=True):
                try:
                    entry = json.loads(line)
                    self.known[entry["key"]] = entry["value"]
                except (ValueError, KeyError, TypeError):
                    break  # the last line of a process that was killed while it wrote
                if not line.endswith(b"\n"):
                    break
                whole += len(line)
        self._file = path.open("ab")
        self._file.truncate(whole)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def add(self, key: str, value: dict[str, Any]) -> None:
        """Write a result; it is on the disk when this returns."""
        self._file.write(json.dumps({"key": key, "value": value}, allow_nan=False).encode() + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())
        self.known[key] = value


def key_of(facts: Mapping[str, Any]) -> str:
    """Hash all that a result follows from."""
    text = json.dumps(facts, sort_keys=True, default=_plain)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    raise TypeError(f"{value!r} cannot be part of a key, expected plain values and arrays.")
