"""Draw the analysis: every column over the steps, the way through the layers, where in a frame the state is found."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from uva_lightning.analysis.capture import LATENT
from uva_lightning.analysis.latents import ALL, MEAN
from uva_lightning.analysis.probe import CONTACT, POSE, VELOCITY
from uva_lightning.analysis.run import LATENTS, UNTRAINED
from uva_lightning.analysis.table import Column, grouped

ACROSS = 4
LOWEST = -0.5
"""Scores below this are drawn at the edge: a probe without a signal may be arbitrarily bad."""
_GROUPS = (POSE, CONTACT, VELOCITY)


def draw(rows: Sequence[Mapping[str, Any]], found: Sequence[Column], path: Path) -> None:
    """Draw three kinds of panels: columns, layers and maps.

    Args:
        rows: Of ``analysis.json``.
        found: Their columns.
        path: PNG file.

    Raises:
        ImportError: matplotlib is not installed.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    probed = {row["run"]: row for row in rows if row.get(LATENTS)}
    maps = [(run, row, target) for run, row in probed.items() for target in _mapped(row)]
    height = math.ceil(len(found) / ACROSS) + bool(probed) + math.ceil(len(maps) / ACROSS)
    size = (4 * ACROSS, 2.9 * height)
    figure, axes = pyplot.subplots(height, ACROSS, figsize=size, squeeze=False, layout="constrained")
    panels = iter(axes.flat)
    for column in found:
        _column(next(panels), rows, column)
    axes[0, 0].legend(fontsize=7)
    if probed:
        panels = iter(axes.flat[math.ceil(len(found) / ACROSS) * ACROSS :])
        for group in _GROUPS:
            _layers(next(panels), probed, group)
        next(panels).set_axis_off()
    for run, row, target in maps:
        axis = next(panels)
        figure.colorbar(_map(axis, run, row, target), ax=axis)
    for axis in axes.flat:
        if not axis.has_data():
            axis.set_axis_off()
    figure.savefig(path, dpi=90, format="png")
    pyplot.close(figure)


def _column(axis: Any, rows: Sequence[Mapping[str, Any]], column: Column) -> None:
    for number, run in enumerate(dict.fromkeys(row["run"] for row in rows)):
        both = [(row["step"], cell) for row, cell in zip(rows, column.cells, strict=True) if row["run"] == run and cell]
        if not both:
            continue
        steps, colour = [step for step, _ in both], f"C{number}"
        axis.plot(steps, [cell.value for _, cell in both], "o-", color=colour, label=run, markersize=4)
        for step, cell in both:
            if cell.interval:
                axis.plot([step, step], cell.interval, "-", color=colour, linewidth=3, alpha=0.3)
        before = [cell.beside for _, cell in both]
        if all(value is not None for value in before):
            axis.plot(steps, before, ":", color=colour, linewidth=1, label=f"{run}, before training")
    axis.set_title(column.name, fontsize=9)
    axis.set_xlabel("step", fontsize=7)
    axis.tick_params(labelsize=7)
    axis.grid(alpha=0.3)


def _layers(axis: Any, probed: Mapping[str, Mapping[str, Any]], group: str) -> None:
    for number, (run, row) in enumerate(probed.items()):
        for pooling, line in ((ALL, "-"), (MEAN, "--")):
            names = list(row[LATENTS]["layers"])
            values = [grouped(row[LATENTS], group, "", name, pooling) for name in names]
            label = f"{run}, {pooling}"
            axis.plot(names, _drawn(values), f"o{line}", color=f"C{number}", label=label, markersize=3)
        before = [grouped(row.get(UNTRAINED), group, "", n) if row.get(UNTRAINED) else None for n in names]
        axis.plot(names, _drawn(before), ":", color=f"C{number}", label=f"{run}, all, before training")
    axis.set_title(f"{group} by layer, last step", fontsize=9)
    axis.tick_params(labelsize=7)
    axis.tick_params(axis="x", rotation=45)
    axis.grid(alpha=0.3)
    axis.legend(fontsize=6)


def _drawn(values: Sequence[float | None]) -> list[float]:
    return [math.nan if value is None else max(value, LOWEST) for value in values]


def _mapped(row: Mapping[str, Any]) -> list[str]:
    """Choose the first target of each group."""
    targets = row[LATENTS]["layers"][LATENT]
    first = {one["group"]: name for name, one in reversed(targets.items()) if one["map"][0][0] is not None}
    return [first[group] for group in _GROUPS if group in first]


def _map(axis: Any, run: str, row: Mapping[str, Any], target: str) -> Any:
    """Show the last frame slots beside each other, each as its rows and columns of places."""
    one = row[LATENTS]["layers"][LATENT][target]
    high, wide = row[LATENTS]["fields"]
    frames = [np.array(values, dtype=float).reshape(high, wide) for values in one["map"]]
    gap = np.full((high, 1), np.nan)
    joined = np.concatenate([part for frame in frames for part in (frame, gap)][:-1], axis=1)
    low = 0.5 if one["group"] == CONTACT else 0.0
    image = axis.imshow(joined, vmin=low, vmax=1, cmap="viridis")
    axis.set_title(f"{run}: {target}, by place of Z\nframe slots 1 to {len(frames)}", fontsize=8)
    axis.set_xticks([])
    axis.set_yticks([])
    return image
