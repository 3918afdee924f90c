"""Keep an arm safe: the states it may be in, who may move it, and every set-point that reaches it.

A pure state machine: it has no thread and no clock of its own. Something calls ``tick`` every period, whatever else
happens; watchdogs are comparisons of times in there.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum

import numpy as np

from uva_lightning.robot.arm import Arm, ArmState, JointTrajectory, Receipt
from uva_lightning.robot.chain import Array
from uva_lightning.robot.errors import ActionRejected, Fault, NotArmed, RobotError
from uva_lightning.robot.guard import Guard
from uva_lightning.robot.limits import Limits
from uva_lightning.robot.tracker import Tracker
from uva_lightning.robot.watchdogs import Watchdogs

SAFETY = 0.9
"""Share of the tool's speed limits at which set-points are slowed down: the Jacobian changes while it brakes."""


class Mode(StrEnum):
    """States of an arm; it goes somewhere in HOMING, RUNNING and PARKING only. A person ends FAULT and ESTOP."""

    DISCONNECTED = "disconnected"
    IDLE = "idle"
    HOMING = "homing"
    HOMED = "homed"
    ARMED = "armed"
    RUNNING = "running"
    HOLD = "hold"
    PARKING = "parking"
    FAULT = "fault"
    ESTOP = "estop"


class Keeper:
    """Stand between everybody and one arm.

    Args:
        arm: What is kept; nobody else may call its ``command``.
        limits: Of its motion.
        period: Of ``tick``, s.
        rest: Angles f64[j] at which it may go soft, rad; the way there is straight in joint space.
        watchdogs: When it stops by itself.
        record: Told of every event: its name and a sentence.

    Raises:
        RobotConfigError: Limits or rest do not fit the arm, or it is no simulation and a watchdog is too slow.
    """

    def __init__(
        self,
        arm: Arm,
        limits: Limits | None = None,
        period: float = 0.01,
        rest: Array | None = None,
        watchdogs: Watchdogs | None = None,
        record: Callable[[str, str], object] | None = None,
    ) -> None:
        self.arm, self.limits, self.period = arm, limits or Limits(), period
        self.guard, self.watchdogs = Guard(arm.model, self.limits), watchdogs or Watchdogs()
        if not arm.harmless:
            self.watchdogs.bound("watchdogs")
        self.rest = self.guard.rest(np.zeros(len(arm.model.lower)) if rest is None else np.asarray(rest, float))
        self._record = record or (lambda event, sentence: None)
        model = arm.model
        self._tracker = Tracker(
            np.append(self.guard.lower, 0.0),
            np.append(self.guard.upper, model.gripper_width),
            np.append(np.full(len(model.lower), self.limits.joint_velocity), self.limits.gripper_speed),
            np.append(np.full(len(model.lower), self.limits.joint_acceleration), 10 * self.limits.gripper_speed),
            period,
        )
        self.mode, self.reason = Mode.DISCONNECTED, ""
        self._slow = 0  # set-points of this episode that were slowed
        self._plan: JointTrajectory | None = None
        self._begin = (0.0, np.zeros(0))
        self._stands = False  # by its own strength, since it has no brakes; else it is soft
        self._eased: Array | None = None  # where set-points withdraw to after a fault
        self._heartbeat = self._in_order = self._seen = self._changed = -np.inf
        self._last: ArmState | None = None

    @property
    def set_point(self) -> Array | None:
        """What the arm got last, f64[j + 1] with the opening of the gripper; None where it is soft."""
        return self._tracker.place.copy() if self._stands else None

    # -- what may be asked for ------------------------------------------------------------------------------------

    def connect(self, now: float, timeout: float = 2.0) -> None:
        """Connect; the arm stays soft.

        Raises:
            RobotUnavailable: It is not there.
        """
        self.arm.connect(timeout)
        self.arm.damp()
        self._in_order = self._changed = now
        self._stands = False
        self._enter(Mode.IDLE, "connected")

    def home(self, now: float) -> None:
        """Go slowly to where episodes begin, from wherever the arm lies now."""
        self._expect(Mode.IDLE, Mode.HOMED, Mode.HOLD, Mode.ARMED)
        if self.mode == Mode.IDLE:
            self._take_over(self._measured(now))
        self._enter(Mode.HOMING, "asked to go home")

    def allow(self, now: float) -> None:
        """Allow an episode; only a person at the robot may call this."""
        self._expect(Mode.HOMED)
        self._enter(Mode.ARMED, "allowed by the operator")

    def begin(self, now: float) -> None:
        """Begin the episode that was allowed."""
        self._expect(Mode.ARMED)
        self._heartbeat, self._plan = now, None
        self._enter(Mode.RUNNING, "episode begins")

    def heartbeat(self, now: float) -> None:
        """Hear from the one who moves the arm, who said so at this time."""
        self._heartbeat = max(self._heartbeat, now)

    def send(self, trajectory: JointTrajectory, now: float) -> Receipt:
        """Follow a trajectory from now on, instead of the one before; give what is followed.

        Raises:
            NotArmed: No episode runs.
            ActionRejected: It breaks a limit; the arm brakes and stands until the next one.
        """
        self._expect(Mode.RUNNING)
        place = self._tracker.place
        try:
            receipt = self.guard.check(trajectory, now, place[:-1], float(place[-1]))
        except ActionRejected as error:
            self.pause(now, f"{type(error).__name__}: {error}")
            raise
        self._begin, self._plan = (now, place.copy()), receipt.trajectory
        if receipt.reasons:
            self._record("clipped", "; ".join(receipt.reasons))
        return receipt

    def pause(self, now: float, reason: str) -> None:
        """Brake and stand within the episode, until the next trajectory: there is nothing good to follow."""
        if self._plan is not None:
            self._plan = None
            self._record("paused", reason)

    def hold(self, now: float, reason: str) -> None:
        """Brake and stand; anybody may ask for it, at any time."""
        if self.mode in (Mode.HOMING, Mode.RUNNING, Mode.PARKING, Mode.ARMED):
            self.heartbeat(now)  # it stands for a while before silence makes it park
            self._enter(Mode.HOLD, reason)

    def park(self, now: float, reason: str) -> None:
        """Go slowly to the rest position and go soft there."""
        if self.mode in (Mode.HOMING, Mode.HOMED, Mode.ARMED, Mode.RUNNING, Mode.HOLD):
            self._enter(Mode.PARKING, reason)

    def damp(self, now: float, reason: str) -> None:
        """Go soft where it is, as the last resort: an arm without brakes may sink. What stopped it stays so.

        Raises:
            RobotError: The arm does not.
        """
        if self.mode != Mode.DISCONNECTED:
            self.arm.damp()
            self._stands = False
            self._enter(self.mode if self.mode in (Mode.FAULT, Mode.ESTOP) else Mode.IDLE, reason)

    def stop(self, now: float, reason: str) -> None:
        """Emergency stop by software: brake and stand until a person resets it; anybody may ask for it."""
        if self.mode not in (Mode.DISCONNECTED, Mode.ESTOP):
            self._enter(Mode.ESTOP, reason)

    def reset(self, now: float) -> None:
        """Leave FAULT or ESTOP; only a person at the robot may call this."""
        self._expect(Mode.FAULT, Mode.ESTOP)
        state = self._measured(now)
        if state.fault is not None:
            raise Fault(f"The arm still complains: {state.fault}; mend that first, perhaps by switching it off and on.")
        self._in_order, self._eased = now, None
        self.heartbeat(now)
        self._enter(Mode.HOLD if self._stands else Mode.IDLE, "reset by the operator")

    def close(self) -> None:
        """Go soft and disconnect."""
        if self.mode != Mode.DISCONNECTED:
            try:
                self.arm.damp()
            except RobotError as error:
                self._fail(f"The arm does not go soft: {error}")
            self.arm.close()
            self._stands = False
            self._enter(Mode.DISCONNECTED, "closed")

    # -- what happens every period --------------------------------------------------------------------------------

    def tick(self, now: float) -> ArmState | None:
        """Look after the arm: read, check, and send the next set-point; gives what was read."""
        if self.mode == Mode.DISCONNECTED:
            return None
        state = self._read(now)
        self._watch(now)
        if not self._stands:
            return state
        wished = self._wish(now)
        if self.mode == Mode.IDLE:  # it has just been parked
            return state
        place = self._tracker.step(self._slowed(wished))
        try:
            self.arm.command(place[:-1].copy(), float(place[-1]))
        except RobotError as error:
            self._fail(f"The arm refuses a set-point: {error}")
        return state

    def _read(self, now: float) -> ArmState | None:
        """Take a measurement and look for what is wrong with it."""
        try:
            state = self.arm.state()
        except RobotError as error:
            self._fail(f"The arm gives no measurement: {error}")
            return None
        numbers = np.concatenate((state.q, state.velocity, state.torque, [state.opening, state.time]))
        if not np.isfinite(numbers).all():
            self._fail("A measurement has numbers that are not finite")
            return None
        if self._last is None or state.time != self._last.time:
            self._changed = now
        self._last = state
        if state.fault is not None:
            if self._stands and self.mode not in (Mode.FAULT, Mode.ESTOP):
                self._eased = np.append(state.q, self._tracker.place[-1])  # it has let go; go on from where it is
            self._fail(f"The arm complains: {state.fault}")
        elif now - self._changed > self.watchdogs.state_age:
            self._fail(f"The arm's measurements are frozen for {now - self._changed:.2f} s")
        elif self._stands:
            self._compare(state, now)
        return state

    def _compare(self, state: ArmState, now: float) -> None:
        """Fault if the arm does not follow, or pushes too hard, for too long."""
        error = np.abs(state.q - self._tracker.place[:-1])
        share = np.abs(state.torque) / self.arm.model.torque
        follows, gentle = error.max() <= self.limits.tracking_error, share.max() <= self.limits.torque_fraction
        if follows and gentle:
            self._in_order = now
        elif now - self._in_order > self.watchdogs.tracking:
            joint = int((error if not follows else share).argmax())
            what = f"is {error[joint]:.2f} rad off" if not follows else f"pushes with {share[joint]:.0%} of its torque"
            self._eased = np.append(state.q, self._tracker.place[-1])  # stand where it is instead of pushing on
            self._fail(f"Joint {joint + 1} {what}")

    def _watch(self, now: float) -> None:
        silent = now - self._heartbeat
        if self.mode == Mode.RUNNING and silent > self.watchdogs.hold:
            self._enter(Mode.HOLD, f"no heartbeat for {silent:.2f} s")
        elif self.mode == Mode.HOLD and silent > self.watchdogs.park:
            self._enter(Mode.PARKING, f"no heartbeat for {silent:.1f} s")

    def _wish(self, now: float) -> Array:
        """Velocity of all axes that the present state asks for, f64[j + 1]."""
        still = np.zeros_like(self._tracker.place)
        if self.mode == Mode.RUNNING and self._plan is not None:
            return self._follow(self._plan, now)
        if self.mode in (Mode.HOMING, Mode.PARKING):
            target = np.append(self.rest, self.arm.model.gripper_width)
            if np.abs(target - self._tracker.place).max() < 1e-3 and not np.abs(self._tracker.velocity).max() > 1e-3:
                self._arrive()
                return still
            return self._tracker.wish(target, still)
        if self.mode == Mode.FAULT and self._eased is not None:
            return self._tracker.wish(self._eased, still)
        return still

    def _arrive(self) -> None:
        if self.mode == Mode.HOMING:
            self._enter(Mode.HOMED, "at home")
        else:
            self._stands = False
            self._enter(Mode.IDLE, "parked")
            try:
                self.arm.damp()
            except RobotError as error:
                self._fail(f"The arm does not go soft: {error}")

    def _follow(self, plan: JointTrajectory, now: float) -> Array:
        """Follow the way-points; behind the last one, or one that is no longer valid, stand."""
        begin, place = self._begin
        time = np.concatenate(([begin], plan.time))
        places = np.concatenate((place[None], np.concatenate((plan.q, plan.opening[:, None]), axis=1)))
        later = int(np.searchsorted(plan.time, now))
        if later == len(plan.time) or now > plan.valid_until[later]:
            return np.zeros_like(place)
        speed = (places[later + 1] - places[later]) / (time[later + 1] - time[later])
        reference = places[later] + speed * (now - time[later])
        return self._tracker.wish(reference, speed)

    def _slowed(self, wished: Array) -> Array:
        """Slow all axes down together where the tool would be too fast."""
        linear, turning = np.split(self.arm.model.chain.jacobian(self._tracker.place[:-1]) @ wished[:-1], 2)
        ratios = (
            np.linalg.norm(linear) / (SAFETY * self.limits.eef_speed),
            np.linalg.norm(turning) / (SAFETY * self.limits.eef_turn),
        )
        ratio = max(1.0, *map(float, ratios))
        self._slow += ratio > 1.0 and self.mode == Mode.RUNNING
        return wished / ratio

    # -- helpers --------------------------------------------------------------------------------------------------

    def _take_over(self, state: ArmState) -> None:
        """Begin set-points where the arm is."""
        self._tracker.start(np.append(state.q, np.clip(state.opening, 0.0, self.arm.model.gripper_width)))
        self._plan, self._eased, self._stands = None, None, True

    def _measured(self, now: float) -> ArmState:
        state = self._read(now)
        if state is None:
            raise Fault(f"{self.reason}; look after the arm, then try again.")
        return state

    def _expect(self, *modes: Mode) -> None:
        if self.mode not in modes:
            raise NotArmed(
                f"The arm is in state '{self.mode}' ({self.reason}), expected {' or '.join(modes)}; "
                "see what the operator's console says."
            )

    def _fail(self, sentence: str) -> None:
        if self.mode not in (Mode.FAULT, Mode.ESTOP):
            self._enter(Mode.FAULT, sentence)

    def _enter(self, mode: Mode, reason: str) -> None:
        slow, self._slow = self._slow, 0
        self.mode, self.reason = mode, reason
        if mode != Mode.RUNNING:
            self._plan = None
        if slow:
            self._record("slowed", f"the tool's speed limits slowed {slow * self.period:.2f} s of motion")
        self._record(mode.value, reason)
