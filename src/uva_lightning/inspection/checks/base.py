"""What a check is, and how all of them are run in one pass over the episodes."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from pkgutil import iter_modules
from typing import ClassVar, Literal

from tqdm.auto import tqdm

from uva_lightning.inspection.subject import Look, Subject

Level = Literal["ok", "warn", "FAIL", "-"]


@dataclass(frozen=True)
class Finding:
    """What a check says about a data set.

    Args:
        level: ``ok``, ``warn``, ``FAIL``, or ``-`` where the check does not apply.
        said: What was found, in words.
        count: How often.
        first: Where first: episode and step.
        fix: What to do about it.
    """

    level: Level
    said: str
    count: int = 0
    first: str = ""
    fix: str = ""


@dataclass
class Tally:
    """Counts what was found and remembers where first."""

    count: int = 0
    first: str = ""

    def add(self, look: Look, step: int | None = None, count: int = 1, what: str = "") -> None:
        """Note something in an episode, at a step of it."""
        if count:
            self.first = self.first or f"{look.name}{'' if step is None else f', step {step}'}{what and f': {what}'}"
            self.count += count


class Check(ABC):
    """Looks at each episode once and says at the end what it thinks; subclassing registers it.

    Args:
        subject: The data set.
    """

    title: ClassVar[str]
    """Its row in the table."""
    known: ClassVar[list[type[Check]]] = []

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if not inspect.isabstract(cls):
            Check.known.append(cls)

    def __init__(self, subject: Subject) -> None:
        self.subject = subject

    def see(self, look: Look) -> None:  # noqa: B027  # a check of the whole data set needs no episode
        """Look at one episode."""

    @abstractmethod
    def finish(self) -> Finding:
        """Say what was found in all of them."""


def all_checks() -> Sequence[type[Check]]:
    """Give the known checks; those of this package are imported first."""
    package = import_module(__package__ or "")
    for module in iter_modules(package.__path__):
        import_module(f"{package.__name__}.{module.name}")
    return tuple(Check.known)


def run(
    subject: Subject, kinds: Sequence[type[Check]] | None = None, show_progress: bool = True
) -> Iterator[tuple[str, Finding]]:
    """Run checks in one pass; gives title and finding of each.

    Args:
        subject: The data set.
        kinds: Which checks; all that are known if not given.
        show_progress: Whether to show a bar.
    """
    checks = [kind(subject) for kind in (all_checks() if kinds is None else kinds)]
    looks = tqdm(subject.looks(), total=subject.store.episodes, unit="episode", desc="check", disable=not show_progress)
    for look in looks:
        for check in checks:
            check.see(look)
    for check in checks:
        yield check.title, check.finish()
