"""What an arm has to offer: its state, set-points, and going soft. Everything that makes it safe is built on that."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np

from uva_lightning.robot.arm_model import ArmModel
from uva_lightning.robot.chain import Array
from uva_lightning.robot.errors import BadShape


@dataclass(frozen=True)
class ArmState:
    """What an arm measures at one moment.

    Args:
        time: Of the measurement on the arm's own clock, s.
        q: Angles f64[j], rad.
        velocity: f64[j], rad/s.
        torque: f64[j], N m.
        opening: Of the gripper, m.
        fault: What the arm itself complains of; None if nothing.
    """

    time: float
    q: Array
    velocity: Array
    torque: Array
    opening: float
    fault: str | None = None


class Arm(ABC):
    """One robot arm with a gripper. Subclass it for other hardware; nothing else is needed.

    Only the ``Keeper`` calls ``command``: with a set-point every few milliseconds, each within all limits.
    """

    model: ArmModel
    """Known before it is connected."""
    harmless = False
    """Whether it is a simulation, whose watchdogs may be slow."""

    @abstractmethod
    def connect(self, timeout: float) -> None:
        """Connect, without moving; again is harmless.

        Raises:
            RobotUnavailable: It is not there within so many seconds.
        """

    @abstractmethod
    def state(self) -> ArmState:
        """Give the newest measurement, without waiting."""

    @abstractmethod
    def command(self, q: Array, opening: float) -> None:
        """Set where the arm should be now: angles f64[j] in rad, opening of the gripper in m."""

    @abstractmethod
    def damp(self) -> None:
        """Go soft: no stiffness, damping, gravity compensated where the arm can."""

    @abstractmethod
    def close(self) -> None:
        """Disconnect; never raises."""


@dataclass(frozen=True)
class JointTrajectory:
    """Where the arm should be at which time.

    Args:
        time: f64[n], ascending, on the keeper's clock, s.
        q: f64[n, j], rad.
        opening: f64[n], m.
        valid_until: f64[n]: at this time a way-point is no longer headed for, s.
    """

    time: Array
    q: Array
    opening: Array
    valid_until: Array

    def __post_init__(self) -> None:
        count = len(self.time)
        shapes = [np.shape(part) for part in (self.time, self.opening, self.valid_until)]
        if count < 1 or shapes != [(count,)] * 3 or np.ndim(self.q) != 2 or len(self.q) != count:
            raise BadShape(
                f"time, opening and valid_until have shapes {shapes} and q {np.shape(self.q)}, expected (n,) three "
                "times and (n, j), with at least one way-point."
            )


@dataclass(frozen=True)
class Receipt:
    """What becomes of a trajectory that was accepted. What moves the arm is never changed, the gripper may be.

    Args:
        trajectory: That is followed.
        clipped: Numbers of the way-points that are others than asked for.
        reasons: What was changed about them, a sentence for each kind.
    """

    trajectory: JointTrajectory
    clipped: Sequence[int] = ()
    reasons: Sequence[str] = ()

    def message(self) -> dict[str, Any]:
        """Give what whoever has asked does not know, for a message."""
        opening = np.asarray(self.trajectory.opening, np.float64)
        return {"opening": opening, "clipped": list(self.clipped), "reasons": list(self.reasons)}

    @classmethod
    def read(cls, asked: JointTrajectory, message: Mapping[str, Any]) -> Self:
        """Read it, given what was asked for.

        Raises:
            BadShape: It is the answer to something else.
        """
        return cls(replace(asked, opening=message["opening"]), tuple(message["clipped"]), tuple(message["reasons"]))
