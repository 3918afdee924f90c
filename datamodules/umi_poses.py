"""Poses of UMI's hand-held grippers, as they are recorded and as a model sees them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from uva_lightning.datamodules.rows import Rows
from uva_lightning.datamodules.transform import WindowTransform
from uva_lightning.rotations import from_axis_angle, to_six
from uva_lightning.types import Batch

START = 2
"""Tells the noise on the start pose from other draws of the same batch."""
RECORDED = {"eef_pos": 3, "eef_axis_angle": 3, "gripper_width": 1, "start_pose": 6}
"""Widths of what is recorded of a gripper: m, rad, m, m and rad."""
RECORDED_ACTION = ("eef_pos", "eef_axis_angle", "gripper_width")
"""What a recorded action is made of, 7 numbers of each gripper."""
SEEN = {"eef_pos": 3, "eef_rot": 6, "gripper_width": 1, "eef_rot_wrt_start": 6}
"""Widths of what a model sees of a gripper; its action has the first 10 numbers."""
ACTION = 10


class RelativePoses(WindowTransform):
    """Express poses relative to the present one of the same gripper, ``inverse(present) @ pose``, as UMI and UVA.

    Args:
        start_noise: Standard deviation of noise on the six numbers of the start pose, m and rad, so that a model does
            not rely on how exactly an episode began. In training only; UVA's code has it in validation, too.
        grippers: How the names of each gripper's entries begin, in the order of the action.
    """

    def __init__(self, start_noise: float = 0.05, grippers: Sequence[str] = ("",)) -> None:
        self.start_noise, self.grippers = start_noise, tuple(grippers)

    def __call__(self, batch: Batch, rows: Rows | None) -> Batch:
        """See the base class; the last step of the state is the present."""
        noise = None if rows is None else self.start_noise * rows.normal(START, len(self.grippers), 6)
        presents: list[tuple[Tensor, Tensor]] = []
        state: dict[str, Tensor] = {}
        future: dict[str, Tensor] = {}
        for number, name in enumerate(self.grippers):
            turn = from_axis_angle(batch.state[f"{name}eef_axis_angle"][:, -1:])
            presents.append((batch.state[f"{name}eef_pos"][:, -1:], turn))
            start = batch.state[f"{name}start_pose"][:, -1:]  # f32[b, 1, 6]
            if noise is not None:
                start = start + noise[:, number, None]
            begin = from_axis_angle(start[..., 3:])
            state |= _state(batch.state, name, presents[-1], begin)
            future |= _state(batch.future_state, name, presents[-1], begin)
        return replace(
            batch,
            action=None if batch.action is None else _action(batch.action, presents),
            past_action=None if batch.past_action is None else _action(batch.past_action, presents),
            state=state,
            future_state=future,
        )


def _action(action: Tensor, presents: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    """Turn position, axis-angle and width, f32[b, h, 7 g], into position, rotation-6d and width f32[b, h, 10 g]."""
    parts = []
    for seven, present in zip(action.split(7, dim=-1), presents, strict=True):
        place, turn, width = seven.split((3, 3, 1), dim=-1)
        parts += [*_relative(place, from_axis_angle(turn), present), width]
    return torch.cat(parts, dim=-1)


def _state(state: Mapping[str, Tensor], name: str, present: tuple[Tensor, Tensor], begin: Tensor) -> dict[str, Tensor]:
    turn = from_axis_angle(state[f"{name}eef_axis_angle"])
    place, six = _relative(state[f"{name}eef_pos"], turn, present)
    return {
        f"{name}eef_pos": place,
        f"{name}eef_rot": six,
        f"{name}gripper_width": state[f"{name}gripper_width"],
        f"{name}eef_rot_wrt_start": to_six(begin.mT @ turn),
    }


def _relative(place: Tensor, turn: Tensor, present: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    origin, facing = present
    return ((place - origin)[..., None, :] @ facing).squeeze(-2), to_six(facing.mT @ turn)
