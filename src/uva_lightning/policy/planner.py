"""Policy + planner as an actor: propose, imagine, choose (UVA section 4.5)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from uva_lightning.policy.windows import Score, WindowObservation, WindowPolicy


class Planner:
    """Act by the best of several proposals, judged by the futures that forward dynamics imagines for them.

    Args:
        policy: Trained model.
        score: Judges imagined futures.
        proposals: Chunks per decision, at least 1.
        margin: Lead that overrules the most typical proposal, in the unit of the score.
    """

    def __init__(self, policy: WindowPolicy, score: Score, proposals: int = 8, margin: float = 6.0) -> None:
        if proposals < 1:
            raise ValueError(f"proposals is {proposals}, expected at least 1.")
        self.policy, self.score, self.proposals, self.margin = policy, score, proposals, margin

    def reset(self, seed: int) -> None:
        """Start the noise anew."""
        self.policy.reset(seed)

    def act(self, observation: WindowObservation) -> NDArray[np.float32]:
        """Decide: f32[b, h, a]."""
        return self.policy.plan(observation, self.score, self.proposals, self.margin)
