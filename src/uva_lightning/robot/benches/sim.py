"""An arm, a table and a cube in MuJoCo, and somebody who puts the cube somewhere and looks whether it was lifted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from uva_lightning.robot import mjcf
from uva_lightning.robot.benches.base import Bench, Kept, Session
from uva_lightning.robot.benches.fake import READY, TABLE, check_cameras
from uva_lightning.robot.camera import FreshCamera
from uva_lightning.robot.chain import Array
from uva_lightning.robot.errors import RobotConfigError, RobotUnavailable
from uva_lightning.robot.limits import Limits
from uva_lightning.robot.operator import Label, ScriptedOperator


@dataclass(frozen=True)
class SimBench(Bench):
    """Lift the cube. Simulated time passes as fast as it can, and not while a policy thinks.

    Args:
        model: Name of the arm.
        cameras: Camera of the world, ``wrist`` or ``scene``, by the name that data sets have for it.
        image_size: Height and width of a picture, px.
        ready: Angles at which episodes begin, rad.
        cube_min: Corner of the rectangle in which the cube lies, x and y in m in the frame of the base.
        cube_max: Opposite corner.
        lifted: Height of the cube at which an episode is a success, m.
        limits: Of the motion; ``TABLE`` if not given.
    """

    knows_cube = True

    model: str = "X5_umi"
    cameras: Mapping[str, str] = field(default_factory=lambda: {"camera0": mjcf.WRIST})
    image_size: int = 224
    ready: Sequence[float] = READY
    cube_min: Sequence[float] = (0.34, -0.07)
    cube_max: Sequence[float] = (0.4, 0.07)
    lifted: float = 0.08
    limits: Limits | None = None

    def __post_init__(self) -> None:
        check_cameras(tuple(self.cameras))
        low, high = tuple(self.cube_min), tuple(self.cube_max)
        if len(low) != 2 or len(high) != 2 or any(one > other for one, other in zip(low, high, strict=True)):
            raise RobotConfigError(
                f"The cube lies between {list(low)} and {list(high)}, expected x and y in m each, the first corner "
                "below the second."
            )
        if unknown := sorted(set(self.cameras.values()) - set(mjcf.CAMERAS)):
            raise RobotConfigError(
                f"There is no camera '{unknown[0]}' in the world, expected {' or '.join(mjcf.CAMERAS)}; mend "
                "bench.cameras."
            )

    @property
    def camera_names(self) -> Sequence[str]:
        """See the base class."""
        return tuple(self.cameras)

    def place(self, seed: int, episode: int) -> Array:
        """Say where the cube lies in an episode: f64[2], m."""
        drawn: Array = np.random.default_rng((seed, episode)).uniform(self.cube_min, self.cube_max)
        return drawn

    def open(self, seed: int) -> Session:
        """See the base class.

        Raises:
            RobotUnavailable: MuJoCo is not installed, or has no way to draw.
        """
        from uva_lightning.robot.mujoco_arm import MujocoArm, MujocoCamera
        from uva_lightning.robot.mujoco_world import MujocoWorld

        try:
            world = MujocoWorld(self.model)
        except ImportError as error:
            raise RobotUnavailable(str(error)) from error
        ready, limits = np.asarray(self.ready, float), self.limits or TABLE
        world.reset(ready)

        def clock() -> float:
            return world.time

        kept = Kept(MujocoArm(world), limits, ready, clock, world.advance)
        cameras = []
        for name, view in self.cameras.items():
            own = MujocoCamera(world, view, self.image_size, self.image_size)
            cameras.append(FreshCamera(own, frozen=None, clock=clock))
            cameras[-1].name = name
        try:
            for camera in cameras:
                camera.connect(1.0)
        except RobotUnavailable:
            world.close()
            raise

        def allow(episode: int) -> bool:
            world.reset(ready, tuple(self.place(seed, episode)))
            kept.prepare()
            return True

        def lifted() -> bool:
            return float(world.cube()[2]) > self.lifted

        def close() -> None:
            kept.park()
            world.close()

        operator = ScriptedOperator(allow, lambda: Label.SUCCESS if lifted() else Label.FAILURE, lifted)
        return Session(
            kept.station, cameras, operator, limits, clock, kept.wait, close, cube=world.cube, events=kept.events
        )
