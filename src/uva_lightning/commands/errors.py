"""What a person reads when a command cannot go on: one sentence with value, expectation and fix."""

import difflib
from collections.abc import Iterable

from uva_lightning.commands.extras import install_command

_EXPLAINED = (ValueError, LookupError, OSError, ImportError)


class UserError(Exception):
    """Something a user can mend; its message is all they need to see."""


def hint(name: str, known: Iterable[str], cutoff: float = 0.6) -> str:
    """Name the nearest known word, or list the known ones.

    Args:
        name: What was given.
        known: What could have been meant.
        cutoff: Least similarity in [0, 1] that counts as near.

    Returns:
        A sentence that starts with a blank, or nothing if nothing is known.
    """
    by_lower = {word.lower(): word for word in sorted(known)}
    if near := difflib.get_close_matches(name.lower(), by_lower, n=1, cutoff=cutoff):
        return f" Did you mean '{by_lower[near[0]]}'?"
    return f" Known: {', '.join(by_lower.values())}." if by_lower else ""


def for_user(error: BaseException) -> str | None:
    """Give what a user needs to read of an error.

    Args:
        error: As caught, with its traceback.

    Returns:
        One message for what a user can mend: a ``UserError``, a library that is not installed, or a plain error that
        code of this package raised itself. Nothing for a defect, which needs its traceback.
    """
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, ImportError) and error.name is not None:  # by an import statement, not by a raise of ours
        missing = isinstance(error, ModuleNotFoundError) and not error.name.startswith("uva_lightning")
        return f"{error.name} is not installed; run: {install_command(error.name)}" if missing else None
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    raised_in = str(trace.tb_frame.f_globals.get("__name__", "")) if trace is not None else ""
    if raised_in.startswith("jsonargparse") and error.__cause__ is not None:  # a class refused a value that was parsed
        return for_user(error.__cause__)
    ours = isinstance(error, _EXPLAINED) and raised_in.partition(".")[0] == "uva_lightning"
    return message(error) if ours else None


def message(error: BaseException) -> str:
    """Give the words of an error, without the quotes that ``KeyError`` adds."""
    if isinstance(error, KeyError) and error.args:
        return str(error.args[0])
    return str(error) or type(error).__name__
