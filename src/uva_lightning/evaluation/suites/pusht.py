"""Push-T, Push-T-M and the visual perturbations (UVA, sections 4.1 and 4.3)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from uva_lightning.envs.games import Start
from uva_lightning.envs.perturb import LOOKS
from uva_lightning.envs.pusht import GOAL_REACH
from uva_lightning.envs.pusht_world import WORLD_SIZE
from uva_lightning.evaluation.suite import Scenario, Suite

METHODS = ("DP-C", "DP-T", "OpenVLA", "UniPi", "UVA-action", "UVA")
PAPER = {
    "pusht": (0.91, 0.78, 0.35, 0.42, 0.45, 0.98),
    "pusht_m": (0.68, 0.63, 0.22, 0.19, 0.46, 0.88),
    "background_color": (0.12, 0.22, 0.17, 0.31, None, 0.35),
    "background_object": (0.21, 0.17, 0.13, 0.36, None, 0.31),
    "goal_color": (0.17, 0.28, 0.32, 0.40, None, 0.64),
}
"""Published scores in the order of ``METHODS``."""
COLOURS = "The paper does not tell its colours and objects; these are ours."
RANDOM_GOALS = "UVA draws the goals from numpy's global state, not from the seed: its episodes cannot be repeated."
SEED_OF_EVALUATION = 42
"""What UVA's evaluation seeds numpy with."""
SHOWN_STARTS = 6
"""Seeds of demonstrations that UVA also plays, from 0 on."""


def published(name: str) -> dict[str, float]:
    """Give the published scores of a scenario, by method."""
    return {method: score for method, score in zip(METHODS, PAPER[name], strict=True) if score is not None}


class PushTSuite(Suite):
    """50 seeds each of Push-T, Push-T-M and Push-T with each perturbation; goals follow the seeds."""

    name = "pusht"

    def scenarios(self) -> Sequence[Scenario]:
        """See the base class."""
        starts = self.starts()
        looks = [
            Scenario(f"pusht:{look}", f"pusht:{look}", starts, "pusht", published(look), COLOURS) for look in LOOKS
        ]
        plain = Scenario("pusht", "pusht", starts, paper=published("pusht"))
        return [plain, Scenario("pusht_m", "pusht_m", starts, None, published("pusht_m"), RANDOM_GOALS), *looks]


class OfficialPushTSuite(Suite):
    """As UVA's code counts: its test seeds, the starts of demonstrations 0 to 5, and goals that no seed gives."""

    name = "pusht_official"

    def scenarios(self) -> Sequence[Scenario]:
        """See the base class."""
        starts = self.starts()
        random = np.random.RandomState(SEED_OF_EVALUATION)  # one stream for all episodes, in their order
        with_goals = [replace(start, options={"goal": _goal(random)}) for start in starts]
        stream = (
            f"Goals come from one stream, seeded with {SEED_OF_EVALUATION}; in UVA's worker processes it is unseeded."
        )
        return [
            Scenario("pusht", "pusht", starts, paper=published("pusht")),
            Scenario("pusht, starts of demonstrations", "pusht", [Start(seed) for seed in range(SHOWN_STARTS)]),
            Scenario("pusht_m", "pusht_m", with_goals, None, published("pusht_m"), stream),
        ]


def _goal(random: np.random.RandomState) -> tuple[float, float, float]:
    x, y = WORLD_SIZE / 2 + random.uniform(-GOAL_REACH, GOAL_REACH, 2)
    return float(x), float(y), float(random.uniform(0, 2 * math.pi))
