"""Roll the model out in a simulator while it trains."""

from __future__ import annotations

from collections.abc import Sequence

from lightning.pytorch import Trainer

from uva_lightning.callbacks.playing import NAME, Played, Playing
from uva_lightning.module import UVAModule
from uva_lightning.policy.windows import WindowPolicy
from uva_lightning.rollouts import FIRST_TEST_SEED, open_env, run_rollouts


class Rollout(Playing):
    """Roll out in one environment after validation: score, success and jerk with intervals, and films.

    The first process plays, the others wait.

    Args:
        env: Environment, e.g. ``pusht``.
        episodes: Episodes each time.
        seed: Seed of the first one.
        every: Play at every so many validations in training.
        execute: Actions of a chunk that are run before the policy decides again.
        videos: Episodes that are filmed.
        set: Of a mixture, the data set that is like the environment; the only one with actions if not given.
        name: Stands before all that is logged, instead of ``rollout``.
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
        name: str = NAME,
    ) -> None:
        super().__init__(every, execute, videos, set, name)
        if episodes < 1:
            raise ValueError(f"episodes is {episodes}, expected at least 1.")
        self.env, self.episodes, self.seed = env, episodes, seed

    @property
    def state_key(self) -> str:
        """Tell rollouts in several environments apart."""
        return self._generate_state_key(env=self.env, seed=self.seed, name=self.name)

    def check(self, trainer: Trainer, module: UVAModule) -> None:
        """See the base class."""
        open_env(self.env, module.spec.of(self.set), self.execute).close()

    def play(self, trainer: Trainer, module: UVAModule) -> Sequence[Played]:
        """Play all episodes at once, in the first process."""
        if not trainer.is_global_zero:
            return []
        policy, seeds = WindowPolicy(module, self.seed, set=self.set), range(self.seed, self.seed + self.episodes)
        result = run_rollouts(policy, self.env, policy.spec, seeds, self.execute, self.videos)
        return [Played(self.env, episode, result.frames.get(episode.seed)) for episode in result.episodes]
