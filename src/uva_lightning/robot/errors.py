"""What can go wrong with a robot; none of it may end a training run."""

from __future__ import annotations


class RobotError(Exception):
    """Base of all errors of a robot."""


class RobotConfigError(RobotError, ValueError):
    """Options that do not fit the robot; the only one that is raised at the begin of a run."""


class RobotUnavailable(RobotError):
    """The robot is not there, or no longer."""


class NotArmed(RobotError):
    """Motion was asked for that nobody at the robot has allowed, or in a state that has none."""


class ActionRejected(RobotError):
    """A command was refused as a whole; nothing of it was sent."""


class NonFinite(ActionRejected):
    """A number is infinite or not a number."""


class BadShape(ActionRejected):
    """An array has another shape than was agreed on."""


class Stale(ActionRejected):
    """It comes too late to be carried out."""


class OutOfLimits(ActionRejected):
    """It leaves the limits of joints, speed or workspace."""


class Unreachable(ActionRejected):
    """No joint angles within the limits lead to the pose that was asked for."""


class Fault(RobotError):
    """The arm stopped by itself; a person at the robot has to look at it."""


class CameraLost(RobotError):
    """A camera gives no new pictures."""


class RecordingFailed(RobotError):
    """An episode cannot be recorded, or no longer; the arm must not move unrecorded."""
