"""Arm and cameras of a simulated world, behind the interfaces of real ones."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import numpy as np

from uva_lightning.robot import mjcf
from uva_lightning.robot.arm import Arm, ArmState
from uva_lightning.robot.camera import Camera, Frames, last_frames
from uva_lightning.robot.chain import Array
from uva_lightning.robot.errors import RobotConfigError
from uva_lightning.robot.mujoco_world import MujocoWorld

AT_HOME = 2e-3
"""Distance from home in rad and m at which the arm is there."""
KEPT = 64
"""Frames of a camera that are kept."""


class MujocoArm(Arm):
    """Drive the arm of a world.

    Args:
        world: With its clock; cameras share it.
        home: Angles at which episodes begin, rad. Whenever the arm comes back there with its gripper open, somebody
            puts the cube to a new place; not given, nobody does.
        cube_min: Corner of the rectangle in which that lies, x and y in m in the frame of the base.
        cube_max: Opposite corner.
        seed: Of the places.

    Raises:
        RobotConfigError: There is no such rectangle, or home is of another arm.
    """

    harmless = True

    def __init__(
        self,
        world: MujocoWorld,
        home: Sequence[float] | None = None,
        cube_min: Sequence[float] = (0.34, -0.07),
        cube_max: Sequence[float] = (0.4, 0.07),
        seed: int = 0,
    ) -> None:
        if len(cube_min) != 2 or len(cube_max) != 2 or any(a > b for a, b in zip(cube_min, cube_max, strict=True)):
            raise RobotConfigError(
                f"The cube lies between {list(cube_min)} and {list(cube_max)}, expected x and y in m each, the first "
                "corner below the second."
            )
        self.world, self.model = world, world.model
        if home is not None and len(home) != self.model.chain.joints:
            raise RobotConfigError(
                f"home is {list(home)}, expected an angle in rad for each of the {self.model.chain.joints} joints of "
                f"{self.model.name}; give what rest has."
            )
        self._home = None if home is None else np.append(np.asarray(home, float), self.model.gripper_width)
        self._cube, self._places = (tuple(cube_min), tuple(cube_max)), np.random.default_rng(seed)
        self._was_home = False

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
        if self._home is not None:
            at_home = bool(np.abs(np.append(q, opening) - self._home).max() < AT_HOME)
            if at_home and not self._was_home:
                self.world.put_cube(tuple(self._places.uniform(*self._cube)))
            self._was_home = at_home

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
        self._kept: deque[tuple[float, Frames]] = deque(maxlen=KEPT)

    def connect(self, timeout: float) -> None:
        """Take the first picture.

        Raises:
            RobotUnavailable: There is no way to draw without a screen.
        """
        self.latest()

    def latest(self, count: int = 1) -> tuple[Frames, Array]:
        """Take a picture; give it and those taken before."""
        frame, moment = self.world.render(self.name, self.width, self.height)
        if not self._kept or moment > self._kept[-1][0]:
            self._kept.append((moment, frame))
        return last_frames(self._kept, count, self.name)

    def close(self) -> None:
        """Forget the pictures; the world is closed by itself."""
        self._kept.clear()
