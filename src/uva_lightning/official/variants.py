"""The five models that the official code trains, as data: what their tensors cannot tell."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

EVERY_FUNCTION = ("policy", "video", "forward", "inverse", "joint")
ROTATION = "6-D: the first two rows of the rotation matrix"


@dataclass(frozen=True)
class Variant:
    """Facts of one model and its data.

    Args:
        cameras: Fields of the cameras by our names, the main view first.
        image_size: Height and width of a frame in pixels.
        rate_hz: Control rate in Hz.
        action: What an action is, with its unit.
        action_dim: Width of an action.
        states: Width of each proprioception entry, in the order in which the model takes them.
        predicts: Entries of the future that may be predicted.
        text: Whether there is an instruction.
        functions: Functions that the second stage trains.
        conventions: Orientation, rotation and alignment, for people and checks.
        known_by: Field of the normaliser that only this one has; none where nothing is normalised.
        state_steps: Steps at which proprioception is read.
        data: Where the official recordings usually lie.
    """

    cameras: Mapping[str, str]
    image_size: int
    rate_hz: float
    action: str
    action_dim: int
    states: Mapping[str, int] = field(default_factory=dict)
    predicts: tuple[str, ...] = ()
    text: bool = False
    functions: tuple[str, ...] = EVERY_FUNCTION
    conventions: Mapping[str, str] = field(default_factory=dict)
    known_by: str | None = None
    state_steps: int = 16
    data: str = ""


_UMI_STATES = {
    "robot0_eef_pos": 3,
    "robot0_eef_rot_axis_angle": 6,
    "robot0_gripper_width": 1,
    "robot0_eef_rot_axis_angle_wrt_start": 6,
}
_UMI_CONVENTIONS = {
    "orientation": "as recorded",
    "action_space": "poses relative to the latest end-effector pose: inverse(base) @ pose; gripper opening, m",
    "rotation": ROTATION,
    "first_action": "one step after the last history frame",
    "normalizer": "none",
}
_UMI_ACTION = "relative end-effector position, m; rotation, 6-D; gripper opening, m"
_ARM_ACTION = "absolute end-effector position, m; rotation, 6-D; gripper command"

VARIANTS: dict[str, Variant] = {
    "pusht": Variant(
        cameras={"top": "img"},
        image_size=96,
        rate_hz=10,
        action="absolute target of the agent, px",
        action_dim=2,
        conventions={"orientation": "as recorded", "action_space": "absolute", "rotation": "none", "normalizer": "all"},
        known_by="agent_pos",
        data="data/pusht_cchi_v7_replay.zarr",
    ),
    "libero10": Variant(
        cameras={"agentview": "agentview_rgb"},
        image_size=128,
        rate_hz=20,
        action=_ARM_ACTION,
        action_dim=10,
        text=True,
        conventions={
            "orientation": "flipped top-bottom against the simulator",
            "action_space": "absolute",
            "rotation": ROTATION,
            "first_action": "at the last history frame",
            "normalizer": "position to [-1, 1], the rest untouched",
        },
        known_by="agentview_rgb",
        data="data/libero_10.zarr",
    ),
    "toolhang": Variant(
        cameras={"sideview": "sideview_image", "wrist": "robot0_eye_in_hand_image"},
        image_size=240,
        rate_hz=20,
        action=_ARM_ACTION,
        action_dim=10,
        states={"robot0_eef_pos": 3, "robot0_eef_quat": 4, "robot0_gripper_qpos": 2},
        predicts=("robot0_eef_pos", "robot0_eef_quat", "robot0_gripper_qpos"),
        conventions={
            "orientation": "as recorded",
            "action_space": "absolute",
            "rotation": ROTATION,
            "first_action": "at the last history frame",
            "normalizer": "positions and gripper joints to [-1, 1], the rest untouched",
        },
        known_by="sideview_image",
        data="data/tool_hang.zarr",
    ),
    "umi": Variant(
        cameras={"camera0": "camera0_rgb"},
        image_size=224,
        rate_hz=20,
        action=_UMI_ACTION,
        action_dim=10,
        states=_UMI_STATES,
        predicts=("robot0_eef_rot_axis_angle_wrt_start",),
        functions=("policy", "joint"),
        conventions=_UMI_CONVENTIONS,
        data="data/umi.zarr",
    ),
    "umi_multi": Variant(
        cameras={"camera0": "camera0_rgb"},
        image_size=224,
        rate_hz=20,
        action=_UMI_ACTION,
        action_dim=10,
        states=_UMI_STATES,
        predicts=("robot0_eef_rot_axis_angle_wrt_start",),
        text=True,
        functions=("policy", "joint"),
        conventions=_UMI_CONVENTIONS,
        state_steps=4,
        data="data/umi_multi.zarr",
    ),
}
