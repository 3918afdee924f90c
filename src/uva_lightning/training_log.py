"""Means between two entries of the log."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor


class WindowMeans:
    """Collect scalars of every step without waiting for the device; give their means when the log is written."""

    def __init__(self) -> None:
        self._values: dict[str, list[Tensor]] = {}

    def add(self, values: Mapping[str, Tensor | float]) -> None:
        """Take the scalars of one step; a name may be missing in some steps."""
        for name, value in values.items():
            self._values.setdefault(name, []).append(torch.as_tensor(value).detach())

    def flush(self) -> dict[str, Tensor]:
        """Give the mean of each name, f32[], and start anew."""
        means = {name: torch.stack(values).float().mean() for name, values in self._values.items()}
        self._values.clear()
        return means
