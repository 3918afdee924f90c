"""Work on rows in pieces of one fixed size, so that a compiler sees one shape whatever the number of rows."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

Run = Callable[..., Tensor]


def piece_size(most: int, pieces: int) -> int:
    """Give the rows of one piece, where ``most`` rows are cut into so many pieces."""
    return max(1, math.ceil(most / pieces))


def in_pieces(run: Callable[..., Tensor], size: int, *inputs: Tensor) -> Tensor:
    """Apply a function of independent rows piece by piece.

    The last piece is filled up with zeros. What comes of them is cut off, so their share of every gradient is zero.
    Without any rows one piece of zeros is worked on, so that all parameters are in the graph as they are elsewhere.

    Args:
        run: Gives one row for each row of its inputs.
        size: Rows of a piece, positive.
        inputs: [n, ...] each, or [1, ...] where all rows share it.

    Returns:
        [n, ...].
    """
    rows = max(len(value) for value in inputs) if all(len(value) for value in inputs) else 0
    pieces = max(1, math.ceil(rows / size))
    cut = [[value] * pieces if len(value) != rows else _cut(value, size, pieces) for value in inputs]
    results = [run(*piece) for piece in zip(*cut, strict=True)]
    return torch.cat(results)[:rows]


def _cut(value: Tensor, size: int, pieces: int) -> list[Tensor]:
    parts = list(value.split(size))
    missing = size * pieces - len(value)
    if missing:
        parts[-1] = torch.cat((parts[-1], value.new_zeros(missing, *value.shape[1:])))
    return parts


class Compiled:
    """Stands in for the ``forward`` of a module: compiled where it trains, as it is in evaluation.

    Sampling and validation have other shapes and modes; compiled, each of them would be a graph of its own.
    A copy of the module has one of its own, for its own weights.

    Args:
        module: The module; its class has the function.
        run: The compiled function of the class.
        size: Rows of a piece, for a module that works on independent rows.
    """

    def __init__(self, module: nn.Module, run: Run, size: int | None = None) -> None:
        self.module, self.run, self.size = module, run, size

    def __call__(self, *inputs: Tensor) -> Any:
        """Give what the module's own function gives."""
        if not self.module.training or not torch.is_grad_enabled():
            return type(self.module).forward(self.module, *inputs)
        if self.size is None:
            return self.run(self.module, *inputs)
        return in_pieces(self._piece, self.size, *inputs)

    def _piece(self, *inputs: Tensor) -> Tensor:
        return self.run(self.module, *inputs)
