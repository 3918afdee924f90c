"""What late decisions cost: score and jerk by control steps that a decision takes (UVA, section 5.4)."""

from __future__ import annotations

from collections.abc import Sequence

from uva_lightning.evaluation.suite import Scenario, Suite
from uva_lightning.rollouts import FIRST_TEST_SEED

STEPS = (0, 1, 2, 4, 8)
OURS = "The paper tells how long a decision takes, not what that costs; its simulations wait for each one."


class LatencySuite(Suite):
    """The same starts with decisions that take 0, 1, 2, 4 and 8 control steps, with and without real-time chunking.

    Args:
        episodes: Episodes of a scenario.
        seed: Seed of the first one.
        env: Environment.
        steps: Control steps that a decision takes, each one scenario; 0 is what the others are compared with.
        chunking: Also play every latency with a policy that is told what the robot does until its chunk is there.
    """

    name = "latency"

    def __init__(
        self,
        episodes: int = 50,
        seed: int = FIRST_TEST_SEED,
        env: str = "pusht",
        steps: tuple[int, ...] = STEPS,
        chunking: bool = True,
    ) -> None:
        super().__init__(episodes, seed)
        if not steps or min(steps) < 0 or len(set(steps)) != len(steps):
            raise ValueError(f"steps is {steps}, expected numbers from 0 on, each once.")
        self.env, self.steps, self.with_chunking = env, tuple(steps), chunking

    def scenarios(self) -> Sequence[Scenario]:
        """See the base class."""
        starts, found = self.starts(), list[Scenario]()
        against = f"{self.env}, no latency" if 0 in self.steps else None
        for steps in self.steps:
            late = f"{self.env}, latency {steps}" if steps else f"{self.env}, no latency"
            beside = against if steps else None
            found.append(Scenario(late, self.env, starts, beside, {}, OURS, steps))
            if steps and self.with_chunking:
                found.append(Scenario(f"{late}, continued", self.env, starts, against, {}, OURS, steps, True))
        return found
