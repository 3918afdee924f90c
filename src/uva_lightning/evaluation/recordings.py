"""What replaying demonstrations takes: how an environment begins as each of them did, and how good they were."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from uva_lightning.commands.errors import UserError
from uva_lightning.datamodules.base import RobotDataModule
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

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        _REGISTRY.update(dict.fromkeys(cls.envs, cls))

    @abstractmethod
    def data(self) -> RobotDataModule:
        """Give the datamodule that reads them, for a replay without a checkpoint."""

    @abstractmethod
    def episodes(self) -> Sequence[Recorded]:
        """Give all demonstrations, in the order in which the datamodule has them.

        Raises:
            ValueError: The data do not say how the simulator was at the start.
        """


def recordings_of(env: str, path: Path) -> Recordings:
    """Open demonstrations of an environment.

    Raises:
        UserError: It is not known how to begin an episode of this environment as it was recorded.
    """
    name = env.partition(":")[0]
    if name not in _REGISTRY:
        raise UserError(
            f"There is no way to begin '{name}' as a demonstration did, only {', '.join(sorted(_REGISTRY))}; write a "
            "subclass of uva_lightning.evaluation.recordings.Recordings for it."
        )
    return _REGISTRY[name](env, path)
