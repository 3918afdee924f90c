"""Draw the scores of an evaluation: means with intervals, all episodes behind them, published numbers beside."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

WIDTH = 0.7


def draw(content: Mapping[str, Any], path: Path) -> None:
    """Draw one group per scenario.

    Args:
        content: What ``results.json`` holds.
        path: PNG file.

    Raises:
        ImportError: matplotlib is not installed.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    scenarios, names = content["scenarios"], list(content["contenders"])
    figure, axis = pyplot.subplots(figsize=(2.5 + 1.6 * len(scenarios), 4.2))
    step = WIDTH / len(names)
    for rank, name in enumerate(names):
        for place, one in enumerate(scenarios.values()):
            if name not in one["results"]:
                continue
            row = one["results"][name]
            at = place + (rank - (len(names) - 1) / 2) * step
            scores = [episode["score"] for episode in row["episodes"]]
            spread = np.linspace(-0.3, 0.3, len(scores)) * step
            low, high = row["score_interval"]
            label = name if one is next(iter(scenarios.values())) else None
            axis.bar(at, row["score"], 0.9 * step, color=f"C{rank}", alpha=0.55, label=label)
            axis.plot(at + spread, scores, ".", color=f"C{rank}", markersize=3, alpha=0.6)
            axis.plot([at, at], [low, high], color="black", linewidth=1.5)
    for place, one in enumerate(scenarios.values()):
        if "UVA" in one["paper"]:
            score = one["paper"]["UVA"]
            label = "UVA as published" if place == 0 else None
            axis.plot([place - WIDTH / 2, place + WIDTH / 2], [score, score], "k:", linewidth=1, label=label)
    axis.set_xticks(range(len(scenarios)), [name.replace(":", ":\n") for name in scenarios], fontsize=8)
    axis.set(ylabel="maximum reward of an episode", ylim=(0, 1.05), title=f"{content['suite']}: means, 95 % intervals")
    axis.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=110, format="png")
    pyplot.close(figure)
