"""What every environment does with the arguments of ``reset``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

MAX_SEED = 2**32 - 1


def episode_seed(seed: int | None, drawn: np.random.Generator) -> int:
    """Give the seed of an episode, a drawn one where there is none.

    Raises:
        ValueError: It is too large.
    """
    if seed is None:
        return int(drawn.integers(MAX_SEED))
    if seed > MAX_SEED:
        raise ValueError(f"seed is {seed}, expected at most {MAX_SEED}, the limit of numpy's RandomState.")
    return seed


def known_options(options: Mapping[str, Any] | None, known: Sequence[str]) -> Mapping[str, Any]:
    """Give the options of an episode.

    Raises:
        ValueError: One is unknown.
    """
    if unknown := set(options or {}) - set(known):
        raise ValueError(f"reset got the options {sorted(unknown)}, expected some of {', '.join(known)}.")
    return options or {}
