"""A simulated table with an arm, on a clock of your choice."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Sequence
from ctypes.util import find_library
from pathlib import Path
from typing import Any

import numpy as np

from uva_lightning.robot import mjcf
from uva_lightning.robot.arm_model import ArmModel, arm_model
from uva_lightning.robot.camera import Frames
from uva_lightning.robot.chain import Array
from uva_lightning.robot.errors import RobotConfigError, RobotUnavailable
from uva_lightning.robot.scene_file import SceneWriter

STIFFNESS = (80.0, 70.0, 70.0, 30.0, 30.0, 20.0)
"""Of the joints, N m/rad: the SDK's joint controller."""
DAMPING = (2.0, 2.0, 2.0, 1.0, 1.0, 0.7)
"""N m s/rad, the same."""
FINGER_STIFFNESS, FINGER_DAMPING, FINGER_FORCE = 1500.0, 20.0, 15.0
"""N/m, N s/m and the most force in N of each finger; the SDK could press harder."""
WEIGHED = 5
"""Steps of the simulation after which the weight that motors carry is computed anew; it changes slowly."""
CATCH_UP = 0.2
"""Most seconds that are simulated at once to catch up with the clock; after a longer pause time was lost."""


class MujocoWorld:
    """Simulate an arm with motors as ARX's SDK drives them: stiffness, damping, gravity compensation, torque limits.

    Time passes by ``advance``, or, with a clock, whenever something is read. All methods may be called by any thread,
    but ``render`` only ever by one and the same: that owns the OpenGL context.

    Args:
        model: Arm, or its name.
        clock: Gives the time in s that the simulation follows; None if ``advance`` alone lets time pass.
        scene: File in which other processes see it, see ``SceneCamera``; none if not given.

    Raises:
        ImportError: MuJoCo is not installed.
        RobotConfigError: The arm has another number of joints than the gains are for, or the file cannot be written.
    """

    def __init__(
        self,
        model: ArmModel | str = "X5_umi",
        clock: Callable[[], float] | None = None,
        scene: Path | str | None = None,
    ) -> None:
        self.model = arm_model(model) if isinstance(model, str) else model
        if self.model.chain.joints != len(STIFFNESS):
            raise RobotConfigError(
                f"{self.model.name} has {self.model.chain.joints} joints, expected {len(STIFFNESS)}, for which gains "
                "are known."
            )
        self._mujoco = _mujoco()
        self._sim: Any = self._mujoco.MjModel.from_xml_string(mjcf.arm_mjcf(self.model))
        self._data: Any = self._mujoco.MjData(self._sim)
        self._clock, self._lock, self._renderers = clock, threading.RLock(), dict[tuple[int, int], Any]()
        count = self.model.chain.joints
        names = [*(mjcf.JOINT.format(number + 1) for number in range(count)), *mjcf.SLIDES, "cube"]
        joints = [self._sim.joint(name) for name in names]
        self._place = np.array([int(joint.qposadr[0]) for joint in joints[:-1]])
        self._speed = np.array([int(joint.dofadr[0]) for joint in joints[:-1]])
        self._cube, self._cube_speed = int(joints[-1].qposadr[0]), int(joints[-1].dofadr[0])
        limits = self.model.torque
        self._force = np.concatenate((limits, np.full(2, FINGER_FORCE)))
        self._stiffness = np.concatenate((STIFFNESS, np.full(2, FINGER_STIFFNESS)))
        self._damping = np.concatenate((DAMPING, np.full(2, FINGER_DAMPING)))
        self.begin = 0.0 if clock is None else clock()
        self._scene = None if scene is None else SceneWriter(Path(scene), self.places)
        self.reset()

    @property
    def time(self) -> float:
        """Simulated so far, on the clock, s."""
        return self.begin + float(self._data.time)

    def reset(self, q: Array | None = None, cube: Sequence[float] = mjcf.CUBE_PLACE) -> None:
        """Put the arm at rest at angles f64[j] in rad, zero if not given, soft and open, and the cube at x, y in m.

        Time goes on.
        """
        with self._lock:
            moment = self._data.time
            self._mujoco.mj_resetData(self._sim, self._data)
            self._data.time = moment
            half = 0.5 * self.model.gripper_width
            self._data.qpos[self._place] = np.append(
                np.zeros(self.model.chain.joints) if q is None else q, (half, half)
            )
            self._data.qpos[self._cube : self._cube + 2] = cube
            self._goal, self._torque = self._data.qpos[self._place].copy(), np.zeros(len(self._place))
            self.soft, self._steps = True, 0
            self._mujoco.mj_forward(self._sim, self._data)

    @property
    def places(self) -> int:
        """How many numbers say where everything is."""
        return int(self._sim.nq)

    def put_cube(self, place: Sequence[float]) -> None:
        """Put the cube at rest on the table at x, y in m."""
        with self._lock:
            at, speed = self._cube, self._cube_speed
            self._data.qpos[at : at + 7] = self._sim.qpos0[at : at + 7]
            self._data.qpos[at : at + 2] = place
            self._data.qvel[speed : speed + 6] = 0.0
            self._mujoco.mj_forward(self._sim, self._data)

    def show(self, time: float, places: Array) -> None:
        """Look like another world: ``places`` numbers of its at a time in s."""
        with self._lock:
            self.begin, self._data.time = 0.0, time
            self._data.qpos[:] = places
            self._mujoco.mj_forward(self._sim, self._data)

    def advance(self, seconds: float) -> None:
        """Let time pass, in whole steps of ``mjcf.STEP``."""
        with self._lock:
            for _ in range(round(seconds / mjcf.STEP)):
                self._step()

    def follow(self) -> None:
        """Catch up with the clock, if there is one."""
        if self._clock is None:
            return
        with self._lock:
            late = self._clock() - self.time
            if late > CATCH_UP:
                self.begin += late - CATCH_UP
                late = CATCH_UP
            if late > 0:
                self.advance(np.floor(late / mjcf.STEP + 1e-6) * mjcf.STEP)
            if self._scene is not None:
                self._scene.write(self.time, self._data.qpos)

    def drive(self, q: Array, opening: float) -> None:
        """Set where the motors pull: angles f64[j] in rad, opening of the gripper in m."""
        with self._lock:
            self.follow()
            self._goal, self.soft = np.append(np.asarray(q, float), (0.5 * opening, 0.5 * opening)), False

    def release(self) -> None:
        """Only damp and carry the arm's own weight."""
        with self._lock:
            self.follow()
            self.soft = True

    def measure(self) -> tuple[float, Array, Array, Array]:
        """Give time, and angles, velocities and torques f64[j + 2] of joints and fingers; the latter in m and N."""
        with self._lock:
            self.follow()
            return (
                self.time,
                np.array(self._data.qpos[self._place]),
                np.array(self._data.qvel[self._speed]),
                self._torque.copy(),
            )

    def hand(self) -> Array:
        """Give the pose of the tool as MuJoCo has it, f64[4, 4] in m."""
        with self._lock:
            pose, body = np.eye(4), self._data.body(mjcf.HAND)
            self._mujoco.mj_kinematics(self._sim, self._data)
            pose[:3, :3], pose[:3, 3] = body.xmat.reshape(3, 3), body.xpos
            return pose

    def cube(self) -> Array:
        """Give the centre of the cube, f64[3] in m."""
        with self._lock:
            return np.array(self._data.qpos[self._cube : self._cube + 3])

    def render(self, camera: str, width: int, height: int) -> tuple[Frames, float]:
        """Draw what a camera sees now: u8[height, width, 3] and its time.

        Raises:
            RobotUnavailable: There is no way to draw without a screen.
        """
        with self._lock:
            self.follow()
            if (width, height) not in self._renderers:
                try:
                    self._renderers[width, height] = self._mujoco.Renderer(self._sim, height, width)
                except Exception as error:  # whatever the OpenGL of the machine thinks of
                    raise RobotUnavailable(
                        f"MuJoCo cannot draw ({type(error).__name__}: {error}), expected OpenGL without a screen; set "
                        "MUJOCO_GL=egl (libegl1, libgl1-mesa-dri) or MUJOCO_GL=osmesa (libosmesa6)."
                    ) from error
            renderer = self._renderers[width, height]
            renderer.update_scene(self._data, camera=camera)
            return renderer.render().copy(), self.time

    def close(self) -> None:
        """Free what drawing took; by the thread that drew."""
        with self._lock:
            for renderer in self._renderers.values():
                renderer.close()
            self._renderers.clear()

    def _step(self) -> None:
        data, joints = self._data, self.model.chain.joints
        place, speed = data.qpos[self._place], data.qvel[self._speed]
        if self._steps % WEIGHED == 0:
            self._weight = self.model.chain.gravity_torque(place[:joints])
        self._steps += 1
        torque = -self._damping * speed
        torque[:joints] += self._weight
        if not self.soft:
            torque += self._stiffness * (self._goal - place)
        self._torque = np.clip(torque, -self._force, self._force)
        data.qfrc_applied[self._speed] = self._torque
        self._mujoco.mj_step(self._sim, data)


def _mujoco() -> Any:
    if sys.platform == "linux" and not os.environ.get("DISPLAY"):  # MuJoCo itself would look for a screen
        for way, library in (("egl", "EGL"), ("osmesa", "OSMesa")):
            if find_library(library):
                os.environ.setdefault("MUJOCO_GL", way)
    try:
        import mujoco
    except ImportError as error:
        raise ImportError(
            f"The simulated arm needs MuJoCo ({error}); install it with pip install 'uva_lightning[sim]'."
        ) from error
    return mujoco
