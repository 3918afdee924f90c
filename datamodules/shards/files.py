"""Files that are whole or absent, and folders that have one writer."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PART = ".part"
LOCK = ".lock"
CHUNK = 1 << 20
FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Give a name to write under; the file gets its real name when it is whole and on the disk.

    Raises:
        OSError: It cannot be written; nothing is left of it.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}{PART}")
    try:
        yield part
        with part.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(part, path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        if error.errno in FULL:
            raise OSError(
                f"{path} cannot be written ({error.strerror}), expected room for it; free some or name another folder. "
                "The shards that are done are kept: the same command goes on from there."
            ) from error
        raise
    finally:
        part.unlink(missing_ok=True)


def amount(size: float) -> str:
    """Write a number of bytes for people."""
    return f"{size / 1e9:,.1f} GB" if size >= 1e9 else f"{size / 1e6:,.2f} MB"


def digest(path: Path) -> str:
    """Hash a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


@contextmanager
def only_writer(folder: Path) -> Iterator[None]:
    """Hold a folder against other writers, on this machine and on others that share it; a kill lets go of it.

    Raises:
        ValueError: There is another writer.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / LOCK).open("a+") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            file.seek(0)
            raise ValueError(
                f"{folder} is being written by {file.read() or 'another process'}, expected no other writer; wait for "
                "it, or name another folder."
            ) from error
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}")
        file.flush()
        yield


def remove_parts(folder: Path) -> None:
    """Delete what writers that were killed have left; the folder must be held."""
    for part in folder.glob(f".*{PART}"):
        part.unlink(missing_ok=True)
