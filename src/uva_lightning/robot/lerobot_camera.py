"""Cameras of other makes: whatever LeRobot reads (extra [lerobot], Python 3.12 or newer)."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

import numpy as np

from uva_lightning.robot.camera import Camera, Frames, last_frames
from uva_lightning.robot.chain import Array
from uva_lightning.robot.errors import CameraLost, RobotConfigError, RobotUnavailable
from uva_lightning.robot.lerobot_making import make_camera

KEPT = 64
"""Frames that are kept."""
FAREWELL = 2.0
"""Seconds that disconnecting may take."""


class LeRobotCamera(Camera):
    """Read a camera of LeRobot in a thread of its own.

    Args:
        camera: A ``lerobot.cameras.Camera``, or the options of one: ``{type: opencv, index_or_path: 0, width: 640,
            height: 480, fps: 30}``.
        name: As data sets call it.
        latency: From the capture to the arrival, s; measured once at the bench.
        clock: Gives the time in s.

    Raises:
        RobotConfigError: Its width or height is not given.
    """

    def __init__(
        self, camera: Any, name: str = "wrist", latency: float = 0.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.camera = make_camera(camera) if isinstance(camera, Mapping) else camera
        self.name, self.latency, self.clock = name, latency, clock
        if not self.camera.width or not self.camera.height:
            raise RobotConfigError(
                f"Camera '{name}' is {self.camera.width} x {self.camera.height} px, expected both in its options."
            )
        self.width, self.height = int(self.camera.width), int(self.camera.height)
        self._kept: deque[tuple[float, Frames]] = deque(maxlen=KEPT)
        self._ended, self._thread = threading.Event(), threading.Thread()
        self._error: Exception | None = None

    def connect(self, timeout: float) -> None:
        """Open it.

        Raises:
            RobotUnavailable: It gives no frame within so many seconds.
        """
        if self._thread.is_alive() and not self._ended.is_set():
            return
        self._ended, self._error, there = threading.Event(), None, threading.Event()
        self._thread = threading.Thread(target=self._run, args=(self._ended, there), name=self.name, daemon=True)
        self._thread.start()
        if not there.wait(timeout) or self._error is not None:
            self._ended.set()
            why = f"no frame within {timeout:g} s" if self._error is None else f"{self._error}"
            raise RobotUnavailable(f"Camera '{self.name}' cannot be opened: {why}; is another program using it?")

    def latest(self, count: int = 1) -> tuple[Frames, Array]:
        """Give the newest frames.

        Raises:
            CameraLost: There is none.
        """
        found = last_frames(self._kept, count, self.name)
        if self._error is not None:
            raise CameraLost(f"Camera '{self.name}' stopped ({self._error}); look after its cable.")
        return found

    def close(self) -> None:
        """Disconnect."""
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join(FAREWELL)
        self._kept.clear()

    def _run(self, ended: threading.Event, there: threading.Event) -> None:
        try:
            if not self.camera.is_connected:
                self.camera.connect()
            while not ended.is_set():
                with suppress(TimeoutError):  # a camera that stays away shows by the age of its newest frame
                    frame = np.asarray(self.camera.async_read(timeout_ms=500), np.uint8)
                    self._kept.append((self.clock() - self.latency, frame))
                    there.set()
        except Exception as error:  # of any driver
            self._error = error
            there.set()
        with suppress(Exception):
            self.camera.disconnect()
