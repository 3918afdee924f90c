"""Writing shards: a disk that may be full, and folders that have one writer."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from uva_lightning.whole_files import whole

LOCK = ".lock"
FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@contextmanager
def written(path: Path) -> Iterator[Path]:
    """See ``whole``; says how to go on where the disk is full.

    Raises:
        OSError: It cannot be written; nothing is left of it.
    """
    try:
        with whole(path) as part:
            yield part
    except OSError as error:
        if error.errno in FULL:
            raise OSError(
                f"{path} cannot be written ({error.strerror}), expected room for it; free some or name another folder. "
                "The shards that are done are kept: the same command goes on from there."
            ) from error
        raise


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
        ValueError: There is another writer, or the folder cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(
            f"{folder} cannot be made ({error.strerror}), expected a folder that is there or can be; name another."
        ) from error
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
