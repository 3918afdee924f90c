"""Play a whole suite in the simulator while a model trains, such as LIBERO-10."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from lightning.pytorch import Trainer
from tqdm.auto import tqdm

from uva_lightning.callbacks.playing import NAME, Played, Playing
from uva_lightning.cores import usable_cores
from uva_lightning.module import UVAModule
from uva_lightning.policy.windows import WindowPolicy

if TYPE_CHECKING:
    from uva_lightning.envs.games import Start
    from uva_lightning.envs.vector import Workers
    from uva_lightning.evaluation.suite import Scenario
    from uva_lightning.evaluation.trained import InTraining


class SuiteRollout(Playing):
    """Play the scenarios of a suite of ``uva eval`` after validation, each with its instruction.

    Logs score and success of all episodes and of each scenario, and films. The processes of a training share the
    episodes, and each starts worker processes for its simulators.

    Args:
        suite: Its name, such as ``libero_10``; or a YAML file, or YAML itself, with ``class_path`` and ``init_args``.
        episodes: Episodes of each scenario; the suite's own number if not given.
        seed: Seed of the first one; the suite's own if not given.
        every: Play at every so many validations in training.
        execute: Actions of a chunk that are run before the policy decides again.
        videos: Episodes of each scenario that are filmed.
        workers: Processes that simulate, for each one that trains; 0 shares the cores of this process among the devices
            of the node, too few where a launcher has bound each to cores of its own.
        beside: Episodes that each process plays side by side; their simulators are in memory at a time.
        set: Of a mixture, the data set that is like the environment; the only one with actions if not given.
        name: Stands before all that is logged, instead of ``rollout``.
    """

    def __init__(
        self,
        suite: str,
        episodes: int | None = None,
        seed: int | None = None,
        every: int = 1,
        execute: int = 8,
        videos: int = 1,
        workers: int = 0,
        beside: int = 10,
        set: str | None = None,
        name: str = NAME,
    ) -> None:
        super().__init__(every, execute, videos, set, name)
        for what, value, low in (("workers", workers, 0), ("beside", beside, 1)):
            if value < low:
                raise ValueError(f"{what} is {value}, expected at least {low}.")
        self.suite, self.episodes, self.seed, self.workers, self.beside = suite, episodes, seed, workers, beside

    @property
    def state_key(self) -> str:
        """Tell several suites apart."""
        return self._generate_state_key(suite=self.suite, seed=self.seed, name=self.name)

    def check(self, trainer: Trainer, module: UVAModule) -> None:
        """See the base class; of environments of one kind, such as LIBERO's tasks, the first is opened."""
        from uva_lightning.evaluation.latency import actor_for
        from uva_lightning.evaluation.play import recipe_for

        scenarios = self._scenarios()
        model = self._model(trainer, module, scenarios)
        module.head("action")
        kinds: dict[str, str] = {}
        for scenario in scenarios:
            actor_for(scenario, model)
            kinds.setdefault(scenario.env.partition(":")[0].partition("/")[0], scenario.env)
        for env in kinds.values():
            recipe_for(env, model.policy.spec, self.execute)

    def play(self, trainer: Trainer, module: UVAModule) -> Sequence[Played]:
        """See the base class."""
        from uva_lightning.envs.vector import Workers

        scenarios, rank, world = self._scenarios(), trainer.global_rank, trainer.world_size
        model = self._model(trainer, module, scenarios)
        whole = [(one, replace(start, film=n < self.videos)) for one in scenarios for n, start in enumerate(one.starts)]
        own = whole[rank * len(whole) // world : (rank + 1) * len(whole) // world]
        mine = [(one, starts) for one in scenarios if (starts := [start for other, start in own if other is one])]
        if not mine:
            return []
        most = max(len(starts) for _, starts in mine)
        count = min(self.workers or max(1, usable_cores() // trainer.num_devices), self.beside, most)
        with Workers(count) as workers, tqdm(total=len(own), desc="rollouts", leave=False, disable=rank > 0) as bar:
            return [one for pair in mine for one in self._played(*pair, model, workers, bar)]

    def _played(
        self, scenario: Scenario, starts: Sequence[Start], model: InTraining, workers: Workers, bar: Any
    ) -> Iterator[Played]:
        from uva_lightning.evaluation.latency import actor_for
        from uva_lightning.evaluation.play import unchecked, waves

        recipe, seed = unchecked(scenario.env, model.policy.spec, self.execute), scenario.starts[0].seed
        for games in waves(workers, actor_for(scenario, model), recipe, starts, seed, self.beside):
            for game in games:
                film = np.stack(game.frames) if game.start.film else None
                yield Played(scenario.name, game.episode(model.policy.spec), film)
            bar.update(len(games))

    def _scenarios(self) -> list[Scenario]:
        from uva_lightning.evaluation.suite import suite_of

        scenarios = list(suite_of(self.suite, self.episodes, self.seed).scenarios())
        if not scenarios:
            raise ValueError(f"The suite '{self.suite}' plays nothing, expected scenarios; see 'uva eval' for suites.")
        names = [scenario.name for scenario in scenarios]
        if double := {name for name in names if names.count(name) > 1}:
            raise ValueError(f"Two scenarios are called '{sorted(double)[0]}'; give each a name of its own.")
        return scenarios

    def _model(self, trainer: Trainer, module: UVAModule, scenarios: Sequence[Scenario]) -> InTraining:
        """Give the model with the seed of its noise that ``uva eval`` takes."""
        from uva_lightning.evaluation.trained import InTraining

        policy = WindowPolicy(module, scenarios[0].starts[0].seed, set=self.set)
        data = getattr(trainer, "datamodule", None)
        text = None if data is None else data.chosen(policy.set).text
        return InTraining("the model", self.execute, policy, text)
