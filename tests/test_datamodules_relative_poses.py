"""Poses relative to the present one, in m and rad, on numbers of which the result is known."""

from __future__ import annotations

import math

import pytest
import torch

from uva_lightning.datamodules.rows import Rows
from uva_lightning.datamodules.umi import RelativePoses
from uva_lightning.rotations import from_axis_angle, to_six
from uva_lightning.types import Batch

QUARTER = math.pi / 2
LEVEL = [1.0, 0, 0, 0, 1, 0]
"""Rotation-6d of no rotation."""


def windows(place, turn, start=(0.0,) * 6, width=0.05):
    """One window per pose list f32[b, n, 3]; the chunk and the future repeat the history."""
    samples, steps, _ = place.shape
    widths = torch.full((samples, steps, 1), width)
    state = {
        "eef_pos": place,
        "eef_axis_angle": turn,
        "gripper_width": widths,
        "start_pose": torch.tensor(start).expand(samples, steps, 6),
    }
    poses = torch.cat((place, turn, widths), dim=-1)
    return Batch(action=poses, past_action=poses, state=state, future_state=state)


def test_the_present_is_the_origin_and_a_step_ahead_is_a_step_along_its_own_axis():
    """The gripper is turned a quarter about z and moves 0.1 m along y, which is its own x."""
    place = torch.tensor([[[1.0, 2.1, 3.0], [1.0, 2.0, 3.0]]])
    turn = torch.tensor([[[0.0, 0.0, QUARTER]] * 2])
    batch = RelativePoses()(windows(place, turn), None)
    assert batch.state["eef_pos"][0, 0].tolist() == pytest.approx([0.1, 0, 0], abs=1e-6)
    for entry, width in (("eef_pos", 3), ("eef_rot", 6)):
        assert batch.state[entry][0, 1].tolist() == pytest.approx([0.0] * 3 if width == 3 else LEVEL, abs=1e-6)
    assert batch.action[0, 0].tolist() == pytest.approx([0.1, 0, 0, *LEVEL, 0.05], abs=1e-6)
    assert batch.past_action.equal(batch.action)
    assert batch.state["eef_rot_wrt_start"][0, 1].tolist() == pytest.approx([0, -1, 0, 1, 0, 0], abs=1e-6)


def test_the_same_motion_elsewhere_in_the_world_is_the_same():
    rng = torch.Generator().manual_seed(0)
    place, turn = (torch.randn(3, 16, 3, generator=rng) for _ in range(2))
    here = RelativePoses()(windows(place, turn), None)
    world, shift = from_axis_angle(torch.tensor([0.3, -1.0, 0.7])), torch.tensor([5.0, -2.0, 1.0])
    moved = from_axis_angle(turn.double()).float()
    there = RelativePoses()(windows(place @ world.mT + shift, axis_angle(world @ moved)), None)
    for name in ("eef_pos", "eef_rot"):
        torch.testing.assert_close(there.state[name], here.state[name], atol=1e-4, rtol=0)
    torch.testing.assert_close(there.action, here.action, atol=1e-4, rtol=0)


def axis_angle(matrix):
    """Undo ``from_axis_angle`` where the angle is below pi."""
    skew = matrix - matrix.mT
    axis = torch.stack((skew[..., 2, 1], skew[..., 0, 2], skew[..., 1, 0]), dim=-1)
    angle = ((matrix.diagonal(dim1=-2, dim2=-1).sum(-1) - 1) / 2).clamp(-1, 1).acos()
    return axis / axis.norm(dim=-1, keepdim=True) * angle[..., None]


class TestStartNoise:
    batch = windows(torch.zeros(4000, 1, 3), torch.zeros(4000, 1, 3))

    def rotation(self, noise, rows):
        return RelativePoses(noise)(self.batch, rows).state["eef_rot_wrt_start"][:, 0]

    def test_has_the_given_deviation_in_rad(self):
        six = self.rotation(0.05, Rows(torch.arange(4000), 1, 2, 0, 4000))
        about_z = torch.atan2(-six[:, 1], six[:, 0])
        assert float(about_z.std()) == pytest.approx(0.05, rel=0.05)
        assert float(about_z.mean()) == pytest.approx(0.0, abs=0.005)

    def test_is_none_in_evaluation(self):
        assert self.rotation(0.05, None).tolist() == [LEVEL] * 4000

    def test_does_not_depend_on_the_number_of_processes(self):
        whole = self.rotation(0.05, Rows(torch.arange(4000), 1, 2, 0, 4000))
        half = windows(torch.zeros(2000, 1, 3), torch.zeros(2000, 1, 3))
        second = RelativePoses(0.05)(half, Rows(torch.arange(2000), 1, 2, 2000, 4000))
        assert second.state["eef_rot_wrt_start"][:, 0].equal(whole[2000:])

    def test_leaves_what_is_relative_to_the_present_alone(self):
        noisy = RelativePoses(0.05)(self.batch, Rows(torch.arange(4000), 1, 2, 0, 4000))
        assert noisy.action.equal(RelativePoses(0.05)(self.batch, None).action)


def test_six_numbers_are_rows_not_columns():
    turn = torch.tensor([[[0.0, 0.0, 0.3], [0.0, 0.0, 0.0]]])
    six = RelativePoses()(windows(torch.zeros(1, 2, 3), turn), None).state["eef_rot"][0, 0]
    assert six.tolist() == pytest.approx([math.cos(0.3), -math.sin(0.3), 0, math.sin(0.3), math.cos(0.3), 0], abs=1e-6)
    torch.testing.assert_close(six, to_six(from_axis_angle(turn[0, 0])))
