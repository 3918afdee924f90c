"""Read a checkpoint of another program without running anything in it: tensors, containers and plain values only.

Files of ``torch.save`` are pickles, and a pickle names functions to call. UVA's hold a configuration object, so
``torch.load(weights_only=True)`` refuses them as a whole. Here every global that is no tensor and no container becomes
an inert object whose name is recorded; nothing is imported and nothing is called.
"""

from __future__ import annotations

import mmap
import pickle
import pickletools
import struct
import zipfile
import zlib
from collections import Counter, OrderedDict
from dataclasses import dataclass
from io import BytesIO
from math import prod
from pathlib import Path
from typing import Any, NoReturn

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

SAFETENSORS = ".safetensors"
_DTYPES = {
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}
_CONTAINERS = {
    ("collections", "OrderedDict"): OrderedDict,
    ("builtins", "set"): set,
    ("__builtin__", "set"): set,  # as protocol 2 writes it
}
_REBUILDERS = {("torch._utils", "_rebuild_tensor_v2"): 4, ("torch._utils", "_rebuild_parameter"): 1}
_LOCAL_HEADER, _NAME_LENGTHS = 30, 26  # bytes, as the zip format says
_UNREADABLE = (
    *(pickle.UnpicklingError, zipfile.BadZipFile, struct.error, EOFError, OSError, RuntimeError, RecursionError),
    *(ValueError, TypeError, LookupError, AttributeError, ArithmeticError, MemoryError, NotImplementedError),
)


@dataclass(frozen=True)
class Content:
    """What a file holds.

    Attributes:
        values: Containers, plain values and tensors; what was skipped is an ``Inert`` in its place.
        skipped: How often each global was left out, by its full name.
    """

    values: Any
    skipped: Counter[str]


class Inert:
    """Stands for an object that was not built; keeps the state it would have been given."""

    state: Any

    def __new__(cls, *args: Any, **kwargs: Any) -> Inert:
        """Take any arguments."""
        made = object.__new__(cls)
        made.__dict__["state"] = None
        return made

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Do nothing with the arguments."""

    def __setstate__(self, state: Any) -> None:
        self.__dict__["state"] = state

    def __call__(self, *args: Any, **kwargs: Any) -> Inert:
        """Stand for the result too."""
        return Inert()

    def __setitem__(self, key: Any, value: Any) -> None:
        """Drop an entry."""

    def append(self, item: Any) -> None:
        """Drop an item."""

    def add(self, item: Any) -> None:
        """Drop an item."""

    def extend(self, items: Any) -> None:
        """Drop items."""


def read(path: Path) -> Content:
    """Read a file of ``torch.save`` or safetensors.

    Tensors stay on disk until they are used; their checksums are compared first.

    Args:
        path: File.

    Raises:
        ValueError: There is no such file, it is damaged, or it is in another format.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"There is no file {path}, expected a checkpoint of the official code; give its path.")
    try:
        if path.suffix == SAFETENSORS:
            return Content(_read_safetensors(path), Counter())
        if not zipfile.is_zipfile(path):
            _refuse_non_zip(path)
        return _read_zip(path)
    except _UNREADABLE as error:
        if isinstance(error, _Refused):
            raise
        raise ValueError(
            f"{path} cannot be read as a checkpoint ({type(error).__name__}: {error}); it is damaged or incomplete, "
            "fetch it again."
        ) from error


def plain(value: Any) -> Any:
    """Take what is plain of a value, also from within configuration objects of OmegaConf, which were not built.

    Returns:
        Nested dict and list of str, int, float, bool and None; anything else is left out, and so is what stands in a
        second place, as a loop does.
    """
    return _plain(value, set())


def _plain(value: Any, seen: set[int]) -> Any:
    if isinstance(value, Inert) and isinstance(value.state, dict):
        value = value.state.get("_content", value.state.get("_val"))
    if not isinstance(value, dict | list | tuple):
        return value if isinstance(value, str | int | float | bool) else None
    if id(value) in seen:
        return None
    seen.add(id(value))
    if isinstance(value, dict):
        return {key: _plain(entry, seen) for key, entry in value.items() if isinstance(key, str)}
    return [_plain(entry, seen) for entry in value]


class _Refused(ValueError):
    """A file that is whole, but in a format that is not read."""


class _Rebuild:
    """Stands for a function of torch that makes a tensor."""

    __slots__ = ("arguments",)

    def __init__(self, arguments: int) -> None:
        self.arguments = arguments

    def __call__(self, first: Tensor, *rest: Any) -> Tensor:
        if not isinstance(first, Tensor):
            raise TypeError("a tensor has no storage")
        if self.arguments == 1:  # a parameter around a tensor
            return first
        offset, size, stride = rest[:3]
        if offset < 0 or min((*size, *stride), default=0) < 0 or prod(size) > first.numel():
            raise ValueError(f"a tensor of {list(size)} does not fit its storage of {first.numel()}")
        return first.as_strided(tuple(size), tuple(stride), offset)


class _Storage:
    """Stands for a storage class."""

    __slots__ = ("dtype",)

    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype = dtype


class _Unpickler(pickle.Unpickler):
    """Builds tensors and containers; every other global becomes an ``Inert`` class of its own."""

    def __init__(self, text: bytes, archive: _Archive) -> None:
        super().__init__(BytesIO(text))
        self.archive, self.skipped = archive, Counter[str]()

    def find_class(self, module: str, name: str) -> Any:
        """Never imports anything."""
        if (module, name) in _CONTAINERS:
            return _CONTAINERS[module, name]
        if (module, name) in _REBUILDERS:
            return _Rebuild(_REBUILDERS[module, name])
        if module == "torch" and name in _DTYPES:
            return _Storage(_DTYPES[name])
        if module == "torch" and isinstance(dtype := torch.__dict__.get(name), torch.dtype):
            return dtype
        self.skipped[f"{module}.{name}"] += 1
        return type("Inert", (Inert,), {})

    def persistent_load(self, pid: Any) -> Tensor:
        """Give a storage as a flat tensor."""
        kind, storage, key, _, count = pid
        if kind != "storage" or not isinstance(storage, _Storage) or not isinstance(key, str):
            raise TypeError(f"a storage of unknown kind {kind!r}")
        return self.archive.storage(key, storage.dtype, int(count))


class _Archive:
    """The zip file of ``torch.save``, mapped into memory.

    Args:
        path: File.
    """

    def __init__(self, path: Path) -> None:
        with zipfile.ZipFile(path) as file:
            self.entries = {info.filename: info for info in file.infolist()}
        with path.open("rb") as raw:
            self.bytes = mmap.mmap(raw.fileno(), 0, access=mmap.ACCESS_COPY)
        pickles = [name for name in self.entries if name.endswith("data.pkl")]
        if len(pickles) != 1:
            raise _Refused(f"{path} is a zip file without tensors, expected a file of torch.save or safetensors.")
        self.root = pickles[0].removesuffix("data.pkl")
        if (order := f"{self.root}byteorder") in self.entries and bytes(self.record(order)) != b"little":
            raise _Refused(f"{path} was written on a big-endian machine, expected little-endian; save it again here.")
        self.storages: dict[str, Tensor] = {}

    def record(self, name: str) -> memoryview:
        """Give an entry's bytes, compared with their checksum."""
        info = self.entries[name]
        if info.compress_type != zipfile.ZIP_STORED:
            raise ValueError(f"'{name}' is compressed")
        header = info.header_offset
        name_length, extra = struct.unpack_from("<HH", self.bytes, header + _NAME_LENGTHS)
        start = header + _LOCAL_HEADER + name_length + extra
        found = memoryview(self.bytes)[start : start + info.file_size]
        if len(found) != info.file_size or zlib.crc32(found) != info.CRC:
            raise ValueError(f"the bytes of '{name}' do not match their checksum")
        return found

    def storage(self, key: str, dtype: torch.dtype, count: int) -> Tensor:
        """Give a storage of ``count`` numbers as a flat tensor."""
        if key not in self.storages:
            record = self.record(f"{self.root}data/{key}")
            if len(record) != count * dtype.itemsize:
                raise ValueError(f"storage {key} has {len(record)} bytes for {count} numbers of {dtype}")
            self.storages[key] = torch.frombuffer(record, dtype=dtype) if count else torch.empty(0, dtype=dtype)
        stored = self.storages[key]
        if stored.dtype != dtype or stored.numel() != count:
            raise ValueError(f"storage {key} is used for two kinds of numbers")
        return stored


def _read_zip(path: Path) -> Content:
    archive = _Archive(path)
    text = bytes(archive.record(f"{archive.root}data.pkl"))
    _check_sizes(text)
    unpickler = _Unpickler(text, archive)
    values = unpickler.load()
    return Content(values, unpickler.skipped)


def _check_sizes(text: bytes) -> None:
    """Refuse a pickle that asks for far more memory than it is long: a few bytes can make the unpickler take it all."""
    for opcode, argument, _ in pickletools.genops(text):
        if opcode.name in ("PUT", "LONG_BINPUT") and isinstance(argument, int) and argument > len(text):
            raise ValueError(f"it numbers {argument} objects in {len(text)} bytes")


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, no mapping
    except SafetensorError as error:
        raise ValueError(str(error)) from error


def _refuse_non_zip(path: Path) -> NoReturn:
    with path.open("rb") as file:
        head = file.read(4)
    if head.startswith(b"PK"):
        raise EOFError("the end of the zip file is missing")
    if head.startswith(b"\x80"):
        raise _Refused(
            f"{path} is in the format of torch before 1.6, expected the zip format or safetensors; write it again "
            "with a torch that trusts the file: torch.save(torch.load(OLD, weights_only=True), NEW)."
        )
    raise _Refused(f"{path} is no checkpoint: it begins with {head!r}, expected a file of torch.save or safetensors.")
