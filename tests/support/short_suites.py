"""Suites with short episodes, as a user writes them."""

from __future__ import annotations

from uva_lightning.envs.games import Start
from uva_lightning.evaluation.suite import Scenario, Suite


class ShortSuite(Suite):
    """Push-T and one perturbation, 24 steps each.

    Args:
        episodes: Of each scenario.
        seed: Of the first.
        steps: Of each episode.
    """

    def __init__(self, episodes: int = 3, seed: int = 100_000, steps: int = 24) -> None:
        super().__init__(episodes, seed)
        self.steps = steps

    def scenarios(self):
        """Give two."""
        starts = [Start(start.seed, steps=self.steps) for start in self.starts()]
        return [
            Scenario("plain", "pusht", starts, paper={"UVA": 0.98}),
            Scenario("hue", "pusht:picture_hue", starts, "plain", protocol="Not in the paper."),
        ]

    def missing(self):
        """One thing is missing."""
        return {"The real table": "it needs a table."}
