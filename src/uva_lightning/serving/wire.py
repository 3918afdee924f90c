"""Messages between policy and robot: msgpack with arrays, as openpi's clients speak it, decoded within limits.

An array is a map of four byte-string keys: ``__ndarray__`` True, ``data`` its bytes in C order, ``dtype`` as numpy
writes it (``<f4``), ``shape``. A numpy scalar is ``__npgeneric__`` True with ``data`` and ``dtype``. Nothing is ever
unpickled, and nothing that a message says makes the decoder reserve more than a small multiple of the message's size.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

try:
    import msgpack
except ImportError as error:  # pragma: no cover - depends on the installation
    raise ImportError(
        f"Serving policies needs msgpack ({error}); install it with pip install 'uva_lightning[serve]'."
    ) from error

Message = dict[str, Any]
"""Names to numbers, text, booleans, None, arrays, and lists and maps of these."""

ARRAY, SCALAR = b"__ndarray__", b"__npgeneric__"
DTYPES = frozenset({"b1", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f2", "f4", "f8"})
"""Kinds of numbers that travel; no objects, text, structures or times."""
MIB = 1 << 20


class WireError(ValueError):
    """A message that is refused; the text says why, to whoever sent it."""


@dataclass(frozen=True)
class Limits:
    """Bounds on one message.

    Args:
        message_bytes: Largest message.
        array_bytes: Largest array in it.
        dims: Most dimensions of an array.
        entries: Most entries of all maps and lists together; arrays count as four.
        depth: Most maps and lists inside one another.
        text: Longest text in bytes.
    """

    message_bytes: int = 16 * MIB
    array_bytes: int = 16 * MIB
    dims: int = 8
    entries: int = 4096
    depth: int = 8
    text: int = 16384

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value < 1:
                raise ValueError(f"The limit {name} is {value}, expected at least 1.")


USUAL = Limits()


def encode(message: Message) -> bytes:
    """Write a message.

    Raises:
        WireError: An array holds something else than numbers, or a value is of a type that cannot travel.
    """
    try:
        packed: bytes = msgpack.packb(message, default=_written)
    except (TypeError, OverflowError) as error:
        raise WireError(f"A message cannot be sent: {error}; expected numbers, text, arrays, lists and maps.") from None
    return packed


def decode(data: bytes, limits: Limits = USUAL) -> Message:
    """Read a message.

    Returns:
        Its entries; arrays are read-only views of the message, little- or big-endian as they came made native.

    Raises:
        WireError: It is no map of names, or exceeds a limit.
    """
    if len(data) > limits.message_bytes:
        raise WireError(f"The message has {len(data)} bytes, expected at most {limits.message_bytes}.")
    reading = _Reading(limits)
    try:
        found = msgpack.unpackb(
            data,
            object_hook=reading.map,
            list_hook=reading.list,
            ext_hook=_no_extension,
            strict_map_key=True,
            max_str_len=limits.text,
            max_bin_len=limits.array_bytes,
            max_array_len=limits.entries,
            max_map_len=limits.entries,
            max_ext_len=0,
        )
    except WireError:
        raise
    except RecursionError:
        raise WireError(f"The message is nested too deeply, expected at most {limits.depth} levels.") from None
    except (ValueError, TypeError, OverflowError, msgpack.exceptions.UnpackException) as error:
        why = str(error) or type(error).__name__
        raise WireError(f"The message is no msgpack within the limits ({why}); expected a map of names.") from None
    if not isinstance(found, dict):
        raise WireError(f"The message is a {type(found).__name__}, expected a map of names to values.")
    _check(found, limits)
    return found


class _Reading:
    """Counts what one message holds while it is read, since a byte of a message may become 60 of objects."""

    def __init__(self, limits: Limits) -> None:
        self.limits, self.entries = limits, 0

    def map(self, found: dict[Any, Any]) -> Any:
        self._count(len(found))
        if ARRAY in found:
            return _array(found, self.limits)
        return _scalar(found) if SCALAR in found else found

    def list(self, found: list[Any]) -> list[Any]:
        self._count(len(found))
        return found

    def _count(self, more: int) -> None:
        self.entries += 1 + more  # an empty list costs as much as an entry
        if self.entries > self.limits.entries:
            raise WireError(f"The message has more than {self.limits.entries} entries; send rows of numbers as arrays.")


def _check(message: Message, limits: Limits) -> None:
    """Refuse what is nested too deeply, and names that are bytes."""
    waiting: list[tuple[Any, int]] = [(message, 1)]
    while waiting:
        value, depth = waiting.pop()
        if depth > limits.depth:
            raise WireError(f"The message is nested too deeply, expected at most {limits.depth} levels.")
        if isinstance(value, dict):
            if odd := [name for name in value if not isinstance(name, str)]:
                raise WireError(f"The message has the name {odd[0]!r:.80}, expected text.")
            waiting += [(entry, depth + 1) for entry in value.values() if isinstance(entry, dict | list)]
        elif isinstance(value, list):
            waiting += [(entry, depth + 1) for entry in value if isinstance(entry, dict | list)]


def _dtype(name: Any) -> np.dtype[Any]:
    plain = name[1:] if isinstance(name, str) and name[:1] in ("<", ">", "|", "=") else name
    if not isinstance(name, str) or plain not in DTYPES:
        known = ", ".join(sorted(DTYPES))
        raise WireError(f"An array has the dtype {name!r:.80}, expected one of {known} with its byte order.")
    return np.dtype(name)


def _array(found: dict[Any, Any], limits: Limits) -> NDArray[Any]:
    if set(found) != {ARRAY, b"data", b"dtype", b"shape"} or found[ARRAY] is not True:
        raise WireError("An array lacks one of __ndarray__, data, dtype and shape, or has more; expected these four.")
    data, dtype, shape = found[b"data"], _dtype(found[b"dtype"]), found[b"shape"]
    whole = isinstance(shape, list) and all(type(n) is int and n >= 0 for n in shape)
    if not whole or len(shape) > limits.dims:
        raise WireError(f"An array has the shape {shape!r:.80}, expected at most {limits.dims} whole numbers.")
    # With dimensions of 0 the array is empty, but numpy still multiplies the others.
    if math.prod(max(n, 1) for n in shape) * dtype.itemsize > limits.array_bytes:
        raise WireError(f"An array of shape {shape!r:.80} exceeds the limit of {limits.array_bytes} bytes.")
    size = math.prod(shape) * dtype.itemsize
    if not isinstance(data, bytes) or len(data) != size:
        have = f"{len(data)} bytes" if isinstance(data, bytes) else type(data).__name__
        raise WireError(f"An array of shape {shape} and dtype {dtype.str} has {have} of data, expected {size} bytes.")
    if dtype.kind == "b":  # any byte but 0 and 1 makes a bool that is neither
        return (np.frombuffer(data, np.uint8) != 0).reshape(shape)
    values = np.frombuffer(data, dtype).reshape(shape)
    return values.astype(dtype.newbyteorder("="), copy=False)


def _scalar(found: dict[Any, Any]) -> np.generic:
    if set(found) != {SCALAR, b"data", b"dtype"} or found[SCALAR] is not True:
        raise WireError("A numpy scalar lacks one of __npgeneric__, data and dtype, or has more; expected these three.")
    dtype, value = _dtype(found[b"dtype"]).newbyteorder("="), found[b"data"]
    if type(value) not in ((bool,) if dtype.kind == "b" else (float, int) if dtype.kind == "f" else (int,)):
        raise WireError(f"A numpy scalar of dtype {dtype.str} has the value {value!r:.80}, expected a number of it.")
    try:
        scalar: np.generic = dtype.type(value)
    except OverflowError:
        raise WireError(f"A numpy scalar of dtype {dtype.str} has the value {value!r:.80}, out of its range.") from None
    return scalar


def _no_extension(code: int, data: bytes) -> Any:
    raise WireError(f"The message has a msgpack extension of type {code}, expected none.")


def _written(value: Any) -> Any:
    """Write what msgpack does not know."""
    if isinstance(value, np.ndarray | np.generic):
        if value.dtype.str[1:] not in DTYPES:
            raise TypeError(f"an array has the dtype {value.dtype}")
        if isinstance(value, np.generic):
            return {SCALAR: True, b"data": value.item(), b"dtype": value.dtype.str}
        return {ARRAY: True, b"data": value.tobytes(), b"dtype": value.dtype.str, b"shape": value.shape}
    raise TypeError(f"{type(value).__name__} is no value of a message")
