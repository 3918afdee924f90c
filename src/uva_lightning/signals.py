"""Signals that are noted and acted on later, between two optimizer steps."""

import signal
import threading
from types import FrameType

TIME_IS_UP = getattr(signal, "SIGUSR1", None)  # what SLURM is asked to send before the time limit; not on Windows
_noted: set[int] = set()


def listen() -> None:
    """Let SIGUSR1 never kill this process, nor any that it starts; call before the slow imports.

    A blocked signal stays pending, which ``noted`` sees, and children inherit the blocking, also those that run another
    program: SLURM sends the signal to workers of a data loader, too, whose death would end the training. The handler is
    for threads that do not block it.
    """
    if TIME_IS_UP is None or threading.current_thread() is not threading.main_thread():
        return
    note(TIME_IS_UP)
    signal.pthread_sigmask(signal.SIG_BLOCK, {TIME_IS_UP})


def note(signum: int) -> None:
    """Only note this signal from now on, instead of what it did before."""
    signal.signal(signum, _note)


def noted(signum: int | None) -> bool:
    """Say whether a signal has come."""
    return signum is not None and (signum in _noted or (TIME_IS_UP is not None and signum in signal.sigpending()))


def forget(signum: int) -> None:
    """Take a signal as acted on."""
    _noted.discard(signum)
    if signum == TIME_IS_UP and signum in signal.sigpending():
        signal.sigwait({signum})


def _note(signum: int, frame: FrameType | None) -> None:
    _noted.add(signum)
