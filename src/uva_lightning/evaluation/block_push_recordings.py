"""Demonstrations of block pushing: those of ``uva demos block_push``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from uva_lightning.commands.errors import UserError
from uva_lightning.datamodules import demos
from uva_lightning.datamodules.base import RobotDataModule
from uva_lightning.datamodules.block_push import BlockPush
from uva_lightning.datamodules.windows import Window
from uva_lightning.envs import ENVS
from uva_lightning.evaluation.recordings import Recorded, Recordings, made_for, seeded


class BlockPushRecordings(Recordings):
    """Episodes begin from the seed that made them, in the kind of block pushing that they were recorded in.

    What is asked for changes neither physics nor pictures, so that recordings of one kind check all of them.
    """

    envs = tuple(name for name, entry in ENVS.items() if entry.kind == ENVS["block_push"].kind)

    def __init__(self, env: str, path: Path) -> None:
        recorded = made_for(path) if demos.matches(path) else ""
        _, colon, change = env.partition(":")
        super().__init__(f"{recorded}{colon}{change}" if recorded in self.envs else env, path)

    def data(self) -> RobotDataModule:
        """See the base class."""
        return BlockPush(self.path, window=Window(frames=1))

    def episodes(self) -> Sequence[Recorded]:
        """See the base class."""
        if not self.path.exists():
            raise FileNotFoundError(f"There is no dataset at {self.path}; record one with: uva demos {self.name} --out")
        if not demos.matches(self.path):
            raise UserError(f"{self.path} holds no seeds to begin from, expected a folder of uva demos {self.name}.")
        return seeded(self.name, self.path)
