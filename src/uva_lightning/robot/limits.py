"""How far and how fast an arm may move, stricter than its maker allows; set at the robot, never over the network."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

from uva_lightning.robot.errors import RobotConfigError

BOX = 3


@dataclass(frozen=True)
class Limits:
    """Limits of motion. The defaults are cautious values for a first motion, none of them measured on your robot.

    Args:
        joint_margin: Kept from the joint limits of the model, rad.
        joint_velocity: rad/s.
        joint_acceleration: rad/s^2; also how hard it brakes.
        eef_speed: Of the tool, m/s.
        eef_turn: Of the tool, rad/s.
        workspace_min: Corner of the box in which the fingers stay, m in the frame of the base.
        workspace_max: Opposite corner.
        gripper_speed: m/s.
        torque_fraction: Share of the model's torque limits at which it stops.
        tracking_error: Between set-point and measurement, rad, at which it stops.
        singular: Smallest singular value of the Jacobian that is accepted; nearer to a singularity joints rush.
        rate_hz: Way-points per second that a trajectory has, within 20 %; None accepts any.
    """

    joint_margin: float = 0.05
    joint_velocity: float = 1.0
    joint_acceleration: float = 5.0
    eef_speed: float = 0.25
    eef_turn: float = 0.6
    workspace_min: Sequence[float] = (0.1, -0.35, 0.02)
    workspace_max: Sequence[float] = (0.6, 0.35, 0.6)
    gripper_speed: float = 0.1
    torque_fraction: float = 0.7
    tracking_error: float = 0.15
    singular: float = 0.02
    rate_hz: float | None = None

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if isinstance(value, float | int) and not 0 < value < float("inf"):
                raise RobotConfigError(f"limits.{name} is {value}, expected a positive number.")
        low, high = self.workspace_min, self.workspace_max
        if len(low) != BOX or len(high) != BOX or any(one >= other for one, other in zip(low, high, strict=True)):
            raise RobotConfigError(
                f"The workspace is from {list(low)} to {list(high)}, expected 3 numbers each in m, the first below the "
                "second."
            )
        if self.torque_fraction > 1:
            raise RobotConfigError(f"limits.torque_fraction is {self.torque_fraction}, expected at most 1.")

    def digest(self) -> str:
        """Name these limits, so that both sides of a connection can compare them."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class BenchLimits(Limits):
    """Limits of an arm that moves in earnest: nobody but who has measured the bench knows its workspace.

    Args:
        workspace_min: Corner of the box in which the fingers stay, m in the frame of the base.
        workspace_max: Opposite corner.
        rate_hz: Way-points per second that a trajectory has, within 20 %: that of the policy; None accepts any.
    """

    workspace_min: Sequence[float] = field(kw_only=True)
    workspace_max: Sequence[float] = field(kw_only=True)
    rate_hz: float | None = 5.0
