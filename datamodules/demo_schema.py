"""What HDF5 files of demonstrations hold besides what is trained on: the schemas of LIBERO and robomimic."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from uva_lightning.datamodules.fields import Range


@dataclass(frozen=True)
class DemoSchema:
    """Everything in a file, so that one can be made up.

    Args:
        files: Names of the files of a folder, without suffix.
        pictures: Width and height of each field of pictures.
        numbers: Width of each field of numbers, f64.
        hand: Position of the hand among them.
        joined: Fields that are others side by side.
        flags: Fields u8[n] that are 1 at the last step.
        ranges: What numbers look like; -1 to 1 where left out.
        attributes: Attributes of ``data``; lengths and, as ``{words}``, the sentence of the file are filled in.
    """

    files: Sequence[str]
    pictures: Mapping[str, int]
    numbers: Mapping[str, int]
    hand: str
    joined: Mapping[str, Sequence[str]] = field(default_factory=dict)
    flags: Sequence[str] = ("rewards", "dones")
    ranges: Mapping[str, Range] = field(default_factory=dict)
    attributes: Mapping[str, str] = field(default_factory=dict)
    model: str = "<mujoco model='made up'><worldbody/></mujoco>"


def _env_args(name: str, kind: int, **options: Any) -> str:
    controller = {"type": "OSC_POSE", "input_max": 1, "input_min": -1, "control_delta": True}
    kwargs = {"robots": ["Panda"], "control_freq": 20, "controller_configs": controller}
    return json.dumps({"env_name": name, "type": kind, **options, "env_kwargs": kwargs})


LIBERO = DemoSchema(
    files=("KITCHEN_SCENE3_turn_on_the_stove_demo", "LIVING_ROOM_SCENE2_put_the_box_in_the_basket_demo"),
    pictures={"obs/agentview_rgb": 128, "obs/eye_in_hand_rgb": 128},
    numbers={
        "obs/ee_pos": 3,
        "obs/ee_ori": 3,
        "obs/gripper_states": 2,
        "obs/joint_states": 7,
        "states": 123,
        "robot_states": 9,
    },
    hand="obs/ee_pos",
    joined={"obs/ee_states": ("obs/ee_pos", "obs/ee_ori")},
    ranges={"obs/ee_pos": Range(0.3, 1.2), "obs/gripper_states": Range(-0.04, 0.04)},
    attributes={
        "env_name": "Libero_Kitchen_Tabletop_Manipulation",
        "problem_info": '{"problem_name": "libero_kitchen_tabletop_manipulation", "domain_name": "robosuite", '
        '"language_instruction": "{words}"}',
        "macros_image_convention": "opengl",
        "bddl_file_name": "chiliocosm/bddl_files/libero_10/{file}.bddl",
        "bddl_file_content": "(define (problem MADE_UP) (:domain robosuite) (:language {words}))",
        "env_args": _env_args("Libero_Kitchen_Tabletop_Manipulation", 1, bddl_file="libero_10/{file}.bddl"),
    },
)
"""LIBERO's own files: one per task, pictures and numbers of the step after the action, states before it."""

ROBOMIMIC = DemoSchema(
    files=("image_abs",),
    pictures={"obs/sideview_image": 240, "obs/robot0_eye_in_hand_image": 240},
    numbers={
        "obs/object": 44,
        "obs/robot0_eef_pos": 3,
        "obs/robot0_eef_quat": 4,
        "obs/robot0_eef_vel_ang": 3,
        "obs/robot0_eef_vel_lin": 3,
        "obs/robot0_gripper_qpos": 2,
        "obs/robot0_gripper_qvel": 2,
        "obs/robot0_joint_pos": 7,
        "obs/robot0_joint_pos_cos": 7,
        "obs/robot0_joint_pos_sin": 7,
        "obs/robot0_joint_vel": 7,
        "states": 58,
    },
    hand="obs/robot0_eef_pos",
    ranges={"obs/robot0_eef_pos": Range(0.3, 1.2), "obs/robot0_gripper_qpos": Range(-0.04, 0.04)},
    attributes={"env_args": _env_args("ToolHang", 1)},
)
"""robomimic's ``image_abs.hdf5`` of Tool Hang; its ``env_args`` describe the relative controller all the same."""
