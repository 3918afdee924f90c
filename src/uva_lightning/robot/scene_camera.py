"""Cameras of a simulated world that runs in another process, such as the driver of an arm server.

The world gives away where everything is (``MujocoWorld.scene``); pictures are drawn here, by a thread of this process,
so that drawing never holds up the arm.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

import numpy as np

from uva_lightning.robot import mjcf
from uva_lightning.robot.camera import Camera, Frames, last_frames
from uva_lightning.robot.chain import Array
from uva_lightning.robot.errors import CameraLost, RobotConfigError, RobotError, RobotUnavailable
from uva_lightning.robot.mujoco_world import MujocoWorld
from uva_lightning.robot.scene_file import SceneReader

KEPT = 64
"""Frames that are kept."""
OLD = 1.0
"""Age in s at which a scene is that of an earlier simulation."""


class SceneCamera(Camera):
    """Draw what a simulated world in another process looks like.

    Each picture has noise of one grey level, as those of real cameras have: whoever looks for frozen cameras finds one
    where nothing moves.

    Args:
        scene: File that the world writes.
        name: Of the camera, as data sets call it.
        view: Camera of the world, ``wrist`` or ``scene``.
        width: px.
        height: px.
        rate_hz: Pictures per second, fewer where drawing takes longer.
        model: Of the arm.
        clock: Gives the time in s, as the world's does.

    Raises:
        RobotConfigError: The world has no such camera.
    """

    latency = 0.0

    def __init__(
        self,
        scene: Path | str,
        name: str = "camera0",
        view: str = mjcf.WRIST,
        width: int = 224,
        height: int = 224,
        rate_hz: float = 10.0,
        model: str = "X5_umi",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if view not in mjcf.CAMERAS:
            raise RobotConfigError(f"There is no camera '{view}' in the world, expected {' or '.join(mjcf.CAMERAS)}.")
        if not 0 < rate_hz < float("inf"):
            raise RobotConfigError(f"rate_hz of camera '{name}' is {rate_hz}, expected a positive number.")
        self.scene, self.name, self.view, self.width, self.height = Path(scene), name, view, width, height
        self.rate_hz, self.model, self.clock = rate_hz, model, clock
        self._kept: deque[tuple[float, Frames]] = deque(maxlen=KEPT)
        self._stop, self._drawer = threading.Event(), threading.Thread()
        self._error: Exception | None = None

    def connect(self, timeout: float) -> None:
        """Wait for the world and for the first picture.

        Raises:
            RobotUnavailable: There is no world, or no way to draw.
            ImportError: MuJoCo is not installed.
        """
        if self._drawer.is_alive():
            return
        self._kept.clear()
        self._stop, self._error = threading.Event(), None
        world = MujocoWorld(self.model)
        self._drawer = threading.Thread(target=self._draw, args=(world, self._stop), name=self.name, daemon=True)
        self._drawer.start()
        end = time.monotonic() + timeout
        while not self._kept:
            if time.monotonic() > end or not self._drawer.is_alive():
                self.close()
                why = self._error or "this machine was too busy to look for it"
                raise RobotUnavailable(
                    f"Camera '{self.name}' sees no world at {self.scene} within {timeout:g} s ({why}); start "
                    "the simulation with world.scene set to this file."
                )
            time.sleep(0.01)

    def latest(self, count: int = 1) -> tuple[Frames, Array]:
        """Give the newest pictures, with the times of what they show."""
        found = last_frames(self._kept, count, self.name)
        if self._error is not None:
            raise CameraLost(f"Camera '{self.name}' stopped ({self._error}); does the simulation still run?")
        return found

    def close(self) -> None:
        """Draw no more."""
        self._stop.set()
        if self._drawer.is_alive():
            self._drawer.join(timeout=1.0)
        self._kept.clear()

    def _draw(self, world: MujocoWorld, stop: threading.Event) -> None:
        """Draw until it is told to stop; OpenGL belongs to one thread, so all of it happens here."""
        reader, noise = None, np.random.default_rng()
        try:
            while not stop.wait(1.0 / self.rate_hz):
                try:
                    reader = reader or SceneReader(self.scene, world.places)
                    moment, places = reader.read()
                except CameraLost as error:
                    if self._kept:
                        raise
                    self._error = error  # it may still begin
                    continue
                if self._kept and moment <= self._kept[-1][0]:
                    continue  # the world stands still, or has ended: pictures get old
                if not self._kept and self.clock() - moment > OLD:
                    reader = None  # of an earlier simulation
                    continue
                world.show(moment, places)
                frame, _ = world.render(self.view, self.width, self.height)
                grain = noise.integers(0, 2, frame.shape, np.uint8)
                self._error = None
                self._kept.append((moment, np.minimum(frame, 254) + grain))
        except RobotError as error:
            self._error = error
        finally:
            world.close()
