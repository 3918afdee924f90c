"""The five models that the official code trains, as data: what their tensors cannot tell."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

EVERY_FUNCTION = ("policy", "video", "forward", "inverse", "joint")
IDENTITY = {"class_path": "Identity"}
POSITION = {"class_path": "Limits", "init_args": {"smallest_range": 1.0e-7}}
ARM_ACTION = {"class_path": "Columns", "init_args": {"widths": [3, 7], "parts": [POSITION, IDENTITY]}}


@dataclass(frozen=True)
class Variant:
    """One model and the data that it is trained on.

    Args:
        data: Class of the datamodule.
        path: Where the recordings usually lie.
        actions: Normaliser of the actions.
        states: Official field of each proprioception entry of the data, in the order in which models take them.
        normalizers: Normaliser of each entry; its range to [-1, 1] where left out.
        predicts: Entries of the future that may be predicted.
        text: Whether there is an instruction.
        functions: Functions that the second stage trains.
        window: How windows differ from those of Push-T.
        varied: What shares a draw of history frames where the official code varies them.
        varies: Whether it does, where the file does not tell.
        known_by: Field of the normaliser that only this one has; none where nothing is normalised.
    """

    data: str
    path: str
    actions: Mapping[str, Any]
    states: Mapping[str, str] = field(default_factory=dict)
    normalizers: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    predicts: tuple[str, ...] = ()
    text: bool = False
    functions: tuple[str, ...] = EVERY_FUNCTION
    window: Mapping[str, Any] = field(default_factory=dict)
    varied: str = "batch"
    varies: bool = False
    known_by: str | None = None


_UMI_STATES = {
    "eef_pos": "robot0_eef_pos",
    "eef_rot": "robot0_eef_rot_axis_angle",
    "gripper_width": "robot0_gripper_width",
    "eef_rot_wrt_start": "robot0_eef_rot_axis_angle_wrt_start",
}
_UMI: dict[str, Any] = {
    "actions": IDENTITY,
    "states": _UMI_STATES,
    "normalizers": dict.fromkeys(_UMI_STATES, IDENTITY),
    "predicts": ("eef_rot_wrt_start",),
    "functions": ("policy", "joint"),
    "window": {"pad": [15, 16], "every": 3, "shift_action": False},
    "varied": "sample",
}

VARIANTS: dict[str, Variant] = {
    "pusht": Variant(
        data="PushT",
        path="data/pusht_cchi_v7_replay.zarr",
        actions={"class_path": "Limits"},
        states={"agent": "agent_pos"},
        known_by="agent_pos",
    ),
    "libero10": Variant(
        data="Libero10",
        path="data/libero10.zarr.zip",
        actions=ARM_ACTION,
        text=True,
        known_by="agentview_rgb",
    ),
    "toolhang": Variant(
        data="ToolHang",
        path="data/tool_hang_image_abs.zarr.zip",
        actions=ARM_ACTION,
        states={
            "eef_pos": "robot0_eef_pos",
            "eef_quat": "robot0_eef_quat",
            "gripper_qpos": "robot0_gripper_qpos",
        },
        normalizers={"eef_pos": POSITION, "eef_quat": IDENTITY, "gripper_qpos": POSITION},
        predicts=("eef_pos", "eef_quat", "gripper_qpos"),
        known_by="sideview_image",
    ),
    "umi": Variant(data="UMI", path="data/umi/cup_arrangement_0.zarr.zip", **_UMI),
    "umi_multi": Variant(data="UMIMulti", path="data/umi", text=True, varies=True, **_UMI),
}

FIELDS = {entry: official for variant in VARIANTS.values() for entry, official in variant.states.items()}
"""Official field of every entry that one of the models takes."""
