"""Errors of predicted poses in cm and degrees, as UVA reports inverse dynamics (section 4.6)."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from uva_lightning.metrics.per_step import PerStep
from uva_lightning.rotations import angle_between, from_six
from uva_lightning.types import DataSpec

POSE = 10
"""Numbers of a gripper's action: position, 3, in m, rotation-6d, 6, and opening."""
CM = 100.0


class PoseError(PerStep):
    """Base of errors of poses f[n, h, 10 g] of ``g`` grippers: position in m, rotation-6d, opening.

    Both poses must be relative to the same frame; which one makes no difference: absolute ones give the same errors as
    those relative to the present pose, since turning and moving both alike changes neither distance nor angle.

    Args:
        grippers: How many; the mean over them counts.
    """

    higher_is_better = False

    def __init__(self, grippers: int = 1, **options: Any) -> None:
        super().__init__(**options)
        self.grippers = grippers

    def split(self, actions: Tensor) -> tuple[Tensor, Tensor]:
        """Cut actions into positions f64[n, h, g, 3] and rotation-6d f64[n, h, g, 6].

        Raises:
            ValueError: They have another width.
        """
        if actions.shape[-1] != POSE * self.grippers:
            raise ValueError(
                f"Actions have {actions.shape[-1]} numbers, expected {POSE} of each of {self.grippers} grippers: "
                "position, rotation-6d, opening."
            )
        place, six, _ = actions.double().unflatten(-1, (self.grippers, POSE)).split((3, 6, 1), dim=-1)
        return place, six


class PositionError(PoseError):
    """Distance between positions."""

    title = "position error, cm"

    def measured(self, predicted: Tensor, real: Tensor) -> Tensor:
        """See the base class."""
        one, other = (self.split(actions)[0] for actions in (predicted, real))
        return CM * torch.linalg.vector_norm(one - other, dim=-1).mean(dim=-1)


class RotationError(PoseError):
    """Angle of the rotation that turns one pose into the other."""

    title = "rotation error, degrees"

    def measured(self, predicted: Tensor, real: Tensor) -> Tensor:
        """See the base class."""
        one, other = (from_six(self.split(actions)[1]) for actions in (predicted, real))
        return (180 / math.pi) * angle_between(one, other).mean(dim=-1)


def grippers(spec: DataSpec) -> int:
    """Tell of how many grippers actions are poses with a rotation-6d; 0 where they are something else."""
    told = spec.conventions.get("rotation", "")
    return spec.action_dim // POSE if "rotation-6d" in told and spec.action_dim % POSE == 0 else 0


def positions(spec: DataSpec) -> list[int]:
    """Give the columns of an action that are positions; all of them where actions are no such poses."""
    found = [POSE * gripper + axis for gripper in range(grippers(spec)) for axis in range(3)]
    return found or list(range(spec.action_dim))
