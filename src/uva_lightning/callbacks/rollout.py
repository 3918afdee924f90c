"""Roll the model out in a simulator while it trains."""

from __future__ import annotations

from collections.abc import Mapping

from lightning.pytorch import Trainer

from uva_lightning.callbacks.playing import Playing
from uva_lightning.module import UVAModule
from uva_lightning.policy.windows import WindowPolicy
from uva_lightning.rollouts import FIRST_TEST_SEED, RolloutResult, open_env, run_rollouts


class Rollout(Playing):
    """Roll out in one environment after validation; what is logged and written stands in the base class.

    Args:
        env: Environment, e.g. ``pusht``.
        episodes: Episodes each time.
        seed: Seed of the first one.
        every: See the base class.
        execute: See the base class.
        videos: See the base class.
        set: See the base class.
    """

    def __init__(
        self,
        env: str = "pusht",
        episodes: int = 20,
        seed: int = FIRST_TEST_SEED,
        every: int = 1,
        execute: int = 8,
        videos: int = 2,
        set: str | None = None,
    ) -> None:
        super().__init__(every, execute, videos, set)
        if episodes < 1:
            raise ValueError(f"episodes is {episodes}, expected at least 1.")
        self.env, self.episodes, self.seed = env, episodes, seed

    @property
    def state_key(self) -> str:
        """Tell rollouts in several environments apart."""
        return self._generate_state_key(env=self.env, seed=self.seed)

    def check(self, trainer: Trainer, module: UVAModule) -> None:
        """See the base class."""
        open_env(self.env, module.spec.of(self.set), self.execute).close()

    def play(self, trainer: Trainer, module: UVAModule) -> Mapping[str, RolloutResult]:
        """See the base class."""
        policy, seeds = WindowPolicy(module, self.seed, set=self.set), range(self.seed, self.seed + self.episodes)
        return {self.env: run_rollouts(policy, self.env, policy.spec, seeds, self.execute, self.videos)}
