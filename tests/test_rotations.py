"""Rotations against torch's matrix exponential."""

import torch

from uva_lightning.rotations import from_axis_angle, to_six


def test_axis_angle_is_the_exponential_of_the_cross_product():
    vectors = torch.randn(50, 3, dtype=torch.float64) * 2
    vectors[0], vectors[1], vectors[2] = 0, torch.tensor([0, 0, 1e-9]), torch.tensor([torch.pi, 0, 0])
    cross = torch.zeros(50, 3, 3, dtype=torch.float64)
    for row, column, axis, sign in ((0, 1, 2, -1), (0, 2, 1, 1), (1, 2, 0, -1)):
        cross[:, row, column] = sign * vectors[:, axis]
    cross = cross - cross.mT
    torch.testing.assert_close(from_axis_angle(vectors), torch.linalg.matrix_exp(cross))


def test_six_numbers_are_the_first_two_rows():
    quarter = from_axis_angle(torch.tensor([0.0, 0.0, torch.pi / 2]))  # x becomes y
    assert to_six(quarter).round(decimals=5).tolist() == [0, -1, 0, 1, 0, 0]
