"""LIBERO-10: ten long tasks of a table-top arm, told by an instruction (UVA section 4)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar

from uva_lightning.datamodules.base import RobotDataModule
from uva_lightning.datamodules.fields import Fields
from uva_lightning.datamodules.layouts import read_episodes
from uva_lightning.datamodules.pictures import Flipped
from uva_lightning.datamodules.store import EpisodeStore
from uva_lightning.types import DataSpec


class Libero10(RobotDataModule):
    """LIBERO-10 as UVA trains on it: one 128 px camera, 20 Hz, absolute actions, no proprioception.

    Reads the replay buffer that UVA's code caches, whose pictures are upside down as OpenGL draws them; they are
    turned upright here, once, and must not be turned again. Actions there are absolute already: LIBERO's own files
    have relative ones. All pictures are held in memory, 49 KB each.

    Instructions are UVA's: the name of the scene, then the task.
    """

    facts: ClassVar[DataSpec] = DataSpec(
        cameras=("agentview",),
        image_size=128,
        action_dim=10,
        state_dims={},
        rate_hz=20,
        action_meaning="absolute target of the gripper: position in m, rotation-6d, gripper from -1 (open) to 1",
        conventions={
            "orientation": "upright (stored upside down, flipped top to bottom)",
            "rotation": "rotation-6d, first two rows of the matrix",
        },
    )
    fields: ClassVar[Mapping[str, Fields]] = {
        "replay_buffer": Fields(
            video={"agentview": "agentview_rgb"}, action="action", state={}, instructions="language"
        ),
    }

    def read(self) -> EpisodeStore:
        """Read all episodes from ``path``, and what the robot is told where ``text`` needs it."""
        names = self.fields["replay_buffer"]
        wanted = names if self.text is not None else replace(names, instructions=None)
        store = read_episodes(self.path, {"replay_buffer": wanted}, self.spec, self.faults)
        return replace(store, video={camera: Flipped(frames) for camera, frames in store.video.items()})
