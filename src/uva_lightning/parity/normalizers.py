"""Normalisers fitted on given data."""

from __future__ import annotations

from collections.abc import Callable

from uva_lightning.normalize import Columns, Identity, Limits, Normalizer, Standard
from uva_lightning.parity.folder import Folder
from uva_lightning.parity.ledger import FLOAT32, Ledger

GROUP, ARM_RANGE = "normalisers", 1e-7
CASES: dict[str, tuple[str, Callable[[], Normalizer]]] = {
    "limits_offset1": ("data", Limits),
    "limits_offset0": ("data", lambda: Limits(offset=False)),
    "gaussian_offset1": ("data", Standard),
    "gaussian_offset0": ("data", lambda: Standard(offset=False)),
    "abs_action10": ("act10", lambda: Columns([3, 7], [Limits(ARM_RANGE), Identity()])),
    "range_from_stat": ("data", lambda: Limits(ARM_RANGE)),
}
"""Stored case: the data it was fitted on, and our normaliser."""


def compare(folder: Folder, ledger: Ledger) -> None:
    """Compare scale, offset and normalised data of every case."""
    numbers = folder.arrays("normalizers.npz")
    for case, (data, make) in CASES.items():
        if f"{case}/scale" not in numbers:
            continue
        normalizer = make()
        normalizer.fit(numbers[data])
        ours = {**normalizer.state(), "normalized": normalizer.encode(numbers[data])}
        for name in (name for name in numbers if name.startswith(f"{case}/")):
            ledger.compare(GROUP, "normalisers", name, ours[name.rpartition("/")[2]], numbers[name], FLOAT32)
