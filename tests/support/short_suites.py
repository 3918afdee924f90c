"""Suites with short episodes, as a user writes them."""

from __future__ import annotations

from dataclasses import replace

from uva_lightning.envs.games import Start
from uva_lightning.evaluation.suite import Scenario, Suite, known_suites


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


class ToldSuite(Suite):
    """Push-T from the same starts, told to do one thing, another, and the first again."""

    def scenarios(self):
        """Give three."""
        starts = [Start(start.seed, steps=16) for start in self.starts()]
        words = {"push": "push the T", "pull": "pull the T", "again": "push the T"}
        return [Scenario(name, "pusht", starts, instruction=told) for name, told in words.items()]


class UnequalSuite(Suite):
    """Push-T from 1, 2 and 3 starts, none of them twice."""

    def scenarios(self):
        """Give three."""
        starts = [Start(self.seed + number, steps=16) for number in range(6)]
        return [Scenario("one", "pusht", starts[:1]), Scenario("two", "pusht", starts[1:3])] + [
            Scenario("three", "pusht", starts[3:])
        ]


class LiberoTask(Suite):
    """The first object task of LIBERO, 16 steps."""

    def scenarios(self):
        """Give it, with its instruction."""
        first = known_suites()["libero_object"](self.episodes, self.seed).scenarios()[0]
        return [replace(first, starts=[replace(start, steps=16) for start in first.starts])]
