"""Rotations of rigid bodies, as matrices and as what data sets and heads use."""

from __future__ import annotations

import torch
from torch import Tensor


def from_axis_angle(vector: Tensor) -> Tensor:
    """Turn axis times angle, f[..., 3] in rad, into matrices f[..., 3, 3] (Rodrigues)."""
    angle = vector.norm(dim=-1)[..., None, None]
    x, y, z = vector.unbind(-1)
    zero = torch.zeros_like(x)
    cross = torch.stack((zero, -z, y, z, zero, -x, -y, x, zero), dim=-1).unflatten(-1, (3, 3))
    first = torch.sinc(angle / torch.pi)  # sin(angle) / angle
    second = 0.5 * torch.sinc(angle / (2 * torch.pi)).square()  # (1 - cos(angle)) / angle ** 2
    return torch.eye(3, dtype=vector.dtype, device=vector.device) + first * cross + second * (cross @ cross)


def to_six(matrix: Tensor) -> Tensor:
    """Keep the first two rows of f[..., 3, 3]: the rotation-6d of UMI and UVA, f[..., 6] (Zhou 2019)."""
    return matrix[..., :2, :].flatten(-2)


def from_six(six: Tensor) -> Tensor:
    """Make rotations f[..., 3, 3] of two rows f[..., 6], by Gram-Schmidt: what a model predicts is seldom exact.

    The first row keeps its direction (Zhou 2019). Rows of length 0, or that are parallel, give a matrix that is none.
    """
    first, second = six.split(3, dim=-1)
    first = torch.nn.functional.normalize(first, dim=-1)
    second = second - (first * second).sum(dim=-1, keepdim=True) * first
    second = torch.nn.functional.normalize(second, dim=-1)
    return torch.stack((first, second, torch.linalg.cross(first, second)), dim=-2)


def angle_between(one: Tensor, other: Tensor) -> Tensor:
    """Give the angle between rotations f[..., 3, 3], f[...] in rad from 0 to pi, exact for small ones too."""
    half = torch.linalg.matrix_norm(one - other) / (2 * 2**0.5)  # |R - S| = 2 sqrt(2) sin(angle / 2)
    return 2 * torch.asin(half.clamp(max=1))
