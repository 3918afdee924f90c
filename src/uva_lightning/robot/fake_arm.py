"""An ideal arm without hardware, for dry runs and tests: it is at once where it is sent, on a clock of your choice."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from uva_lightning.robot.arm import Arm, ArmState
from uva_lightning.robot.arm_model import arm_model
from uva_lightning.robot.chain import Array


class FakeArm(Arm):
    """Stand in for an arm.

    Args:
        model: Name of the arm whose geometry and limits it has.
        clock: Gives the time in s; the machine's own if not given.
    """

    harmless = True

    def __init__(self, model: str = "X5_umi", clock: Callable[[], float] = time.monotonic) -> None:
        self.model, self.clock = arm_model(model), clock
        self.q, self.opening = np.zeros(self.model.chain.joints), self.model.gripper_width
        self.soft = True

    def connect(self, timeout: float) -> None:
        """It is always there."""

    def state(self) -> ArmState:
        """Measure what it was told; gravity is what its motors feel."""
        still = np.zeros_like(self.q)
        torque = still if self.soft else self.model.chain.gravity_torque(self.q)
        return ArmState(self.clock(), self.q.copy(), still, torque, self.opening)

    def command(self, q: Array, opening: float) -> None:
        """Be there."""
        self.q, self.opening, self.soft = np.array(q, float), float(opening), False

    def damp(self) -> None:
        """Stay, as if nothing pulled."""
        self.soft = True

    def close(self) -> None:
        """Nothing to do."""
