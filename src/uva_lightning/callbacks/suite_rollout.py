"""Play a whole suite in the simulator while a model trains, such as LIBERO-10."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from lightning.pytorch import Trainer
from tqdm.auto import tqdm

from uva_lightning.callbacks.playing import Playing
from uva_lightning.envs.vector import Workers
from uva_lightning.evaluation.latency import actor_for
from uva_lightning.evaluation.play import WAVE, recipe_for, unchecked, waves
from uva_lightning.evaluation.suite import Scenario, suite_of
from uva_lightning.evaluation.trained import Trained
from uva_lightning.module import UVAModule
from uva_lightning.policy.windows import WindowPolicy
from uva_lightning.rollouts import FIRST_TEST_SEED, RolloutResult


class SuiteRollout(Playing):
    """Play the scenarios of a suite of ``uva eval`` after validation, each with what it tells the robot to do.

    What is logged and written stands in the base class. The processes of a training share the scenarios; simulators run
    in further ones.

    Args:
        suite: Its name, such as ``libero_10``; or a YAML file, or YAML itself, with ``class_path`` and ``init_args``.
        episodes: Episodes of each scenario; the suite's own number if not given.
        seed: Seed of the first one.
        every: See the base class.
        execute: See the base class.
        videos: See the base class.
        workers: Processes that simulate for each one that trains; 0 takes one per core. There are never more than
            episodes that are played side by side: up to 10 of a scenario.
        set: See the base class.
    """

    shared = True

    def __init__(
        self,
        suite: str,
        episodes: int | None = None,
        seed: int = FIRST_TEST_SEED,
        every: int = 1,
        execute: int = 8,
        videos: int = 1,
        workers: int = 0,
        set: str | None = None,
    ) -> None:
        super().__init__(every, execute, videos, set)
        if workers < 0:
            raise ValueError(f"workers is {workers}, expected 0 or more.")
        self.suite, self.episodes, self.seed = suite, episodes, seed
        self.workers = workers or os.cpu_count() or 1

    @property
    def state_key(self) -> str:
        """Tell several suites apart."""
        return self._generate_state_key(suite=self.suite, seed=self.seed)

    def check(self, trainer: Trainer, module: UVAModule) -> None:
        """See the base class; of several environments the first is opened."""
        scenarios, model = self._scenarios(), self._model(trainer, module)
        for scenario in scenarios:
            actor_for(scenario, model)
        recipe_for(scenarios[0].env, model.policy.spec, self.execute)

    def play(self, trainer: Trainer, module: UVAModule) -> Mapping[str, RolloutResult]:
        """See the base class."""
        scenarios = self._scenarios()[trainer.global_rank :: trainer.world_size]
        if not scenarios:
            return {}
        model, results = self._model(trainer, module), {}
        total, most = sum(len(one.starts) for one in scenarios), max(len(one.starts) for one in scenarios)
        quiet = not trainer.is_global_zero
        with (
            Workers(min(self.workers, most, WAVE)) as workers,
            tqdm(total=total, desc="rollouts", unit="episode", leave=False, disable=quiet) as bar,
        ):
            for scenario in scenarios:
                results[scenario.name] = self._one(scenario, model, workers, bar)
        return results

    def _one(self, scenario: Scenario, model: Trained, workers: Workers, bar: Any) -> RolloutResult:
        spec, actor, games = model.policy.spec, actor_for(scenario, model), []
        starts = [replace(start, film=number < self.videos) for number, start in enumerate(scenario.starts)]
        for group in waves(workers, actor, unchecked(scenario.env, spec, self.execute), starts, self.seed):
            games += group
            bar.update(len(group))
        films = {game.start.seed: np.stack(game.frames) for game in games if game.start.film}
        return RolloutResult(scenario.env, self.execute, tuple(game.episode(spec) for game in games), films)

    def _scenarios(self) -> list[Scenario]:
        scenarios = list(suite_of(self.suite, self.episodes, self.seed).scenarios())
        if not scenarios:
            raise ValueError(f"The suite '{self.suite}' plays nothing, expected scenarios; see 'uva eval' for suites.")
        return scenarios

    def _model(self, trainer: Trainer, module: UVAModule) -> Trained:
        policy, data = WindowPolicy(module, self.seed, set=self.set), getattr(trainer, "datamodule", None)
        text = None if data is None else data.chosen(policy.set).text
        return _InTraining("the model", self.execute, policy, text)


class _InTraining(Trained):
    """The weights of the moment."""

    def facts(self) -> dict[str, Any]:
        """See the base class."""
        return {"kind": "in training"}
