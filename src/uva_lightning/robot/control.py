"""How a policy drives an arm: its pace, and trajectories out of its chunks."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np

from uva_lightning.robot.arm import JointTrajectory
from uva_lightning.robot.arm_model import ArmModel
from uva_lightning.robot.chain import Array
from uva_lightning.robot.errors import BadShape, RobotConfigError, Stale
from uva_lightning.robot.guard import EVEN
from uva_lightning.robot.tool_poses import ACTION, eef_pose, targets

JUMP = 0.5
"""Largest change of an angle between way-points, rad: more is another branch of the inverse kinematics."""


@dataclass(frozen=True)
class Control:
    """Pace of receding-horizon execution; the defaults are UVA's on this arm.

    Args:
        rate_hz: Way-points per second; also how often it observes.
        predict: Actions of a chunk.
        shift: Step at which the first action is due: 1 where a chunk begins after the newest frame, as in the data of
            UMI, though UVA's own program on this arm counts from 0; 0 where it begins with it.
        execute: Steps after which it plans anew.
        spare: Further steps that are carried out where the next chunk is late; then it stands.
        lead: Way-points due within so many seconds are dropped: the arm could not follow them smoothly.
        blend: For which the chunk before still counts, less and less, s.
        observation_age: At which the newest frame or measurement is too old to plan on, s.
        max_steps: Length limit of an episode.
        max_rejects: Chunks in a row that are refused or fail, after which the arm holds and the episode ends.
    """

    rate_hz: float = 5.0
    predict: int = 16
    shift: int = 1
    execute: int = 4
    spare: int = 4
    lead: float = 0.1
    blend: float = 0.4
    observation_age: float = 0.5
    max_steps: int = 300
    max_rejects: int = 3

    def __post_init__(self) -> None:
        for field in fields(self):
            value, least = getattr(self, field.name), 0 if field.name in ("shift", "spare", "lead", "blend") else 1e-9
            if not least <= value < float("inf"):
                expected = "zero or more" if least == 0 else "more than zero"
                raise RobotConfigError(f"control.{field.name} is {value}, expected a finite number, {expected}.")
        if self.execute + self.spare > self.predict:
            raise RobotConfigError(
                f"control.execute {self.execute} and spare {self.spare} are more than predict {self.predict}; lower "
                "one of them."
            )

    def check_rate(self, expected: float | None) -> None:
        """Refuse an arm that is limited to another pace.

        Args:
            expected: Way-points per second that it accepts, within 20 %; None if any.

        Raises:
            RobotConfigError: It would refuse every chunk.
        """
        if expected is not None and abs(expected / self.rate_hz - 1) > EVEN:
            raise RobotConfigError(
                f"control.rate_hz is {self.rate_hz:g}, expected {expected:g} within {EVEN:.0%}, which the arm's "
                "limits.rate_hz is; set one of them to the other."
            )

    @property
    def period(self) -> float:
        """Between two steps, s."""
        return 1.0 / self.rate_hz


class ChunkPlanner:
    """Turn chunks of one episode into trajectories.

    Args:
        model: Of the arm.
        control: Pace.
        margin: Kept from the joint limits, rad.
    """

    def __init__(self, model: ArmModel, control: Control, margin: float) -> None:
        self.control, self._inverse = control, model.inverse(margin)
        self._before: JointTrajectory | None = None

    def accepted(self, trajectory: JointTrajectory | None) -> None:
        """Hear what is being followed, so that the next one joins it; None at the begin of an episode."""
        self._before = trajectory

    def trajectory(self, action: Array, newest: Array, observed: float, now: float, q: Array) -> JointTrajectory:
        """Plan a chunk.

        Args:
            action: f[h, 10] relative to the newest observation, the first due ``shift`` steps after it.
            newest: Tool pose f64[4, 4] at that observation.
            observed: Its time, s.
            now: s.
            q: Angles f64[j] to seed the inverse kinematics with, where nothing is followed yet.

        Raises:
            BadShape: It has another length or width.
            NonFinite: A number is not finite.
            Stale: All that should be carried out is over.
            Unreachable: No angles lead to a pose.
            ActionRejected: A rotation is none.
        """
        control = self.control
        if np.shape(action) != (control.predict, ACTION):
            raise BadShape(f"The chunk has shape {np.shape(action)}, expected ({control.predict}, {ACTION}).")
        poses, openings = targets(action, newest)
        time = observed + control.period * (control.shift + np.arange(control.predict, dtype=np.float64))
        first = int(np.searchsorted(time, now + control.lead, side="right"))
        end = first + control.execute + control.spare
        if control.predict - first < control.execute:
            raise Stale(
                f"The chunk is for {time[0] - now:+.2f} to {time[-1] - now:+.2f} s from now, which leaves "
                f"{control.predict - first} way-points, expected at least {control.execute}; plan faster."
            )
        time, poses, openings = time[first:end], poses[first:end], openings[first:end]
        seed, angles = self._followed(time[:1], q)[0], []
        for pose in eef_pose(poses):
            seed = self._inverse(pose, seed, JUMP)
            angles.append(seed)
        return JointTrajectory(time, self._blended(time, np.stack(angles), now), openings, time + control.period)

    def _followed(self, time: Array, q: Array) -> Array:
        """Give the angles f64[n, j] of the trajectory before at these times."""
        before = self._before
        if before is None:
            return np.tile(q, (len(time), 1))
        return np.stack([np.interp(time, before.time, column) for column in before.q.T], axis=1)

    def _blended(self, time: Array, q: Array, now: float) -> Array:
        """Come over from the trajectory before, as long as that has way-points."""
        if self._before is None or self.control.blend == 0:
            return q
        share = np.clip((time - now) / self.control.blend, 0.0, 1.0)
        share = np.where(time > self._before.time[-1], 1.0, share)[:, None]
        blended: Array = share * q + (1 - share) * self._followed(time, q[0])
        return blended
