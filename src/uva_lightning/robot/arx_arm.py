"""An ARX arm by its maker's SDK. It lives in a driver process of its own: the SDK may hang, and then all of it does."""

from __future__ import annotations

import gc
import socket
import threading
import time
from contextlib import suppress
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np

from uva_lightning.robot.arm import Arm, ArmState
from uva_lightning.robot.arm_model import arm_model
from uva_lightning.robot.arx_sdk import SHRUNK, Connection, open_controller, quiet, refuse_beside_training
from uva_lightning.robot.arx_watch import ArxWatch
from uva_lightning.robot.chain import Array
from uva_lightning.robot.errors import BadShape, NonFinite, OutOfLimits, RobotConfigError, RobotUnavailable

AHEAD = 0.02
"""How far ahead of the SDK's clock a set-point is due, s: it refuses one that is not; one without a time is a jump."""
ATTEMPTS = 5
"""To hand over a set-point in time."""
RAMP = 0.5
"""Seconds in which it becomes stiff, or soft at the end."""
LEAD = 0.1
"""Largest distance of a set-point from where a joint is, rad: pushing against something does not build up torque. At
full stiffness it is about half the torque limit of joint 1 as the SDK reads it; following 1.5 rad/s takes 0.06."""
GRIP = 0.006
"""The same of the gripper, m: how hard it squeezes."""
BEYOND = 0.2
"""A set-point so many rad (or the gripper's width times that) beyond a limit is a mistake, and refused; nearer ones are
cut off, since a joint may be measured there, by less than the watch allows, and set-points begin where it is."""
CYCLE = 0.002
"""Of the SDK's control and of the watch, s."""


class ArxArm(Arm):
    """Drive an ARX X5 or L5.

    Set-points come from the ``Keeper``; here is only what the SDK makes necessary. It interpolates by itself for
    20 ms, never jumps, and never calls what moves the arm on its own. A thread reads every 2 ms and takes the torque
    away long before the SDK's own emergency stop, which hangs with full stiffness. A fault ends by itself when
    everything was in order for a second; set-points count again then.

    Args:
        model: Name of the arm, ``X5_umi`` or another that ``arms.yaml`` knows. A wrong one is dangerous: X5 and L5 have
            different motors.
        interface: ``can0`` or the like; an EtherCAT adapter is ``eth0`` or the like.
        velocity: Largest joint velocity that the SDK lets through, rad/s; the second limit behind the keeper's.
        gripper_speed: The same of the gripper, m/s.
        stiffness: Share of the SDK's stiffness.
        torque_fraction: Share of the torque limits at which it stops.
        gripper_readout: Angle of the gripper's motor when it is open, rad, as measured at the bench.
        gripper_width: Opening then, m.
        urdf: Geometry where it differs from that of the SDK.
        frozen: Seconds for which readings may stay the very same, since the SDK repeats old ones when the cable is out;
            None to not look.

    Raises:
        RobotConfigError: An option makes no sense, or this process trains.
    """

    _connected: ClassVar[ArxArm | None] = None

    def __init__(
        self,
        model: str = "X5_umi",
        interface: str = "can0",
        velocity: float = 1.5,
        gripper_speed: float = 0.15,
        stiffness: float = 1.0,
        torque_fraction: float = 0.7,
        gripper_readout: float | None = None,
        gripper_width: float | None = None,
        urdf: str | None = None,
        frozen: float | None = 1.0,
    ) -> None:
        refuse_beside_training()
        try:
            known = arm_model(model, urdf)
        except ValueError as error:
            raise RobotConfigError(str(error)) from error
        self.model = known if gripper_width is None else replace(known, gripper_width=gripper_width)
        highest = {"velocity": float(known.velocity.min()), "stiffness": 1.0, "torque_fraction": 0.9}
        for name, value in (
            ("velocity", velocity),
            ("gripper_speed", gripper_speed),
            ("stiffness", stiffness),
            ("torque_fraction", torque_fraction),
            ("gripper_width", self.model.gripper_width),
            ("frozen", 1.0 if frozen is None else frozen),
        ):
            if not 0 < value <= highest.get(name, 1e3):
                raise RobotConfigError(
                    f"{name} of the arm is {value}, expected more than 0 and at most {highest.get(name, 1e3):g}."
                )
        if gripper_readout is not None and not 0.1 < abs(gripper_readout) < 12.5:
            raise RobotConfigError(f"gripper_readout is {gripper_readout} rad, expected 0.1 to 12.5, or its negative.")
        self.connection = Connection(interface, velocity, gripper_speed, gripper_readout, urdf)
        self.stiffness = stiffness
        self.torque_fraction, self.frozen = torque_fraction, frozen
        self._watch = self._new_watch()
        self._lock = threading.RLock()
        self._sdk: Any = None
        self._controller: Any = None
        self._claim: socket.socket | None = None
        self._stiff_since: float | None = None  # None: soft
        self._share = 0.0  # of the stiffness that it has
        self._ended = threading.Event()

    # -- the interface ----------------------------------------------------------------------------------------------

    def connect(self, timeout: float) -> None:
        """Connect; the arm goes soft, its weight is carried.

        The SDK cannot be interrupted: should it hang, this process ends.

        Raises:
            RobotUnavailable: No adapter, no arm, readings that make no sense, or somebody else drives it.
            RobotConfigError: This process trains, or drives another arm.
            ImportError: The SDK is not installed.
        """
        if self._controller is not None:
            return
        refuse_beside_training()
        self._claim_interface()
        self._watch = self._new_watch()
        try:
            self._sdk, self._controller = open_controller(self.model, self.connection, timeout)
            self._watch.accept([self._pause_and_read() for _ in range(5)])
        except BaseException:
            self.close()
            raise
        self._ended, self._stiff_since, self._share = threading.Event(), None, 0.0
        threading.Thread(target=self._look_after, args=(self._ended,), name="arx-watch", daemon=True).start()

    def state(self) -> ArmState:
        """Give the newest measurement; its ``fault`` is what the watch complains of."""
        with self._lock:
            return replace(self._read(), fault=self._watch.fault)

    def command(self, q: Array, opening: float) -> None:
        """Set where it should be; becomes stiff within half a second, if it was soft. Without effect during a fault.

        Raises:
            BadShape: Another number of joints.
            NonFinite: A number is not finite: the SDK would pass it on to the motors.
            OutOfLimits: It is far beyond a limit.
        """
        wished, wide = self._checked(q, opening)
        with self._lock:
            state = self._read()
            try:
                self._act_on(state)
                if self._watch.fault is not None:
                    return
                self._stiffen(state)
                self._send(
                    np.clip(wished, state.q - LEAD, state.q + LEAD),
                    float(np.clip(wide, state.opening - GRIP, state.opening + GRIP)),
                )
            except (RuntimeError, ValueError) as error:
                self._watch.complain(f"the SDK refuses a set-point: {error}")

    def damp(self) -> None:
        """Go soft: no stiffness, its weight is carried."""
        with self._lock:
            if self._controller is not None:
                self._controller.set_to_damping()
                self._stiff_since, self._share = None, 0.0

    def close(self) -> None:
        """Disconnect: the SDK lets go of the weight, so the arm sinks from wherever it is; park it before.

        Takes two seconds in which nothing else runs in this process.
        """
        self._ended.set()
        with self._lock, suppress(Exception):
            self._let_go()
        with self._lock, suppress(Exception), quiet():
            self._controller = None
            gc.collect()  # the SDK's end happens here
        if self._claim is not None:
            self._claim.close()
            self._claim = None
        if ArxArm._connected is self:
            ArxArm._connected = None

    # -- set-points -------------------------------------------------------------------------------------------------

    def _checked(self, q: Array, opening: float) -> tuple[Array, float]:
        wished, wide = np.array(q, float), float(opening)
        model = self.model
        if wished.shape != model.lower.shape:
            raise BadShape(f"The set-point has shape {wished.shape}, expected {model.lower.shape}.")
        if not np.isfinite([*wished, wide]).all():
            raise NonFinite(f"The set-point is {wished.tolist()} and {wide}, expected finite numbers.")
        beyond = np.maximum(model.lower - wished, wished - model.upper)
        if beyond.max() > BEYOND or not -BEYOND <= wide / model.gripper_width <= 1 + BEYOND:
            raise OutOfLimits(
                f"The set-point {wished.round(3).tolist()} rad, {wide:.3f} m leaves the limits of {model.name} by "
                f"{max(0.0, beyond.max()):.3f} rad; expected one within them, gripper 0 to {model.gripper_width} m."
            )
        return np.clip(wished, model.lower, model.upper), float(np.clip(wide, 0.0, model.gripper_width))

    def _stiffen(self, state: ArmState) -> None:
        """Raise the stiffness up to what was asked for, from nothing if it was soft."""
        if self._stiff_since is None:
            self._controller.set_to_damping()  # its set-point becomes where it is; else it would go to an older one
            self._send(np.clip(state.q, self.model.lower, self.model.upper), state.opening)
            self._stiff_since = time.monotonic() - 0.02 * RAMP
        if self._share < 1:
            self._set_stiffness(min(1.0, (time.monotonic() - self._stiff_since) / RAMP))

    def _set_stiffness(self, share: float) -> None:
        default, part = self._controller.get_controller_config(), share * self.stiffness
        gain = self._sdk.Gain(
            part * np.array(default.default_kp),
            np.array(default.default_kd),
            part * default.default_gripper_kp,
            part * default.default_gripper_kd,
        )
        self._controller.set_gain(gain)
        self._share = share

    def _send(self, q: Array, opening: float) -> None:
        """Hand a set-point to the SDK; nothing that is not finite passes here."""
        wide = float(np.clip(opening, 0.0, self.model.gripper_width))
        if not np.isfinite([*q, wide]).all():
            raise ValueError(f"set-point {q.tolist()}, {wide} is not finite")
        still = np.zeros_like(q)
        target = self._sdk.JointState(np.array(q, float), still, still, wide / SHRUNK)
        for left in reversed(range(ATTEMPTS)):
            target.timestamp = self._controller.get_timestamp() + AHEAD
            try:
                return self._controller.set_joint_cmd(target)
            except ValueError:  # this process had to wait since it read the clock
                if not left:
                    raise

    # -- looking after it -------------------------------------------------------------------------------------------

    def _read(self) -> ArmState:
        if self._controller is None:
            raise RobotUnavailable(f"The arm at {self.connection.interface} is not connected; connect it first.")
        raw = self._controller.get_joint_state()  # kept in a variable: pos() and the like only point into it
        q, velocity, torque = (np.array(part(), float, copy=True) for part in (raw.pos, raw.vel, raw.torque))
        state = ArmState(float(raw.timestamp), q, velocity, torque, float(raw.gripper_pos) * SHRUNK)
        self._watch.see(state, float(raw.gripper_torque), time.monotonic())
        return state

    def _act_on(self, state: ArmState) -> None:
        """Take the torque away at once, if the watch says so, and stand there; go soft, if that does not help."""
        if self._stiff_since is None or self._watch.fault is None:
            return
        if self._watch.ease(state):
            self.damp()  # an eased set-point alone would only get there at the speed that the SDK lets through
        elif self._watch.hopeless():
            self.damp()
            return
        self._stiffen(state)

    def _look_after(self, ended: threading.Event) -> None:
        while not ended.wait(CYCLE):
            with self._lock:
                if self._controller is None:
                    return
                try:
                    self._act_on(self._read())
                except (RuntimeError, ValueError) as error:
                    self._watch.complain(f"the SDK refuses to ease: {error}")

    def _new_watch(self) -> ArxWatch:
        return ArxWatch(self.model, self.torque_fraction, self.frozen)

    def _pause_and_read(self) -> ArmState:
        time.sleep(0.02)
        return self._read()

    def _let_go(self) -> None:
        """Become soft slowly."""
        if self._controller is None or self._stiff_since is None:
            return
        for share in np.linspace(self._share, 0.0, 25):
            self._set_stiffness(float(share))
            time.sleep(RAMP / 25)
        self.damp()

    def _claim_interface(self) -> None:
        """See to it that nobody else drives this arm: two drivers would pull it to and fro."""
        if ArxArm._connected is not None:
            raise RobotConfigError(
                f"This process drives the arm at {ArxArm._connected.connection.interface} already, expected one arm "
                "per process; close that one, or start another driver."
            )
        claim = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            claim.bind(f"\0uva_lightning.arx.{self.connection.interface}")  # gone with the process, however it ends
        except OSError as error:
            claim.close()
            raise RobotUnavailable(
                f"Another process drives the arm at {self.connection.interface} ({error}); end that first."
            ) from error
        self._claim, ArxArm._connected = claim, self
