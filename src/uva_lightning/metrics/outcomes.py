"""Success and score of episodes, each with its 95 % interval, over all processes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from uva_lightning.metrics.intervals import bootstrap_mean, wilson


class SuccessRate(Metric):
    """Share of solved episodes with its Wilson interval (UVA, tables 1 and 2)."""

    higher_is_better = True
    full_state_update = False
    successes: Tensor
    episodes: Tensor

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        for name in ("successes", "episodes"):
            self.add_state(name, torch.tensor(0), dist_reduce_fx="sum")

    def update(self, solved: Tensor) -> None:
        """Take episodes, bool[n]."""
        self.successes += solved.sum()
        self.episodes += solved.numel()

    def compute(self) -> dict[str, float]:
        """Give ``success_rate``, ``success_low`` and ``success_high``; nothing without episodes."""
        successes, episodes = int(self.successes), int(self.episodes)
        if not episodes:
            return {}
        low, high = wilson(successes, episodes)
        return {"success_rate": successes / episodes, "success_low": low, "success_high": high}


class EpisodeMean(Metric):
    """Mean of a number of each episode with its bootstrap interval.

    Args:
        name: What it is.
    """

    full_state_update = False
    values: list[Tensor] | Tensor

    def __init__(self, name: str, **options: Any) -> None:
        super().__init__(**options)
        self.name = name
        self.set_dtype(torch.float64)  # a process without episodes then sends nothing of the same kind
        self.add_state("values", [], dist_reduce_fx="cat")

    def update(self, values: Tensor) -> None:
        """Take episodes, f[n]."""
        if isinstance(self.values, list):
            self.values.append(values.detach().double().flatten())

    def compute(self) -> dict[str, float]:
        """Give ``NAME``, ``NAME_low`` and ``NAME_high``; nothing without episodes.

        Raises:
            ValueError: A number is not finite.
        """
        values = joined(self.values)
        if not len(values):
            return {}
        low, high = bootstrap_mean(values.cpu().numpy())
        return {self.name: float(values.mean()), f"{self.name}_low": low, f"{self.name}_high": high}


class Score(EpisodeMean):
    """Mean of the largest reward of each episode, as Diffusion Policy counts."""

    higher_is_better = True

    def __init__(self, **options: Any) -> None:
        super().__init__("score", **options)


def joined(state: list[Tensor] | Tensor) -> Tensor:
    """Join what a metric has gathered, f64[n]: a list before, and one tensor after processes have exchanged it."""
    return dim_zero_cat(state).double() if len(state) else torch.zeros(0, dtype=torch.float64)
