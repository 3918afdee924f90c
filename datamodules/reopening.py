"""Objects that hold open files, and may be sent to another process."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any


class Reopening(ABC):
    """What is opened, or kept for speed, stays behind: the copy in another process begins without it."""

    @abstractmethod
    def _forget(self) -> None:
        """Set the attributes that stay behind as they are before anything is opened."""

    def __getstate__(self) -> dict[str, Any]:
        """Give the attributes that ``_forget`` does not set."""
        blank = object.__new__(type(self))
        blank._forget()
        return {name: value for name, value in vars(self).items() if name not in vars(blank)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Begin without what stayed behind."""
        vars(self).update(state)
        self._forget()
