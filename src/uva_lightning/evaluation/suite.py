"""What an evaluation plays: scenarios, each with its episodes; a suite of your own is one class in one file."""

from __future__ import annotations

import importlib
import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from uva_lightning.commands.errors import UserError, hint
from uva_lightning.envs.games import Start
from uva_lightning.rollouts import FIRST_TEST_SEED

_REGISTRY: dict[str, type[Suite]] = {}


@dataclass(frozen=True)
class Scenario:
    """Episodes of one environment, which give one number.

    Args:
        name: Short name, a column of the tables; films and journal use it.
        env: Environment, as ``envs.make`` knows it.
        starts: One per episode.
        against: Scenario with the same seeds that this one is compared with, episode by episode.
        paper: Published scores, by method.
        protocol: How the official protocol differs from this one; empty where it does not.
        latency: Control steps that a decision takes, see ``evaluation.latency``.
        continued: With a latency, policies are told what the robot does meanwhile, and continue it.
        instruction: What the robot is told, in the words that a policy was trained with.
        group: Name of the benchmark whose score is the mean over several scenarios, such as its tasks.
    """

    name: str
    env: str
    starts: Sequence[Start]
    against: str | None = None
    paper: Mapping[str, float] = field(default_factory=dict)
    protocol: str = ""
    latency: int = 0
    continued: bool = False
    instruction: str = ""
    group: str = ""

    def __post_init__(self) -> None:
        seeds = [start.seed for start in self.starts]
        if not seeds or len(set(seeds)) != len(seeds):
            raise ValueError(f"Scenario '{self.name}' has the seeds {seeds}, expected at least one, each once.")
        if self.latency < 0 or (self.continued and not self.latency):
            how = "is continued" if self.continued else "is not continued"
            raise ValueError(
                f"Scenario '{self.name}' has a latency of {self.latency} steps and {how}, expected 0 steps or more, "
                "and some to continue."
            )


class Suite(ABC):
    """Scenarios that belong together. Subclassing registers it under ``name``, or else under the name of the class.

    Args:
        episodes: Episodes of a scenario.
        seed: Seed of the first one; the others count up.
    """

    name: ClassVar[str] = ""
    held_out: ClassVar[bool] = False
    """Whether checkpoints are also measured on held-out windows of their data."""

    def __init__(self, episodes: int = 50, seed: int = FIRST_TEST_SEED) -> None:
        if episodes < 1 or seed < 0:
            raise ValueError(f"There are {episodes} episodes from seed {seed} on, expected at least 1 from 0 on.")
        self.episodes, self.seed = episodes, seed

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if ABC not in cls.__bases__:
            _REGISTRY[cls.name or cls.__name__] = cls

    @abstractmethod
    def scenarios(self) -> Sequence[Scenario]:
        """Say what is played."""

    def missing(self) -> Mapping[str, str]:
        """Say what belongs here but cannot be played: one sentence each, with what is needed."""
        return {}

    def starts(self) -> list[Start]:
        """Give the usual starts: one per seed."""
        return [Start(seed) for seed in range(self.seed, self.seed + self.episodes)]


def suite_of(given: str, episodes: int | None = None, seed: int | None = None) -> Suite:
    """Make a suite.

    Args:
        given: Its name; or a YAML file, or YAML itself, with ``class_path`` and ``init_args``.
        episodes: Instead of the suite's own number.
        seed: Instead of the suite's own first seed.

    Raises:
        UserError: There is no such suite, or its arguments are wrong.
    """
    own = {name: value for name, value in (("episodes", episodes), ("seed", seed)) if value is not None}
    load_suites()
    if given in _REGISTRY:
        return _REGISTRY[given](**own)
    if Path(given).suffix in (".yaml", ".yml") or "class_path" in given:
        return _from_yaml(given, own)
    raise UserError(
        f"There is no suite '{given}'.{hint(given, _REGISTRY)} A YAML file with a class_path can stand here."
    )


def known_suites() -> dict[str, type[Suite]]:
    """Give all suites by name."""
    load_suites()
    return dict(_REGISTRY)


def load_suites() -> None:
    """Import the suites of this package."""
    package = importlib.import_module("uva_lightning.evaluation.suites")
    for module in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
        importlib.import_module(module.name)


def _from_yaml(given: str, own: Mapping[str, Any]) -> Suite:
    import yaml
    from jsonargparse import ArgumentError, ArgumentParser

    text = Path(given).read_text() if Path(given).suffix in (".yaml", ".yml") else given
    try:
        content = yaml.safe_load(text)
        content.setdefault("init_args", {}).update(own)
        parser = ArgumentParser(exit_on_error=False)
        parser.add_subclass_arguments(Suite, "suite")
        suite: Suite = parser.instantiate(parser.parse_object({"suite": content})).suite
    except (yaml.YAMLError, AttributeError, ArgumentError) as error:
        raise UserError(
            f"The suite {given} cannot be made ({' '.join(str(error).split())}), expected class_path: PACKAGE.CLASS "
            "and init_args."
        ) from error
    return suite
