"""Push-T: push the T onto the target. Recordings of Diffusion Policy (206 episodes) or of ``uva demos``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor

from uva_lightning.datamodules.base import RobotDataModule
from uva_lightning.datamodules.fields import Fields, Range
from uva_lightning.datamodules.layouts import read_episodes
from uva_lightning.datamodules.store import EpisodeStore
from uva_lightning.datamodules.symmetry import Symmetry
from uva_lightning.types import DataSpec

PLANE = 512.0
"""Side of the plane in px."""


class PushT(RobotDataModule):
    """Push-T: one 96 px camera, 10 Hz, 2-D target of the agent in px; as demos, replay buffer or LeRobot dataset."""

    facts: ClassVar[DataSpec] = DataSpec(
        cameras=("top",),
        image_size=96,
        action_dim=2,
        state_dims={"agent": 2},
        rate_hz=10,
        action_meaning="absolute target of the agent, px",
    )
    fields: ClassVar[Mapping[str, Fields]] = {
        "demos": Fields(video={"top": "frames"}, action="action", state={"agent": "agent"}),
        "replay_buffer": Fields(video={"top": "img"}, action="action", state={"agent": "state"}),
        "lerobot": Fields(video={"top": "observation.image"}, action="action", state={"agent": "observation.state"}),
    }
    ranges: ClassVar[Mapping[str, Range]] = {"action": Range(0, PLANE), "state": Range(0, PLANE)}

    def read(self) -> EpisodeStore:
        """Read all episodes from ``path``, in whichever layout they lie."""
        return read_episodes(self.path, self.fields, self.spec, self.faults)


class PushTMirror(Symmetry):
    """Mirror at the line x + y = 512, on which the standard goal lies: (x, y) becomes (512 - y, 512 - x).

    The goal, the walls and the T are mapped onto themselves, so a mirrored episode is one that could have been played.
    """

    def frames(self, frames: Tensor) -> Tensor:
        """Transpose at the other diagonal: u8[..., H, W, 3]."""
        return frames.flip(-3, -2).transpose(-3, -2)

    def action(self, action: Tensor) -> Tensor:
        """Map points in px: f32[..., 2]."""
        return PLANE - action.flip(-1)

    def state(self, name: str, state: Tensor) -> Tensor:
        """Map the agent's position in px: f32[..., 2]."""
        return PLANE - state.flip(-1)
