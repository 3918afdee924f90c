"""What drives episodes needs of a robot: here, or at the other end of a connection."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

from uva_lightning.robot.arm import ArmState, JointTrajectory, Receipt
from uva_lightning.robot.arm_model import ArmModel
from uva_lightning.robot.keeper import Keeper


class Station(ABC):
    """One kept arm. All times, those of measurements too, are on the clock of who drives it."""

    model: ArmModel
    joint_margin: float
    """Kept from the joint limits of the model, rad."""
    rate_hz: float | None
    """Way-points per second that trajectories need; None accepts any."""

    @abstractmethod
    def begin(self) -> None:
        """Begin the episode that a person has allowed.

        Raises:
            NotArmed: Nobody has.
        """

    @abstractmethod
    def state(self) -> ArmState:
        """Give the newest measurement.

        Raises:
            RobotError: There is none.
        """

    @abstractmethod
    def send(self, trajectory: JointTrajectory) -> Receipt:
        """Follow it from now on; give what is followed.

        Raises:
            ActionRejected: It breaks a limit; nothing of it is carried out.
            NotArmed: The arm no longer runs: a watchdog, a person or a fault stopped it.
        """

    @abstractmethod
    def pause(self, reason: str) -> None:
        """Brake and stand within the episode, until the next trajectory."""

    @abstractmethod
    def heartbeat(self) -> None:
        """Say that somebody is driving; where a policy thinks for longer than the watchdogs wait, beat by a thread."""

    @abstractmethod
    def hold(self, reason: str) -> None:
        """Brake and stand."""


class KeeperStation(Station):
    """Drive an arm in this process; something else has to tick its keeper.

    Args:
        keeper: Of the arm.
        clock: Its clock.
    """

    def __init__(self, keeper: Keeper, clock: Callable[[], float]) -> None:
        self.keeper, self.clock = keeper, clock
        self.model, self.joint_margin = keeper.arm.model, keeper.limits.joint_margin
        self.rate_hz = keeper.limits.rate_hz

    def begin(self) -> None:
        """Begin the episode that was allowed."""
        self.keeper.begin(self.clock())

    def state(self) -> ArmState:
        """Measure."""
        return self.keeper.arm.state()

    def send(self, trajectory: JointTrajectory) -> Receipt:
        """Follow it, if the keeper accepts it."""
        return self.keeper.send(trajectory, self.clock())

    def pause(self, reason: str) -> None:
        """Have the keeper brake."""
        self.keeper.pause(self.clock(), reason)

    def heartbeat(self) -> None:
        """Tell the keeper."""
        self.keeper.heartbeat(self.clock())

    def hold(self, reason: str) -> None:
        """Have the keeper stop."""
        self.keeper.hold(self.clock(), reason)
