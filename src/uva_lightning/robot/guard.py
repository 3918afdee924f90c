"""Check a trajectory before any of it is sent: as a whole it is carried out, or refused; the gripper is slowed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from uva_lightning.robot.arm import JointTrajectory, Receipt
from uva_lightning.robot.arm_model import ArmModel
from uva_lightning.robot.chain import Array
from uva_lightning.robot.errors import BadShape, NonFinite, OutOfLimits, RobotConfigError, Stale
from uva_lightning.robot.inverse import rotation_angles
from uva_lightning.robot.limits import Limits

SPACING = 0.02
"""Time between the places of a path that are checked, s."""
FINGER = 0.02
"""Half the thickness of a finger, m."""
STOPPING = 0.03
"""Kept from the walls of the workspace on top, m: what braking from full speed takes."""
ROUNDING = 1e-6
EVEN = 0.2
"""Most that the time between two way-points may differ from the mean, and that from the limits, as a share of it."""
BEYOND = 0.005
"""How far the opening may be asked to be out of its range, m: ARX's SDK would end in its emergency stop there."""
LONGEST = 5.0
"""Seconds that a trajectory may reach into the future."""


class Guard:
    """Limits of one arm.

    Args:
        model: Of the arm.
        limits: Its limits.

    Raises:
        RobotConfigError: They are wider than the arm's own.
    """

    def __init__(self, model: ArmModel, limits: Limits) -> None:
        self.model, self.limits = model, limits
        self.lower, self.upper = model.lower + limits.joint_margin, model.upper - limits.joint_margin
        if limits.joint_velocity > model.velocity.min():
            raise RobotConfigError(
                f"limits.joint_velocity is {limits.joint_velocity} rad/s, expected at most "
                f"{model.velocity.min():g}, which {model.name} can do."
            )
        if (self.lower >= self.upper).any():
            raise RobotConfigError(f"limits.joint_margin is {limits.joint_margin} rad, which leaves a joint no room.")

    def rest(self, angles: Array) -> Array:
        """Give a rest position f64[j] in rad, moved off the joints' ends by the margin.

        Raises:
            RobotConfigError: It is of another arm, or beyond a joint's end.
        """
        lower, upper = self.model.lower, self.model.upper
        if angles.shape != lower.shape or not ((angles >= lower) & (angles <= upper)).all():
            ranges = ", ".join(f"{low:g} to {high:g}" for low, high in zip(lower, upper, strict=True))
            raise RobotConfigError(
                f"rest is {angles.tolist()}, expected one angle in rad for each joint of {self.model.name}, "
                f"within {ranges}; give where the arm lies safely when it goes soft."
            )
        return np.clip(angles, self.lower, self.upper)

    def check(self, trajectory: JointTrajectory, now: float, q: Array, opening: float) -> Receipt:
        """Check where it leads, how fast, and when; give what of it may be followed.

        All of it, or nothing; but a gripper that would move too fast is slowed, and one slightly out of its range stays
        within: that moves no joint, and policies ask for it all the time. The rest is checked after that.

        Args:
            trajectory: What was asked for.
            now: On the keeper's clock, s.
            q: Where the arm was sent last, f64[j] in rad; the way from there counts.
            opening: The same of the gripper, m.

        Raises:
            BadShape: It is of another arm.
            NonFinite: A number is not finite.
            Stale: It begins in the past, ends too far ahead, is not valid by then, or its times are uneven.
            OutOfLimits: It leaves a limit somewhere on the way.
        """
        if trajectory.q.shape[1] != len(q):
            raise BadShape(f"The trajectory has {trajectory.q.shape[1]} joints, expected {len(q)}.")
        parts = (trajectory.time, trajectory.q, trajectory.opening, trajectory.valid_until)
        if bad := sum(int((~np.isfinite(part)).sum()) for part in parts):
            raise NonFinite(f"{bad} numbers of the trajectory are not finite.")
        self._check_times(trajectory, now)
        receipt = self._clipped(trajectory, now, opening)
        trajectory = receipt.trajectory
        time = np.concatenate(([now], trajectory.time))
        angles = np.concatenate((q[None], trajectory.q))
        openings = np.concatenate(([opening], trajectory.opening))
        self._check_joints(time, angles)
        self._check_tool(time, angles, openings)
        return receipt

    def corners(self, pose: Array, opening: float) -> Array:
        """Give the outer corners of both fingers, f64[4, 3] in m in the frame of the base."""
        return self._corners(pose[None], np.array([0.5 * opening + FINGER]))[0]

    @staticmethod
    def _corners(poses: Array, half: Array) -> Array:
        """Give the corners f64[n, 4, 3] of fingers that reach so far to both sides, f64[n]."""
        sides, heights = np.array([-1.0, -1.0, 1.0, 1.0]), FINGER * np.array([-1.0, 1.0, -1.0, 1.0])
        own = np.stack(np.broadcast_arrays(0.0, half[:, None] * sides, heights), axis=2)
        corners: Array = own @ poses[:, :3, :3].transpose(0, 2, 1) + poses[:, None, :3, 3]
        return corners

    def _check_times(self, trajectory: JointTrajectory, now: float) -> None:
        steps = np.diff(trajectory.time)
        if (steps <= 0).any():
            raise Stale(
                f"Way-point {int(steps.argmin()) + 1} is not later than the one before, expected ascending times."
            )
        if steps.size and np.abs(steps / steps.mean() - 1).max() > EVEN:
            raise Stale(
                f"Way-points are {steps.min():.3f} to {steps.max():.3f} s apart, expected {steps.mean():.3f} s within "
                f"{EVEN:.0%}; is a time broken?"
            )
        rate = self.limits.rate_hz
        if rate is not None and steps.size and abs(steps.mean() * rate - 1) > EVEN:
            raise OutOfLimits(
                f"Way-points are {steps.mean():.3f} s apart, expected {1 / rate:.3f} s within {EVEN:.0%}; let "
                f"control.rate_hz of whoever drives be the {rate:g} of limits.rate_hz here, or the other way round."
            )
        if trajectory.time[0] <= now:
            raise Stale(
                f"The first way-point was due {now - trajectory.time[0]:.3f} s ago, expected one in the future; "
                "observe again, or plan faster."
            )
        if trajectory.time[-1] > now + LONGEST:
            raise Stale(
                f"The last way-point is {trajectory.time[-1] - now:.1f} s ahead, expected at most {LONGEST:g} s; "
                "do the clocks agree?"
            )
        if (trajectory.valid_until < trajectory.time).any():
            number = int((trajectory.valid_until < trajectory.time).argmax())
            raise Stale(f"Way-point {number} is no longer valid when it is due, expected valid_until at or after it.")

    def _check_joints(self, time: Array, angles: Array) -> None:
        within = (angles[1:] >= self.lower - ROUNDING) & (angles[1:] <= self.upper + ROUNDING)
        if not within.all():
            step, joint = np.argwhere(~within)[0]
            raise OutOfLimits(
                f"Way-point {step} has joint {joint + 1} at {angles[step + 1, joint]:.3f} rad, expected "
                f"{self.lower[joint]:.3f} to {self.upper[joint]:.3f}."
            )
        durations = np.diff(time)[:, None]
        velocity = np.diff(angles, axis=0) / durations
        self._check_most("joint velocity", np.abs(velocity).max(axis=1), self.limits.joint_velocity, "rad/s")
        middle = 0.5 * (durations[1:] + durations[:-1])
        acceleration = np.abs(np.diff(velocity, axis=0) / middle).max(axis=1, initial=0.0)
        self._check_most("joint acceleration", acceleration, self.limits.joint_acceleration, "rad/s^2")

    def _clipped(self, trajectory: JointTrajectory, now: float, opening: float) -> Receipt:
        """Keep the gripper within its range and speed, and say where that had to be done."""
        asked, width, speed = trajectory.opening, self.model.gripper_width, self.limits.gripper_speed
        if asked.min() < -BEYOND or asked.max() > width + BEYOND:
            raise OutOfLimits(
                f"The gripper would open {asked.min():.3f} to {asked.max():.3f} m, expected 0 to {width} and at most "
                f"{BEYOND} m more; is the opening in m?"
            )
        within, slowed = np.clip(asked, 0.0, width), np.empty_like(asked, dtype=np.float64)
        durations = np.diff(trajectory.time, prepend=now)
        for step, duration in enumerate(durations):
            way = float(within[step]) - opening
            slowed[step] = opening = opening + float(np.clip(way, -speed * duration, speed * duration))
        cut, late = np.abs(within - asked) > ROUNDING, np.abs(slowed - within) > ROUNDING
        reasons = []
        if cut.any():
            reasons.append(f"gripper cut to 0 to {width} m at {cut.sum()} of {len(cut)} way-points")
        if late.any():
            reasons.append(f"gripper slowed to {speed} m/s at {late.sum()} of {len(late)} way-points")
        numbers = tuple(int(number) for number in np.flatnonzero(cut | late))
        return Receipt(replace(trajectory, opening=slowed), numbers, tuple(reasons))

    def _check_tool(self, time: Array, angles: Array, openings: Array) -> None:
        moments, limits, chain = self._moments(time), self.limits, self.model.chain
        frames = chain.frames_along(np.stack([np.interp(moments, time, column) for column in angles.T], axis=1))
        poses = frames[:, -1]
        half = 0.5 * np.interp(moments[1:], time, openings) + FINGER  # from outside it may come back
        corners = self._corners(poses[1:], half)
        low = np.asarray(limits.workspace_min) + STOPPING
        high = np.asarray(limits.workspace_max) - STOPPING
        if (outside := ((corners < low) | (corners > high)).any(axis=(1, 2))).any():
            found = corners[int(outside.argmax())]
            raise OutOfLimits(
                f"The fingers would be at {found.min(axis=0).round(3).tolist()} to "
                f"{found.max(axis=0).round(3).tolist()} m, expected within {low.round(3).tolist()} to "
                f"{high.round(3).tolist()}, the workspace less {STOPPING} m to stop in."
            )
        singular = float(np.linalg.svd(chain.jacobians(frames[1:]), compute_uv=False)[:, -1].min())
        if singular < limits.singular:
            raise OutOfLimits(
                f"The arm would come near a singularity (smallest singular value {singular:.4f}), expected at "
                f"least {limits.singular:g}; choose another way."
            )
        passed = np.diff(moments)
        speed = np.linalg.norm(np.diff(poses[:, :3, 3], axis=0), axis=1) / passed
        turn = rotation_angles(poses[1:, :3, :3] @ poses[:-1, :3, :3].transpose(0, 2, 1)) / passed
        self._check_most("tool speed", speed, limits.eef_speed, "m/s")
        self._check_most("tool turning", turn, limits.eef_turn, "rad/s")

    @staticmethod
    def _moments(time: Array) -> Array:
        """Give close times on the way, the first where it begins."""
        count = max(2, int(np.ceil((time[-1] - time[0]) / SPACING)) + 1)
        return np.unique(np.concatenate((np.linspace(time[0], time[-1], count), time)).round(6))

    @staticmethod
    def _check_most(what: str, values: Array, limit: float, unit: str) -> None:
        if values.size and values.max() > limit * (1 + ROUNDING):
            raise OutOfLimits(
                f"The {what} would be {values.max():.3f} {unit} at way-point {int(values.argmax())}, expected at most "
                f"{limit:g} {unit}; slow down or come nearer first."
            )
