"""Tool Hang: insert a frame into a stand and hang a tool on it, from robomimic (UVA section 4)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from uva_lightning.datamodules.base import RobotDataModule
from uva_lightning.datamodules.demo_schema import ROBOMIMIC
from uva_lightning.datamodules.fields import Fields, Range
from uva_lightning.datamodules.hdf5 import DemoFields
from uva_lightning.datamodules.layouts import read_episodes
from uva_lightning.datamodules.osc_actions import OscActions
from uva_lightning.datamodules.store import EpisodeStore
from uva_lightning.types import DataSpec


class ToolHang(RobotDataModule):
    """Tool Hang: two 240 px cameras, 20 Hz, absolute actions, proprioception of arm and gripper.

    Reads robomimic's ``image_abs.hdf5``, whose actions are absolute, and the replay buffer that UVA's code caches from
    it. robomimic's ``image.hdf5`` has relative actions and is refused.
    """

    facts: ClassVar[DataSpec] = DataSpec(
        cameras=("sideview", "wrist"),
        image_size=240,
        action_dim=10,
        state_dims={"eef_pos": 3, "eef_quat": 4, "gripper_qpos": 2},
        rate_hz=20,
        action_meaning="absolute target of the gripper: position in m, rotation-6d, gripper from -1 (open) to 1",
        conventions={
            "orientation": "upright as stored",
            "rotation": "actions rotation-6d, first two rows of the matrix; state quaternion x, y, z, w",
        },
    )
    fields: ClassVar[Mapping[str, Fields]] = {
        "hdf5": DemoFields(
            video={"sideview": "obs/sideview_image", "wrist": "obs/robot0_eye_in_hand_image"},
            action="actions",
            state={
                "eef_pos": "obs/robot0_eef_pos",
                "eef_quat": "obs/robot0_eef_quat",
                "gripper_qpos": "obs/robot0_gripper_qpos",
            },
            actions=OscActions("absolute", hand="obs/robot0_eef_pos", fix="take robomimic's image_abs.hdf5."),
            schema=ROBOMIMIC,
        ),
        "replay_buffer": Fields(
            video={"sideview": "sideview_image", "wrist": "robot0_eye_in_hand_image"},
            action="action",
            state={
                "eef_pos": "robot0_eef_pos",
                "eef_quat": "robot0_eef_quat",
                "gripper_qpos": "robot0_gripper_qpos",
            },
        ),
    }
    ranges: ClassVar[Mapping[str, Range]] = {"robot0_gripper_qpos": Range(-0.04, 0.04)}

    def read(self) -> EpisodeStore:
        """Read all episodes from ``path``."""
        return read_episodes(self.path, self.fields, self.spec, self.faults)
