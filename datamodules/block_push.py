"""Block pushing in our planar environment: ``uva demos block_push`` records it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor

from uva_lightning.datamodules.base import RobotDataModule
from uva_lightning.datamodules.fields import Fields
from uva_lightning.datamodules.layouts import read_episodes
from uva_lightning.datamodules.pusht import PLANE
from uva_lightning.datamodules.store import EpisodeStore
from uva_lightning.datamodules.symmetry import Symmetry
from uva_lightning.types import DataSpec


class BlockPush(RobotDataModule):
    """Block pushing: one 96 px camera, 10 Hz, 2-D target of the agent in px; for the official data ``BlockPushing``."""

    facts: ClassVar[DataSpec] = DataSpec(
        cameras=("top",),
        image_size=96,
        action_dim=2,
        state_dims={"agent": 2},
        rate_hz=10,
        action_meaning="absolute target of the agent, px",
    )
    fields: ClassVar[Mapping[str, Fields]] = {
        "demos": Fields(video={"top": "frames"}, action="action", state={"agent": "agent"})
    }

    def read(self) -> EpisodeStore:
        """Read all episodes from ``path``."""
        return read_episodes(self.path, self.fields, self.spec, self.faults)


class BlockPushMirror(Symmetry):
    """Mirror left and right and exchange red and green: (x, y) becomes (512 - x, y).

    The squares are mapped onto each other and the blocks change their names, so a mirrored episode is one that could
    have been played.
    """

    def frames(self, frames: Tensor) -> Tensor:
        """Flip columns and exchange two channels: u8[..., H, W, 3]."""
        return frames.flip(-2)[..., [1, 0, 2]]

    def action(self, action: Tensor) -> Tensor:
        """Map points in px: f32[..., 2]."""
        return _mirrored(action)

    def state(self, name: str, state: Tensor) -> Tensor:
        """Map the agent's position in px: f32[..., 2]."""
        return _mirrored(state)


def _mirrored(points: Tensor) -> Tensor:
    return points * points.new_tensor([-1, 1]) + points.new_tensor([PLANE, 0])
