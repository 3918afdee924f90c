"""What commands need that work for long: nobody else in their folder, and an orderly end."""

from __future__ import annotations

import fcntl
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from uva_lightning.commands.errors import UserError


@contextmanager
def alone(file: Path, command: str) -> Iterator[int]:
    """Lock a folder by a file in it, for this process and those that inherit the descriptor.

    Args:
        file: Made where absent.
        command: Who works there, for the message.

    Raises:
        UserError: It is locked.
    """
    with file.open("w") as opened:
        try:
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise UserError(
                f"Another '{command}' works in {file.parent}, or a process that one has left behind; wait for its "
                f"end, or see which process it is with: fuser {file}"
            ) from error
        yield opened.fileno()


@contextmanager
def stopping_on_sigterm() -> Iterator[None]:
    """Leave by an exception on SIGTERM, so that what was started is stopped, too."""

    def leave(signum: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + signum)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
