"""How the fields of a dataset are called in one layout, and the checks that all readers share."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Fields:
    """Names on disk.

    Args:
        video: Field per camera.
        action: Field of the actions; empty where none were recorded.
        state: Field per proprioception entry.
        instructions: Field of the instructions, as CLIP's tokens i64[n, 2, l] (ids and mask); a data set may lack it.
    """

    video: Mapping[str, str]
    action: str
    state: Mapping[str, str]
    instructions: str | None = None

    def names(self) -> set[str]:
        """All fields that must be there."""
        return {*self.video.values(), *self.state.values(), *([self.action] if self.action else [])}

    def only(self, cameras: Collection[str]) -> Fields:
        """Leave out cameras that are not used, so that they are not read."""
        return replace(self, video={name: field for name, field in self.video.items() if name in cameras})

    def require(self, found: Iterable[str], path: Path) -> None:
        """Refuse a dataset that lacks a field.

        Raises:
            ValueError: A field is missing; the message lists what is there.
        """
        found = set(found)
        if missing := self.names() - found:
            raise ValueError(
                f"{path} lacks {', '.join(sorted(missing))}: found {', '.join(sorted(found)) or 'nothing'}, "
                f"expected {', '.join(sorted(self.names()))}; this is another dataset, or an incomplete one."
            )


@dataclass(frozen=True)
class Range:
    """What the numbers of a field look like, for episodes that are made up.

    Args:
        low: Smallest number.
        high: Largest number.
        constant: Whether they stay the same through an episode.
    """

    low: float = -1.0
    high: float = 1.0
    constant: bool = False


def columns(values: NDArray[Any], width: int, name: str, path: Path) -> NDArray[np.float32]:
    """Take the first columns of a table as f32[n, width].

    Raises:
        ValueError: It has fewer.
    """
    values = np.asarray(values).reshape(len(values), -1)
    if values.shape[1] < width:
        raise ValueError(f"'{name}' in {path} has {values.shape[1]} columns, expected {width} or more.")
    return np.ascontiguousarray(values[:, :width], dtype=np.float32)
