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


class Score(Metric):
    """Mean of the largest reward of each episode, as Diffusion Policy counts, with its bootstrap interval."""

    higher_is_better = True
    full_state_update = False
    scores: list[Tensor] | Tensor

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.add_state("scores", [], dist_reduce_fx="cat")

    def update(self, scores: Tensor) -> None:
        """Take episodes, f[n]: the largest reward of each."""
        if isinstance(self.scores, list):
            self.scores.append(scores.detach().double().flatten())

    def compute(self) -> dict[str, float]:
        """Give ``score``, ``score_low`` and ``score_high``; nothing without episodes.

        Raises:
            ValueError: A score is not finite.
        """
        scores = dim_zero_cat(self.scores) if len(self.scores) else torch.zeros(0)
        if not len(scores):
            return {}
        values = scores.sort().values.cpu().numpy()  # the same interval, whichever process played which episode
        low, high = bootstrap_mean(values)
        return {"score": float(values.mean()), "score_low": low, "score_high": high}
