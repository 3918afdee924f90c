"""Play all scenarios with all contenders; finished episodes are kept, so that the same call goes on where it was."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from uva_lightning.envs.games import Recipe, Start
from uva_lightning.envs.vector import Workers
from uva_lightning.evaluation.contenders import Contender
from uva_lightning.evaluation.journal import Journal, key_of
from uva_lightning.evaluation.latency import actor_for
from uva_lightning.evaluation.play import WAVE, recipe_for, waves
from uva_lightning.evaluation.suite import Scenario
from uva_lightning.results import versions
from uva_lightning.rollouts import Episode, RolloutResult
from uva_lightning.video_files import safe, write_mp4

VIDEOS = "videos"


@dataclass
class Outcome:
    """What came of an evaluation.

    Args:
        results: By scenario and contender.
        left_out: Scenario, contender and the reason why it was not played.
        played: Episodes that were played now.
        kept: Episodes that an earlier call had played.
    """

    results: dict[str, dict[str, RolloutResult]] = field(default_factory=dict)
    left_out: list[tuple[str, str, str]] = field(default_factory=list)
    played: int = 0
    kept: int = 0


class Evaluation:
    """Scenarios and contenders in one folder.

    Args:
        out: Folder of journal and films; it is there.
        workers: Simulate.
        videos: Episodes of each scenario that are filmed.
        beside: Episodes side by side.
    """

    def __init__(self, out: Path, workers: Workers, videos: int = 2, beside: int = WAVE) -> None:
        self.out, self.workers, self.videos, self.beside = out, workers, videos, beside
        self._versions = versions()
        self._recipes: dict[tuple[str, str], Recipe] = {}

    def __call__(
        self,
        scenarios: Sequence[Scenario],
        contenders: Sequence[Contender],
        journal: Journal,
        on_episodes: Callable[[int], object] = lambda count: None,
    ) -> Outcome:
        """Play what is not in the journal.

        A scenario that cannot be played by a contender, since its simulator is not installed or differs from what the
        contender was trained on, is left out with the reason.

        Args:
            scenarios: What is played.
            contenders: Who plays.
            journal: Holds what is done, and takes what is new.
            on_episodes: Told how many more episodes are done, whenever some are.
        """
        outcome = Outcome()
        for contender in contenders:
            for scenario in scenarios:
                try:
                    self._recipe(scenario, contender)
                    actor_for(scenario, contender)
                except (ValueError, ImportError) as error:
                    outcome.left_out.append((scenario.name, contender.name, str(error)))
                    on_episodes(len(scenario.starts))
                    continue
                result = self._one(scenario, contender, journal, outcome, on_episodes)
                outcome.results.setdefault(scenario.name, {})[contender.name] = result
        return outcome

    def _recipe(self, scenario: Scenario, contender: Contender) -> Recipe:
        """Say how an environment is made; found out once, as some take long to open."""
        key = scenario.env, contender.name
        if key not in self._recipes:
            spec = contender.spec(scenario.env)
            self._recipes[key] = recipe_for(scenario.env, spec, contender.execute)
        return self._recipes[key]

    def _one(
        self,
        scenario: Scenario,
        contender: Contender,
        journal: Journal,
        outcome: Outcome,
        on_episodes: Callable[[int], object],
    ) -> RolloutResult:
        first = scenario.starts[0].seed
        whole = {"env": scenario.env, "execute": contender.execute, "noise": first, "versions": self._versions}
        whole |= {"contender": contender.facts(), "latency": scenario.latency, "continued": scenario.continued}
        whole |= {"instruction": scenario.instruction} if scenario.instruction else {}
        keys = {start.seed: key_of({**whole, "start": _plain(start)}) for start in scenario.starts}
        films = {
            start.seed: film(self.out, scenario, contender, start.seed) for start in scenario.starts[: self.videos]
        }
        todo = [
            replace(start, film=start.seed in films, expert=contender.expert)
            for start in scenario.starts
            if keys[start.seed] not in journal.known or not films.get(start.seed, self.out).exists()
        ]
        kept = len(scenario.starts) - len(todo)
        on_episodes(kept)
        spec = contender.spec(scenario.env)
        recipe = self._recipe(scenario, contender)
        for games in waves(self.workers, actor_for(scenario, contender), recipe, todo, first, self.beside):
            for game in games:
                if game.start.film:
                    write_mp4(films[game.start.seed], np.stack(game.frames), spec.rate_hz)
                journal.add(keys[game.start.seed], asdict(game.episode(spec)))
            on_episodes(len(games))
        outcome.kept, outcome.played = outcome.kept + kept, outcome.played + len(todo)
        episodes = tuple(Episode(**journal.known[keys[start.seed]]) for start in scenario.starts)
        return RolloutResult(scenario.env, contender.execute, episodes)


def film(folder: Path, scenario: Scenario, contender: Contender, seed: int) -> Path:
    """Name the film of an episode in the folder of an evaluation."""
    return folder / VIDEOS / safe(contender.name) / f"{safe(scenario.name)}_{seed}.mp4"


def _plain(start: Start) -> dict[str, Any]:
    return {"seed": start.seed, "options": start.options and dict(start.options), "steps": start.steps}
