"""Demonstrations of block pushing: those of ``uva demos block_push``."""

from __future__ import annotations

from collections.abc import Sequence

from uva_lightning.commands.errors import UserError
from uva_lightning.datamodules import demos
from uva_lightning.datamodules.base import RobotDataModule
from uva_lightning.datamodules.block_push import BlockPush
from uva_lightning.datamodules.windows import Window
from uva_lightning.evaluation.recordings import Recorded, Recordings, seeded


class BlockPushRecordings(Recordings):
    """Episodes begin from the seed that made them."""

    envs = ("block_push",)

    def data(self) -> RobotDataModule:
        """See the base class."""
        return BlockPush(self.path, window=Window(frames=1))

    def episodes(self) -> Sequence[Recorded]:
        """See the base class."""
        if not self.path.exists():
            raise FileNotFoundError(f"There is no dataset at {self.path}; record one with: uva demos {self.env} --out")
        if not demos.matches(self.path):
            raise UserError(f"{self.path} holds no seeds to begin from, expected a folder of uva demos {self.env}.")
        return seeded(self.env, self.path)
