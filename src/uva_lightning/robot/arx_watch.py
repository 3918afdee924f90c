"""Judge the readings of an ARX arm: stop before its SDK does, since the SDK's own emergency stop hangs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from uva_lightning.robot.arm import ArmState
from uva_lightning.robot.arm_model import ArmModel
from uva_lightning.robot.chain import Array
from uva_lightning.robot.errors import RobotUnavailable

GRIPPER_TORQUE = 1.5
"""Limit of the gripper's motor in the SDK, N m."""
GRIPPER_BEYOND = 0.003
"""How far beyond its range a calibrated gripper may be read, m."""
JOINT_BEYOND = 0.15
"""The same of a joint, rad: nothing turns so far; its zero is wrong."""
OVER = 0.02
"""Seconds for which the torque may be too high: 10 cycles of the SDK."""
HOPELESS = 0.2
"""Seconds after which an arm that still feels too much torque goes soft."""
CALM = 1.0
"""Seconds in order after which a fault ends."""


class ArxWatch:
    """Watch one arm; pure logic, told of every reading.

    Args:
        model: Of the arm.
        torque_fraction: Share of its torque limits that is too much.
        frozen: Seconds for which all readings may stay the very same; None to not look.
    """

    def __init__(self, model: ArmModel, torque_fraction: float, frozen: float | None) -> None:
        self.model, self.torque_fraction, self.frozen = model, torque_fraction, frozen
        self.fault: str | None = None
        self._now = self._changed = -np.inf
        self._last: Array | None = None
        self._over_since: float | None = None
        self._calm_since = self._eased_at = -np.inf
        self._eased = True

    def accept(self, states: Sequence[ArmState]) -> None:
        """Look at the first readings.

        Raises:
            RobotUnavailable: They are all zero, do not change, or are beyond what arm and gripper can do.
        """
        first, last = states[0], states[-1]
        if not any(state.q.any() for state in states):
            raise RobotUnavailable(
                "All joints read exactly 0, as if nothing answers; switch the arm on, see the cable."
            )
        if all(np.array_equal(_numbers(first), _numbers(state)) for state in states):
            raise RobotUnavailable(
                f"{len(states)} readings in a row are the very same, expected noise; is the arm there? Switch it off "
                "and on."
            )
        if (wrong := self._wrong_place(last)) is not None:
            raise RobotUnavailable(f"The arm is no place it can be at: {wrong}.")

    def see(self, state: ArmState, gripper_torque: float, now: float) -> None:
        """Judge a reading.

        Args:
            state: What was read.
            gripper_torque: N m.
            now: s, by whatever clock.
        """
        self._now, numbers = now, _numbers(state)
        if self._last is None or not np.array_equal(numbers, self._last):
            self._last, self._changed = numbers, now
        if (wrong := self._wrong(state, gripper_torque)) is not None:
            self._calm_since = now
            self.complain(wrong)
        elif self.fault is not None and now - self._calm_since > CALM:
            self.fault = None

    def complain(self, sentence: str) -> None:
        """Begin a fault; the first sentence stays."""
        if self.fault is None:
            self.fault, self._calm_since, self._eased, self._eased_at = sentence, self._now, False, self._now

    def ease(self, state: ArmState) -> bool:
        """Tell, once per fault, that it should stand where it is; not where that is unknown."""
        if self._eased or self.fault is None or not np.isfinite(state.q).all() or self._stuck():
            return False
        self._eased = True
        return True

    def hopeless(self) -> bool:
        """Tell whether standing still has not taken the torque away."""
        eased = self.fault is not None and self._now - self._eased_at > HOPELESS
        return eased and self._over_since is not None

    def _wrong(self, state: ArmState, gripper_torque: float) -> str | None:
        share = np.append(np.abs(state.torque) / self.model.torque, abs(gripper_torque) / GRIPPER_TORQUE)
        if not np.isfinite([*_numbers(state), gripper_torque]).all():
            return "a reading is not finite"
        over = share.max() > self.torque_fraction
        self._over_since = (self._now if self._over_since is None else self._over_since) if over else None
        if self._over_since is not None and self._now - self._over_since >= OVER:
            which = int(share.argmax())
            name = f"joint {which + 1}" if which < len(state.q) else "the gripper"
            return f"{name} feels {share.max():.0%} of its torque, expected at most {self.torque_fraction:.0%}"
        if self._stuck():
            return f"all readings are the very same for {self._now - self._changed:.1f} s; is the cable out?"
        return self._wrong_place(state)

    def _stuck(self) -> bool:
        return self.frozen is not None and self._now - self._changed > self.frozen

    def _wrong_place(self, state: ArmState) -> str | None:
        beyond = np.maximum(self.model.lower - state.q, state.q - self.model.upper)
        if beyond.max() > JOINT_BEYOND:
            joint = int(beyond.argmax())
            return (
                f"joint {joint + 1} reads {state.q[joint]:.2f} rad, expected {self.model.lower[joint]:.2f} to "
                f"{self.model.upper[joint]:.2f}; calibrate its zero"
            )
        if not -GRIPPER_BEYOND <= state.opening <= self.model.gripper_width + GRIPPER_BEYOND:
            return (
                f"the gripper reads {1e3 * state.opening:.1f} mm, expected 0 to {1e3 * self.model.gripper_width:.0f}; "
                "close it before switching the arm on, or calibrate it"
            )
        return None


def _numbers(state: ArmState) -> Array:
    """Everything but the time, which the SDK counts on by itself."""
    return np.concatenate((state.q, state.velocity, state.torque, [state.opening]))
