"""Arm and cameras of a simulated world, behind the interfaces of real ones."""

from __future__ import annotations

from collections import deque

import numpy as np

from uva_lightning.robot import mjcf
from uva_lightning.robot.arm import Arm, ArmState
from uva_lightning.robot.camera import Camera, Frames, at_least_one
from uva_lightning.robot.chain import Array
from uva_lightning.robot.errors import RobotConfigError
from uva_lightning.robot.mujoco_world import MujocoWorld

KEPT = 64
"""Frames of a camera that are kept."""


class MujocoArm(Arm):
    """Drive the arm of a world.

    Args:
        world: With its clock; cameras share it.
    """

    harmless = True

    def __init__(self, world: MujocoWorld) -> None:
        self.world, self.model = world, world.model

    def connect(self, timeout: float) -> None:
        """It is always there."""

    def state(self) -> ArmState:
        """Measure."""
        time, place, velocity, torque = self.world.measure()
        joints = self.model.chain.joints
        return ArmState(time, place[:joints], velocity[:joints], torque[:joints], float(place[joints:].sum()))

    def command(self, q: Array, opening: float) -> None:
        """Pull towards there."""
        self.world.drive(q, opening)

    def damp(self) -> None:
        """Go soft; its weight is carried."""
        self.world.release()

    def close(self) -> None:
        """Go soft, as the SDK does at its end."""
        self.world.release()


class MujocoCamera(Camera):
    """Take pictures of a world: one whenever it is asked, since drawing is slow; those taken before are kept.

    Args:
        world: That it sees.
        name: ``wrist`` or ``scene``.
        width: px.
        height: px.

    Raises:
        RobotConfigError: The world has no such camera.
    """

    latency = 0.0

    def __init__(self, world: MujocoWorld, name: str = mjcf.WRIST, width: int = 224, height: int = 224) -> None:
        if name not in mjcf.CAMERAS:
            raise RobotConfigError(f"There is no camera '{name}' in the world, expected {' or '.join(mjcf.CAMERAS)}.")
        self.world, self.name, self.width, self.height = world, name, width, height
        self._kept: deque[tuple[Frames, float]] = deque(maxlen=KEPT)

    def connect(self, timeout: float) -> None:
        """Take the first picture.

        Raises:
            RobotUnavailable: There is no way to draw without a screen.
        """
        self.latest()

    def latest(self, count: int = 1) -> tuple[Frames, Array]:
        """Take a picture; give it and those taken before."""
        frame, moment = self.world.render(self.name, self.width, self.height)
        if not self._kept or moment > self._kept[-1][1]:
            self._kept.append((frame, moment))
        newest = list(self._kept)[-at_least_one(count) :]
        return np.stack([frame for frame, _ in newest]), np.array([moment for _, moment in newest])

    def close(self) -> None:
        """Forget the pictures; the world is closed by itself."""
        self._kept.clear()
