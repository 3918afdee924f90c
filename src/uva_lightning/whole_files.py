"""Files and folders that are whole or absent, whatever ends the process that writes them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PART = ".part"


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Give a name to write a file or a folder under; it gets its real name when it is whole, a file when on the disk.

    The folder above it is made where absent. After an error nothing is left.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}{PART}")
    try:
        yield part
        if part.is_file():
            with part.open("rb") as file:
                os.fsync(file.fileno())
        os.replace(part, path)
        sync_folder(path.parent)
    finally:
        shutil.rmtree(part) if part.is_dir() else part.unlink(missing_ok=True)


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Give a folder to write into; it gets its real name when it is whole, and vanishes after an error.

    Raises:
        FileExistsError: There is something at the path already, other than an empty folder.
    """
    if path.is_file() or (path.is_dir() and any(path.iterdir())):
        raise FileExistsError(f"{path} exists and is not empty, expected a new folder; name another one or remove it.")
    with whole(path) as part:
        part.mkdir()
        yield part


def remove_parts(folder: Path) -> None:
    """Delete what writers that were killed have left in a folder; nobody may be writing into it."""
    for part in folder.glob(f".*{PART}"):
        part.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Force new names in a folder to the disk, where the system can."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
