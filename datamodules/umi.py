"""UMI: manipulation recorded with a hand-held gripper and its camera (Chi et al. 2024; UVA section 4)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from uva_lightning.datamodules.base import RobotDataModule
from uva_lightning.datamodules.faults import Faults
from uva_lightning.datamodules.fields import Fields, Range
from uva_lightning.datamodules.layouts import read_episodes
from uva_lightning.datamodules.rows import Rows
from uva_lightning.datamodules.store import EpisodeStore
from uva_lightning.datamodules.transform import WindowTransform
from uva_lightning.rotations import from_axis_angle, to_six
from uva_lightning.types import Batch, DataSpec

START = 2
"""Tells the noise on the start pose from other draws of the same batch."""


class RelativePoses(WindowTransform):
    """Express poses relative to the present one, ``inverse(present) @ pose``, as UMI and UVA; widths stay as they are.

    Args:
        start_noise: Standard deviation of noise on the six numbers of the start pose, m and rad, so that a model does
            not rely on how exactly an episode began. In training only; UVA's code has it in validation, too.
    """

    def __init__(self, start_noise: float = 0.05) -> None:
        self.start_noise = start_noise

    def __call__(self, batch: Batch, rows: Rows | None) -> Batch:
        """See the base class; the last step of the state is the present."""
        present = batch.state["eef_pos"][:, -1:], from_axis_angle(batch.state["eef_axis_angle"][:, -1:])
        start = batch.state["start_pose"][:, -1:]  # f32[b, 1, 6]
        if rows is not None:
            start = start + self.start_noise * rows.normal(START, 1, 6)
        begin = from_axis_angle(start[..., 3:])
        return replace(
            batch,
            action=None if batch.action is None else _action(batch.action, present),
            past_action=None if batch.past_action is None else _action(batch.past_action, present),
            state=_state(batch.state, present, begin),
            future_state=_state(batch.future_state, present, begin),
        )


def _action(action: Tensor, present: tuple[Tensor, Tensor]) -> Tensor:
    """Turn position, axis-angle and width f32[b, h, 7] into position, rotation-6d and width f32[b, h, 10]."""
    place, turn, width = action.split((3, 3, 1), dim=-1)
    return torch.cat((*_relative(place, from_axis_angle(turn), present), width), dim=-1)


def _state(state: Mapping[str, Tensor], present: tuple[Tensor, Tensor], begin: Tensor) -> dict[str, Tensor]:
    turn = from_axis_angle(state["eef_axis_angle"])
    place, six = _relative(state["eef_pos"], turn, present)
    return {
        "eef_pos": place,
        "eef_rot": six,
        "gripper_width": state["gripper_width"],
        "eef_rot_wrt_start": to_six(begin.mT @ turn),
    }


def _relative(place: Tensor, turn: Tensor, present: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    origin, facing = present
    return ((place - origin)[..., None, :] @ facing).squeeze(-2), to_six(facing.mT @ turn)


class UMI(RobotDataModule):
    """One task of UMI: a 224 px wrist camera, poses of the gripper at 59.94 Hz; set ``window.every`` to 3, as UVA.

    Reads UMI's own replay buffer, folder or ``.zarr.zip``. An action is the pose that was reached, so
    ``window.shift_action`` must be false. All pictures are held in memory, 151 KB each; cached latents are 16 KB.

    Not done: painting over the mirrors at the camera's sides (UVA does it for the cup task), and two-handed data.
    """

    facts: ClassVar[DataSpec] = DataSpec(
        cameras=("camera0",),
        image_size=224,
        action_dim=10,
        state_dims={"eef_pos": 3, "eef_rot": 6, "gripper_width": 1, "eef_rot_wrt_start": 6},
        rate_hz=59.94,
        action_meaning="pose relative to the present one: position in m, rotation-6d; width of the gripper in m",
        conventions={
            "orientation": "as stored, the fisheye view of the gripper's camera",
            "rotation": "rotation-6d, first two rows of the matrix",
            "poses": "relative to the present pose; eef_rot_wrt_start to that at the begin of the episode",
        },
    )
    recorded: ClassVar[DataSpec | None] = replace(
        facts,
        action_dim=7,
        state_dims={"eef_pos": 3, "eef_axis_angle": 3, "gripper_width": 1, "start_pose": 6},
    )
    fields: ClassVar[Mapping[str, Fields]] = {
        "replay_buffer": Fields(
            video={"camera0": "camera0_rgb"},
            action="robot0_eef_pos",  # no field of its own: the pose is the action, the rest is joined to it below
            state={
                "eef_pos": "robot0_eef_pos",
                "eef_axis_angle": "robot0_eef_rot_axis_angle",
                "gripper_width": "robot0_gripper_width",
                "start_pose": "robot0_demo_start_pose",
            },
        ),
    }
    ranges: ClassVar[Mapping[str, Range]] = {
        "robot0_eef_pos": Range(-0.3, 0.3),
        "robot0_gripper_width": Range(0.0, 0.09),
        "robot0_demo_start_pose": Range(-0.3, 0.3, constant=True),
    }
    transform: ClassVar[WindowTransform | None] = RelativePoses()

    def read(self) -> EpisodeStore:
        """Read all episodes from ``path``."""
        return read_umi(self.path, self.faults)


def read_umi(path: Path, faults: Faults | None = None) -> EpisodeStore:
    """Read a recording of UMI; actions are the poses and the width, f32[n, 7]."""
    store = read_episodes(path, UMI.fields, UMI.recorded or UMI.facts, faults)
    parts = [store.state[name] for name in ("eef_pos", "eef_axis_angle", "gripper_width")]
    return replace(store, action=np.concatenate(parts, axis=1))
