"""A bench: the arm, cameras and operator with which episodes are run, built where they run from plain values."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from uva_lightning.robot.arm import Arm
from uva_lightning.robot.camera import Camera
from uva_lightning.robot.chain import Array
from uva_lightning.robot.errors import RobotUnavailable
from uva_lightning.robot.fake_arm import FakeArm
from uva_lightning.robot.keeper import Keeper, Mode
from uva_lightning.robot.limits import Limits
from uva_lightning.robot.operator import Label, Operator
from uva_lightning.robot.station import KeeperStation, Station

PERIOD = 0.01
"""Between two set-points of an arm that is kept in this process, s."""
HOMING = 20.0
"""Longest time to go home, s."""


class Recording(Protocol):
    """One episode that is being written down."""

    def step(self, row: Mapping[str, Any]) -> None:
        """Add what happened at a step."""

    def frame(self, camera: str, picture: NDArray[np.uint8], time: float) -> None:
        """Add a picture u8[H, W, 3], taken at ``time`` in s."""

    def event(self, kind: str, text: str, time: float, **numbers: float) -> None:
        """Add an event."""

    def end(self, label: Label, reason: str) -> object:
        """Finish it."""


class Recorder(Protocol):
    """Writes episodes down."""

    def begin(self, meta: Mapping[str, Any]) -> Recording:
        """Begin an episode, before the arm moves.

        Raises:
            RobotError: It cannot be written; the episode must not begin.
        """


@dataclass
class Session:
    """An open bench.

    Args:
        station: With the arm.
        cameras: Connected ones.
        operator: Allows episodes, which sets up the scene of that number, and labels them.
        limits: Of the motion.
        clock: Gives the time in s of station and cameras.
        wait: Lets so many seconds pass.
        close: Parks the arm and disconnects; never raises.
        recorder: Of the bench itself; None where whoever runs the episodes has to write them down.
        cube: Place f64[3] of the cube in m, where a simulation knows it.
        events: What happened to an arm that is kept here and is not written down yet: time in s, kind and sentence.
    """

    station: Station
    cameras: Sequence[Camera]
    operator: Operator
    limits: Limits
    clock: Callable[[], float]
    wait: Callable[[float], object]
    close: Callable[[], None]
    recorder: Recorder | None = None
    cube: Callable[[], Array] | None = None
    events: list[tuple[float, str, str]] = field(default_factory=list)


class Bench(ABC):
    """Arm, cameras and operator, not opened yet.

    Subclass it as a dataclass of plain values: the process in which episodes run builds it anew from them.
    """

    knows_cube = False  # no annotation: jsonargparse would look it up in the modules of subclasses
    """Whether it can tell where the cube is."""

    @property
    @abstractmethod
    def camera_names(self) -> Sequence[str]:
        """Names of the cameras, as data sets call them."""

    def check(self) -> None:  # noqa: B027 - most have nothing to look for
        """Look for what it needs on this machine, before training begins; the arm is not asked.

        Raises:
            RobotConfigError: Something is missing.
        """

    @abstractmethod
    def open(self, seed: int) -> Session:
        """Connect, without moving.

        Args:
            seed: Of the scenes: episode ``i`` begins in the same scene whichever policy drives.

        Raises:
            RobotUnavailable: It is not there.
        """


class Kept:
    """An arm with its keeper in this process, and time that passes when somebody waits.

    Args:
        arm: What is kept.
        limits: Of its motion.
        rest: Angles f64[j] at which episodes begin, rad.
        clock: Gives the time in s.
        advance: Lets so many seconds pass.
    """

    def __init__(
        self, arm: Arm, limits: Limits, rest: Array, clock: Callable[[], float], advance: Callable[[float], object]
    ) -> None:
        self.events: list[tuple[float, str, str]] = []
        self.keeper = Keeper(arm, limits, PERIOD, rest, record=lambda *event: self.events.append((clock(), *event)))
        self.clock, self._advance = clock, advance
        self.station = KeeperStation(self.keeper, clock)

    def wait(self, seconds: float) -> None:
        """Let time pass and look after the arm."""
        end = self.clock() + max(seconds, PERIOD) - 0.5 * PERIOD
        while self.clock() < end:
            self._advance(PERIOD)
            self.keeper.tick(self.clock())

    def prepare(self) -> None:
        """Connect anew and go home, so that an episode can begin.

        Raises:
            RobotUnavailable: It does not get there.
        """
        self.keeper.close()
        self.keeper.connect(self.clock())
        self.keeper.home(self.clock())
        end = self.clock() + HOMING
        while self.keeper.mode == Mode.HOMING and self.clock() < end:
            self.wait(PERIOD)
        if self.keeper.mode != Mode.HOMED:
            raise RobotUnavailable(
                f"The arm did not get home within {HOMING:g} s: it is in state '{self.keeper.mode}' "
                f"({self.keeper.reason}); look at its limits and its rest position."
            )
        self.keeper.allow(self.clock())

    def park(self) -> None:
        """Go slowly to the rest position and go soft there."""
        self.keeper.park(self.clock(), "the bench is closed")
        end = self.clock() + HOMING
        while self.keeper.mode == Mode.PARKING and self.clock() < end:
            self.wait(PERIOD)
        self.keeper.close()


class Nobody(Operator):
    """Allows everything and labels nothing: for runs in which nothing moves."""

    def __init__(self, prepare: Callable[[int], object]) -> None:
        self._prepare = prepare

    def confirm(self, episode: int) -> bool:
        """Set up the scene."""
        self._prepare(episode)
        return True

    def label(self, episode: int) -> Label:
        """An episode in which nothing moved says nothing about the policy."""
        return Label.INVALID

    def should_stop(self) -> bool:
        """Let it go on."""
        return False


def dry(session: Session) -> Session:
    """Drive an ideal arm that begins where the real one stands, within the same limits; send nothing to the real one.

    What is seen is real; every chunk is planned and checked as in earnest. No episode has a label.
    """
    arm = FakeArm(clock=session.clock)
    arm.model = session.station.model
    state = session.station.state()
    arm.q, arm.opening = state.q.copy(), state.opening
    kept = Kept(arm, session.limits, state.q, session.clock, session.wait)

    def prepare(episode: int) -> None:
        measured = session.station.state()
        arm.q, arm.opening = measured.q.copy(), measured.opening
        kept.keeper.rest = np.clip(measured.q, kept.keeper.guard.lower, kept.keeper.guard.upper)
        kept.prepare()

    return Session(
        kept.station,
        session.cameras,
        Nobody(prepare),
        session.limits,
        session.clock,
        kept.wait,
        session.close,
        cube=session.cube,
        events=kept.events,
    )
