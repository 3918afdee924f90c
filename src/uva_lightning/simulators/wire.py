"""Messages over a pipe: JSON with the arrays' names, types and shapes, then their bytes. Nothing in them is run."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from math import prod
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

Arrays = Mapping[str, NDArray[Any]]

TYPES = ("|u1", "<f4", "<f8", "<i8")
MOST = 256 * 2**20
"""Bytes of a message that are taken."""
_LENGTH = struct.Struct(">I")


class Refused(ValueError):
    """A request that cannot be met, in words for a person."""


def send(stream: BinaryIO, head: Mapping[str, Any], arrays: Arrays | None = None) -> None:
    """Write a message.

    Args:
        stream: Written and flushed.
        head: What JSON can hold.
        arrays: By name; of one of ``TYPES``.
    """
    blocks = {name: np.ascontiguousarray(array) for name, array in (arrays or {}).items()}
    listed = [[name, block.dtype.str, list(block.shape)] for name, block in blocks.items()]
    if wrong := [f"{name} {kind}" for name, kind, _ in listed if kind not in TYPES]:
        raise ValueError(f"The array {wrong[0]} cannot be sent, expected one of {', '.join(TYPES)}; convert it.")
    text = json.dumps({"head": head, "arrays": listed}).encode()
    stream.write(_LENGTH.pack(len(text)) + text + b"".join(block.tobytes() for block in blocks.values()))
    stream.flush()


def receive(stream: BinaryIO) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """Read a message: its head and its arrays.

    Raises:
        EOFError: The other side is gone.
        ValueError: These are no messages of ``send``.
    """
    (length,) = _LENGTH.unpack(_read(stream, _LENGTH.size))
    try:
        content = json.loads(_read(stream, length))
        head = dict(content["head"])
        listed = [(str(name), str(kind), [int(side) for side in shape]) for name, kind, shape in content["arrays"]]
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"A message begins with {length} bytes that are no head ({error}), expected JSON.") from error
    arrays: dict[str, NDArray[Any]] = {}
    for name, kind, shape in listed:
        if kind not in TYPES or min(shape, default=0) < 0:
            raise ValueError(f"The array '{name}' is {kind}{shape}, expected one of {', '.join(TYPES)}.")
        block = _read(stream, prod(shape) * np.dtype(kind).itemsize)
        arrays[name] = np.frombuffer(block, kind).reshape(shape).copy()
    return head, arrays


def _read(stream: BinaryIO, count: int) -> bytes:
    if count > MOST:
        raise ValueError(f"A message has a part of {count} bytes, expected at most {MOST}.")
    parts, left = [], count
    while left:
        part = stream.read(left)
        if not part:
            raise EOFError("The other side of the pipe is gone.")
        parts.append(part)
        left -= len(part)
    return b"".join(parts)
