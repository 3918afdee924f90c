"""Arms of other makes: whatever LeRobot drives (extra [lerobot], Python 3.12 or newer)."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from uva_lightning.robot.arm import Arm, ArmState
from uva_lightning.robot.arm_model import urdf_model
from uva_lightning.robot.chain import Array
from uva_lightning.robot.errors import BadShape, NonFinite, RobotConfigError, RobotUnavailable
from uva_lightning.robot.lerobot_making import make_robot

FAILURES = 3
"""Reads or writes in a row that may fail before it is a fault: serial buses lose a message now and then."""
FAREWELL = 5.0
"""Seconds that disconnecting may take."""


@dataclass(frozen=True)
class Axis:
    """How LeRobot's number for an axis becomes ours: ``(number - zero) * unit``.

    Args:
        key: Its name in observations and actions, such as ``shoulder_pan.pos``.
        unit: Of LeRobot's number, in rad, or in m for a gripper; degrees if not given. Negative if it turns the other
            way.
        zero: LeRobot's number where our angle is 0, or where the gripper is closed.
    """

    key: str
    unit: float = math.pi / 180
    zero: float = 0.0

    def ours(self, number: float) -> float:
        """Translate what LeRobot says."""
        return (float(number) - self.zero) * self.unit

    def theirs(self, number: float) -> float:
        """Translate what LeRobot is told."""
        return float(number) / self.unit + self.zero


class LeRobotArm(Arm):
    """Drive a robot of LeRobot; a thread of its own talks to it, since its calls wait for the hardware.

    It has no torques unless the robot reports them, and no compensation of gravity unless its motors hold a position by
    themselves, as servos do.

    Args:
        robot: A ``lerobot.robots.Robot``, or the options of one: ``{type: so101_follower, port:
            /dev/ttyACM0, id: left}``.
        urdf: Its geometry and limits.
        axes: Its joints, in the order of the URDF.
        gripper: Its gripper, in m.
        gripper_width: Opening, m.
        base: Link of the URDF that stands still.
        tip: Link of the tool frame.
        rate_hz: How often it is read and told.
        relax: Method of the robot that takes the strength from its motors, such as ``bus.disable_torque``. Without one
            going soft is standing still, and the motors let go when it is disconnected.
        stiffen: Method that gives it back, such as ``bus.enable_torque``.
        clock: Gives the time in s.

    Raises:
        RobotConfigError: The robot has no such axes, or the URDF another number of joints.
    """

    def __init__(
        self,
        robot: Any,
        urdf: str,
        axes: Sequence[Axis],
        gripper: Axis,
        gripper_width: float,
        base: str = "base_link",
        tip: str = "eef_link",
        rate_hz: float = 60.0,
        relax: str | None = None,
        stiffen: str | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        try:
            self.model = urdf_model(urdf, gripper_width, base, tip)
        except ValueError as error:
            raise RobotConfigError(str(error)) from error
        self.robot = make_robot(robot) if isinstance(robot, Mapping) else robot
        self.axes, self.gripper, self.clock, self.period = tuple(axes), gripper, clock, 1.0 / rate_hz
        self._check_axes()
        self._relax, self._stiffen = (None if name is None else self._method(name) for name in (relax, stiffen))
        self._lock = threading.Lock()
        self._state: ArmState | None = None
        self._action: dict[str, float] | None = None
        self._soft = self._wished_soft = False
        self._failures = 0
        self._fault: str | None = None
        self._ended = threading.Event()
        self._thread = threading.Thread()

    def connect(self, timeout: float) -> None:
        """Connect, without calibrating: that asks questions on a terminal.

        Raises:
            RobotUnavailable: It does not answer, or is not calibrated.
        """
        if self._thread.is_alive():
            if self._ended.is_set():
                raise RobotUnavailable(f"{self._name()} still hangs in an earlier attempt; switch it off and on.")
            return
        self._ended = threading.Event()
        self._state, self._action, self._fault, self._failures = None, None, None, 0
        self._soft = self._wished_soft = False
        there = threading.Event()
        trouble: list[str] = []
        self._thread = threading.Thread(target=self._run, args=(there, trouble), name="lerobot-arm", daemon=True)
        self._thread.start()
        if not there.wait(timeout) or trouble:
            self._ended.set()
            why = trouble[0] if trouble else f"no answer within {timeout:g} s"
            raise RobotUnavailable(f"{self._name()} cannot be reached: {why}; see its cable, power and port.")

    def state(self) -> ArmState:
        """Give the newest measurement."""
        with self._lock:
            if self._state is None:
                raise RobotUnavailable(f"{self._name()} is not connected; connect it first.")
            return self._state

    def command(self, q: Array, opening: float) -> None:
        """Set where it should be; the thread tells it soon.

        Raises:
            BadShape: Another number of joints.
            NonFinite: A number is not finite.
        """
        angles = np.asarray(q, float)
        if angles.shape != (len(self.axes),):
            raise BadShape(f"The set-point has shape {angles.shape}, expected ({len(self.axes)},).")
        if not np.isfinite([*angles, opening]).all():
            raise NonFinite(f"The set-point is {angles.tolist()} and {opening}, expected finite numbers.")
        with self._lock:
            self._action, self._wished_soft = self._told(angles, opening), False

    def damp(self) -> None:
        """Go soft where the robot can; else stand where it is."""
        with self._lock:
            self._action, self._wished_soft = None, True

    def close(self) -> None:
        """Disconnect; LeRobot's robots let go then, if so configured."""
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join(FAREWELL)
        self._state = None

    # -- the thread -------------------------------------------------------------------------------------------------

    def _run(self, there: threading.Event, trouble: list[str]) -> None:
        try:
            if not self.robot.is_connected:
                self.robot.connect(calibrate=False)
            if not self.robot.is_calibrated:
                raise RobotUnavailable("it is not calibrated; run lerobot-calibrate")
            self._read()
        except Exception as error:  # of any driver
            trouble.append(f"{type(error).__name__}: {error}")
            self._ended.set()
        there.set()
        while not self._ended.wait(self.period):
            self._turn()
        with suppress(Exception):
            self.robot.disconnect()

    def _turn(self) -> None:
        """Tell it what is new, then read."""
        with self._lock:
            action, soft, self._action = self._action, self._wished_soft, None
        try:
            if soft != self._soft:
                self._change(soft)
            if action is not None:
                self.robot.send_action(action)
            self._read()
            self._failures, self._fault = 0, None
        except Exception as error:  # of any driver
            self._failures += 1
            if self._failures >= FAILURES:
                self._fault = f"{type(error).__name__}: {error}"
                self._store(None)

    def _change(self, soft: bool) -> None:
        """Take or give the strength; with it a servo goes to what it was told last, so that is where it is now."""
        if soft and self._relax is not None:
            self._relax()
        elif not soft and self._stiffen is not None:
            state = self.state()
            self.robot.send_action(self._told(state.q, state.opening))
            self._stiffen()
        self._soft = soft

    def _told(self, q: Array, opening: float) -> dict[str, float]:
        pairs = zip((*self.axes, self.gripper), (*q, opening), strict=True)
        return {axis.key: axis.theirs(number) for axis, number in pairs}

    def _read(self) -> None:
        moment, seen = self.clock(), self.robot.get_observation()
        q = np.array([axis.ours(seen[axis.key]) for axis in self.axes])
        torque = np.array([float(seen.get(_beside(axis.key, "torque"), 0.0)) for axis in self.axes])
        before = self._state
        passed = 0.0 if before is None else moment - before.time
        velocity = np.zeros_like(q) if before is None or passed <= 0 else (q - before.q) / passed
        self._store(ArmState(moment, q, velocity, torque, self.gripper.ours(seen[self.gripper.key])))

    def _store(self, state: ArmState | None) -> None:
        with self._lock:
            newest = state or self._state
            self._state = None if newest is None else replace(newest, fault=self._fault)

    # -- what it is -------------------------------------------------------------------------------------------------

    def _check_axes(self) -> None:
        keys = [axis.key for axis in (*self.axes, self.gripper)]
        for what, known in (("observes", self.robot.observation_features), ("is told", self.robot.action_features)):
            if missing := [key for key in keys if key not in known]:
                raise RobotConfigError(
                    f"{self._name()} has no {' and no '.join(missing)} among what it {what}, expected some of "
                    f"{', '.join(known)}; name those in `axes` and `gripper`."
                )
        if len(self.axes) != self.model.chain.joints:
            raise RobotConfigError(
                f"{len(self.axes)} axes are named and the URDF has {self.model.chain.joints} joints between base and "
                "tip, expected one axis per joint."
            )

    def _method(self, name: str) -> Callable[[], Any]:
        found: Any = self.robot
        for part in name.split("."):
            found = getattr(found, part, None)
        if not callable(found):
            raise RobotConfigError(f"{self._name()} has no method '{name}'.")
        method: Callable[[], Any] = found
        return method

    def _name(self) -> str:
        return f"LeRobot's {getattr(self.robot, 'name', type(self.robot).__name__)}"


def _beside(key: str, what: str) -> str:
    return f"{key.rpartition('.')[0] or key}.{what}"
