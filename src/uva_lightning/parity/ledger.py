"""What was compared, and how far it is off."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from uva_lightning.parity.naming import relative_error

EXACT = 0.0
FLOAT32 = 1e-5
"""Rounding of float32 over a whole model."""
LOGARITHM = 2e-3
"""Terms at t = 0 take the logarithm of the difference of two nearly equal numbers; so do x0 near a zero crossing."""
WITH_LOGARITHM = 5e-4
"""Means over rows with t = 0 among them."""
GRADIENT = 1e-3


@dataclass(frozen=True)
class Entry:
    """One comparison.

    Args:
        name: What was compared, within its quantity.
        error: Largest difference, relative to the largest reference number or 1.
        allowed: How large it may be.
    """

    name: str
    error: float
    allowed: float

    @property
    def exceeded(self) -> bool:
        """Whether it is off; an error that is no number is."""
        return not self.error <= self.allowed


@dataclass
class Ledger:
    """Comparisons in the order in which they were made, by group (a variant and its weights) and quantity."""

    rows: dict[tuple[str, str], list[Entry]] = field(default_factory=dict)

    def compare(self, group: str, quantity: str, name: str, value: Any, reference: Any, allowed: float) -> None:
        """Compare numbers with a reference of the same shape."""
        found, wanted = _tensor(value), _tensor(reference)
        same = found.shape == wanted.shape
        error = relative_error(found, wanted) if same else float("nan")  # a wrong shape is a wrong number
        self.add(group, quantity, name, error, allowed)

    def add(self, group: str, quantity: str, name: str, error: float, allowed: float) -> None:
        """Note an error that was computed elsewhere."""
        self.rows.setdefault((group, quantity), []).append(Entry(name, error, allowed))

    def exceeded(self) -> Iterator[tuple[str, str, Entry]]:
        """Give what is off, in order."""
        for (group, quantity), entries in self.rows.items():
            for entry in entries:
                if entry.exceeded:
                    yield group, quantity, entry

    @property
    def count(self) -> int:
        """Number of comparisons."""
        return sum(len(entries) for entries in self.rows.values())

    def table(self) -> str:
        """Give one line per group and quantity: the worst of its comparisons."""
        lines = [("weights", "quantity", "compared", "largest", "allowed", "")]
        for (group, quantity), entries in self.rows.items():
            worst = max(entries, key=lambda entry: (entry.exceeded, entry.error / max(entry.allowed, 1e-12)))
            verdict = f"EXCEEDED by {worst.name}" if worst.exceeded else "ok"
            lines.append((group, quantity, str(len(entries)), f"{worst.error:.1e}", f"{worst.allowed:.0e}", verdict))
        widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
        return "\n".join(
            "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
        )


def _tensor(values: Any) -> Tensor:
    return values if isinstance(values, Tensor) else torch.as_tensor(values)
