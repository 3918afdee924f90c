"""Data that is made when it is not there yet."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from uva_lightning.datamodules.base import RobotDataModule


class EpisodeMaker(ABC):
    """Writes a data set to the path of a datamodule before it is read, once, by the first process."""

    @abstractmethod
    def __call__(self, path: Path, data: RobotDataModule) -> None:
        """Write all episodes, or what is missing of them; leave any other data at ``path`` alone.

        Args:
            path: The data set.
            data: Knows how the data set looks.
        """


class ScriptedDemos(EpisodeMaker):
    """Let the scripted expert play, as ``uva demos`` does.

    Args:
        env: Environment.
        episodes: Episodes in the folder afterwards.
        seed: Seed of the first one.
    """

    def __init__(self, env: str = "pusht", episodes: int = 200, seed: int = 0) -> None:
        self.env, self.episodes, self.seed = env, episodes, seed

    def __call__(self, path: Path, data: RobotDataModule) -> None:
        """See the base class; finished demonstrations of any kind, or other data, are left alone."""
        from uva_lightning.datamodules import demos
        from uva_lightning.demos import write_demos

        if not path.exists() or (demos.matches(path) and not demos.complete(path)):
            write_demos(self.env, path, self.episodes, self.seed)
