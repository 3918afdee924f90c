"""Poses by hand: a shift is so many cm, a turn so many degrees, whatever they are relative to."""

import math
from dataclasses import replace

import pytest
import torch

from uva_lightning.datamodules.pusht import PushT
from uva_lightning.datamodules.umi import UMI
from uva_lightning.datamodules.umi_bimanual import UMIBimanual
from uva_lightning.metrics.pose_error import PositionError, RotationError, grippers, positions
from uva_lightning.rotations import angle_between, from_axis_angle, from_six, to_six


def poses(place, turn):
    """Poses f64[n, h, 10] of positions and axis-angles, [n, h, 3] each."""
    return torch.cat((place, to_six(from_axis_angle(turn)), torch.zeros_like(place[..., :1])), dim=-1)


def degrees(axis, angle):
    return math.radians(angle) * torch.nn.functional.normalize(torch.tensor(axis, dtype=torch.float64), dim=0)


def measured(metric, predicted, real):
    metric.update(predicted, real)
    return metric.compute()


def test_centimetres_and_degrees():
    place = torch.zeros(1, 3, 3, dtype=torch.float64)
    turn = degrees((1, 2, -1), 50).expand(1, 3, 3)
    real = poses(place, turn)
    off = place.clone()
    off[0, 1] = torch.tensor([0.003, 0.0, -0.004])  # 0.5 cm
    off[0, 2] = torch.tensor([0.0, 0.12, 0.05])  # 13 cm
    turned = turn.clone()
    turned[0, 1] = degrees((1, 2, -1), 51.11)
    turned[0, 2] = degrees((1, 2, -1), 230)
    predicted = poses(off, turned)
    assert measured(PositionError(), predicted, real)["per_step"] == pytest.approx([0, 0.5, 13])
    assert measured(RotationError(), predicted, real)["per_step"] == pytest.approx([0, 1.11, 180])


def test_errors_do_not_depend_on_what_poses_are_relative_to():
    rng = torch.Generator().manual_seed(0)
    place, other, turn, another = torch.randn(4, 5, 4, 3, generator=rng, dtype=torch.float64)
    frame, origin = from_axis_angle(degrees((0.3, -1, 2), 77)), torch.tensor([0.4, -2.0, 1.0], dtype=torch.float64)

    def relative(place, turn):
        six = to_six(frame.mT @ from_axis_angle(turn))
        return torch.cat(((place - origin) @ frame, six, torch.zeros_like(place[..., :1])), dim=-1)

    for metric in (PositionError, RotationError):
        absolute = measured(metric(), poses(place, turn), poses(other, another))
        assert measured(metric(), relative(place, turn), relative(other, another))["per_step"] == pytest.approx(
            absolute["per_step"]
        )


def test_rows_that_are_not_orthonormal_are_made_so():
    exact = from_axis_angle(degrees((0, 1, 0.5), 100))
    first, second = exact[0], exact[1]
    six = torch.cat((1.3 * first, 0.8 * second + 0.4 * first))
    assert torch.allclose(from_six(six), exact)
    assert torch.allclose(from_six(to_six(exact)), exact)
    angle = torch.tensor(1e-6, dtype=torch.float64)
    near = exact @ from_axis_angle(angle * torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64))
    assert float(angle_between(exact, near)) == pytest.approx(1e-6, rel=1e-6)


def test_two_grippers_count_alike():
    real = poses(torch.zeros(1, 1, 3, dtype=torch.float64), torch.zeros(1, 1, 3, dtype=torch.float64))
    off = real.clone()
    off[..., 0] = 0.02
    both = measured(PositionError(2), torch.cat((off, real), dim=-1), torch.cat((real, real), dim=-1))
    assert both["mean"] == pytest.approx(1.0)
    with pytest.raises(ValueError, match="have 10 numbers, expected 10 of each of 2 grippers"):
        measured(PositionError(2), off, real)


def test_the_data_say_what_actions_are():
    one, two, none = UMI.facts, UMIBimanual.facts, PushT.facts
    assert (grippers(one), grippers(two), grippers(none)) == (1, 2, 0)
    assert positions(two) == [0, 1, 2, 10, 11, 12]
    assert positions(none) == [0, 1]
    assert grippers(replace(one, action_dim=7)) == 0
