"""Draw how every variant differs from the experiment as it is, measure by measure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from uva_lightning.ablation.plan import ALL
from uva_lightning.ablation.table import OVERALL, Column

COLUMNS = 4
_COLOURS = {1: "tab:green", 0: "tab:grey", -1: "tab:red"}


def draw(found: Sequence[Column], title: str, path: Path) -> None:
    """Draw a panel per measure: paired differences to ``all`` with their 95 % intervals, right is better.

    Args:
        found: All measures.
        title: Stands above.
        path: PNG file.

    Raises:
        ImportError: matplotlib is not installed.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    overall = next(column for column in found if column.name == OVERALL)
    names = [name for group in overall.ranks for name in group]
    rows = math.ceil(len(found) / COLUMNS)
    size = (4 * COLUMNS, rows * (0.9 + 0.26 * len(names)) + 0.6)
    figure, axes = pyplot.subplots(rows, COLUMNS, figsize=size, squeeze=False, sharey=True, layout="constrained")
    for axis in axes.flat[len(found) :]:
        axis.set_axis_off()
    for axis, column in zip(axes.flat, found, strict=False):
        _panel(axis, column, names)
    axes[0, 0].set_yticks(range(len(names)), names)
    axes[0, 0].set_ylim(len(names) - 0.5, -0.5)
    figure.suptitle(f"{title}: advantage over '{ALL}' with the same seeds, 95 % intervals; right of 0 is better")
    figure.savefig(path, dpi=100)
    pyplot.close(figure)


def _panel(axis: Any, column: Column, names: Sequence[str]) -> None:
    axis.axvline(0, color="black", linewidth=0.8)
    for place, name in enumerate(names):
        cell = column.cells[name]
        low, high = cell.gain_interval or (cell.gain, cell.gain)
        axis.plot([low, high], [place, place], color=_COLOURS[cell.verdict], linewidth=2)
        axis.plot([cell.gain], [place], "o", color=_COLOURS[cell.verdict], markersize=5)
    axis.set_title(column.name, fontsize=9)
    axis.tick_params(labelsize=8)
    axis.grid(axis="x", alpha=0.3)
