"""What can go wrong with a robot; none of it may end a training run."""

from __future__ import annotations


class RobotError(Exception):
    """Base of all errors of a robot."""


class ActionRejected(RobotError):
    """A command was refused as a whole; nothing of it was sent."""


class NonFinite(ActionRejected):
    """A number is infinite or not a number."""


class Unreachable(ActionRejected):
    """No joint angles within the limits lead to the pose that was asked for."""


class BadShape(ActionRejected):
    """An array has another shape than was agreed on."""
