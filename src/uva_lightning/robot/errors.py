"""What can go wrong with a robot; none of it may end a training run."""

from __future__ import annotations


class RobotError(Exception):
    """Base of all errors of a robot."""


class RobotConfigError(RobotError, ValueError):
    """Options that do not fit the robot; the only one that is raised at the begin of a run."""


class RobotUnavailable(RobotError):
    """The robot is not there, or no longer."""


class ConnectTimeout(RobotUnavailable):
    """Nobody answers at its address."""


class ServerLost(RobotUnavailable):
    """Its server does not answer any more."""


class DriverDead(RobotUnavailable):
    """What drives the arm hangs or has ended; a person at the robot has to look at it."""


class NotArmed(RobotError):
    """Motion was asked for that nobody at the robot has allowed, or in a state that has none."""


class LeaseLost(NotArmed):
    """Only one may move the arm, and it is not, or no longer, the one who asked."""


class ActionRejected(RobotError):
    """A command was refused as a whole; nothing of it was sent."""


class NonFinite(ActionRejected):
    """A number is infinite or not a number."""


class BadShape(ActionRejected):
    """An array has another shape than was agreed on."""


class Stale(ActionRejected):
    """It comes too late to be carried out."""


class ClockSkew(ActionRejected):
    """The clocks of both sides differ, or nobody has compared them."""


class OutOfOrder(ActionRejected):
    """A message that was received before, or is older than one that was."""


class OutOfLimits(ActionRejected):
    """It leaves the limits of joints, speed or workspace."""


class Unreachable(ActionRejected):
    """No joint angles within the limits lead to the pose that was asked for."""


class Fault(RobotError):
    """The arm stopped by itself; a person at the robot has to look at it."""


class EStop(RobotError):
    """Somebody has stopped it; a person at the robot has to reset it."""


class WatchdogTripped(RobotError):
    """Nothing was heard for too long."""


class CameraLost(RobotError):
    """A camera gives no new pictures."""


class RecordingFailed(RobotError):
    """An episode cannot be recorded, or no longer; the arm must not move unrecorded."""


def named(code: str, text: str) -> RobotError:
    """Give the error of this name, as it came over a connection; a plain one where the name is not known."""
    classes, waiting = dict[str, type[RobotError]](), [RobotError]
    while waiting:
        kind = waiting.pop()
        classes[kind.__name__] = kind
        waiting += kind.__subclasses__()
    return classes.get(code, RobotError)(text)
