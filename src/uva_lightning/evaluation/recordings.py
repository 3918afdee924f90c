"""What replaying demonstrations takes: how an environment begins as each of them did, and how good they were."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import numpy as np

from uva_lightning.commands.errors import UserError
from uva_lightning.datamodules.base import RobotDataModule
from uva_lightning.demos import META
from uva_lightning.envs.games import Start

_REGISTRY: dict[str, type[Recordings]] = {}


@dataclass(frozen=True)
class Recorded:
    """One demonstration.

    Args:
        start: How the environment begins as it did; it ends after as many steps.
        score: Largest reward that was recorded, or that the recorded states are worth; None if nothing tells. States
            are recorded before each action, so that the last action does not count for them.
    """

    start: Start
    score: float | None


class Recordings(ABC):
    """Demonstrations of some environments. Subclassing registers it for these.

    Args:
        env: Name of the environment.
        path: Where the demonstrations lie.
    """

    envs: ClassVar[tuple[str, ...]] = ()
    """Names of the environments."""

    def __init__(self, env: str, path: Path) -> None:
        self.env, self.path = env, path

    @property
    def name(self) -> str:
        """Name of the environment without a change of what it looks like."""
        return self.env.partition(":")[0]

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        _REGISTRY.update(dict.fromkeys(cls.envs, cls))

    @cached_property
    def recorded(self) -> Sequence[Recorded]:
        """All demonstrations, read once."""
        return self.episodes()

    @abstractmethod
    def data(self) -> RobotDataModule:
        """Give the datamodule that reads them, for a replay without a checkpoint."""

    @abstractmethod
    def episodes(self) -> Sequence[Recorded]:
        """Give all demonstrations, in the order in which the datamodule has them.

        Raises:
            ValueError: The data do not say how the simulator was at the start.
        """


def made_for(folder: Path) -> str:
    """Tell which environment a folder of ``uva demos`` was recorded in."""
    return str(json.loads((folder / META).read_text()).get("env"))


def recordings_of(env: str, path: Path) -> Recordings:
    """Open demonstrations of an environment.

    Raises:
        UserError: It is not known how to begin an episode of this environment as it was recorded.
    """
    name = env.partition(":")[0].partition("/")[0]
    if name not in _REGISTRY:
        raise UserError(
            f"There is no way to begin '{name}' as a demonstration did, only {', '.join(sorted(_REGISTRY))}; write a "
            "subclass of uva_lightning.evaluation.recordings.Recordings for it."
        )
    return _REGISTRY[name](env, path)


def seeded(env: str, folder: Path) -> list[Recorded]:
    """Read a folder of ``uva demos``: each episode names its seed, from which all of its start follows.

    Raises:
        UserError: They are demonstrations of another environment.
    """
    if (recorded := made_for(folder)) != env:
        raise UserError(f"{folder} holds demonstrations of '{recorded}', not of '{env}'; set --env {recorded}.")
    found = []
    for file in sorted(folder.glob("episode_*.npz")):
        with np.load(file, allow_pickle=False) as arrays:
            steps, reward = len(arrays["action"]), float(arrays["reward"].max())
            found.append(Recorded(Start(int(arrays["seed"]), None, steps), reward))
    return found
