"""What a simulated world looks like now, in a file that other processes map: places of all joints, and their time.

One process writes, any number read. Who writes waits for nobody; a reader that meets a write in progress looks again.
"""

from __future__ import annotations

import mmap
import struct
import time
from pathlib import Path

import numpy as np

from uva_lightning.robot.chain import Array
from uva_lightning.robot.errors import CameraLost, RobotConfigError
from uva_lightning.whole_files import whole

HEAD = struct.Struct("<Qd")
"""Number of the write, odd while it goes on; time in s."""
COUNT = struct.Struct("<Q")
TRIES, PAUSE = 200, 0.001
"""Looks at a file that is being written at each of them, after which something is wrong, and s between them: whoever
writes may have lost the processor in the middle."""


class SceneWriter:
    """Write places as time passes.

    Args:
        path: File; what was there before is replaced.
        size: How many numbers.

    Raises:
        RobotConfigError: It cannot be written.
    """

    def __init__(self, path: Path, size: int) -> None:
        try:
            with whole(path) as part:  # another process may still have the one before mapped
                part.write_bytes(bytes(HEAD.size + 8 * size))
            with path.open("r+b") as file:
                self._memory = mmap.mmap(file.fileno(), HEAD.size + 8 * size)
        except OSError as error:
            raise RobotConfigError(
                f"The scene cannot be written to {path} ({error}), expected a place for a new file; set world.scene."
            ) from error
        self._number = 0

    def write(self, time: float, places: Array) -> None:
        """Write the places f64[size] at a time in s."""
        COUNT.pack_into(self._memory, 0, self._number + 1)
        self._memory[HEAD.size :] = np.ascontiguousarray(places, np.float64).tobytes()
        HEAD.pack_into(self._memory, 0, self._number + 1, time)
        self._number += 2
        COUNT.pack_into(self._memory, 0, self._number)


class SceneReader:
    """Read them in another process.

    Args:
        path: File that is written there.
        size: How many numbers.

    Raises:
        CameraLost: There is no such file yet, or it is of another world.
    """

    def __init__(self, path: Path, size: int) -> None:
        self.path, self.size = path, size
        try:
            with path.open("rb") as file:
                self._memory = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except (OSError, ValueError) as error:
            raise CameraLost(
                f"There is no scene at {path} ({error}), expected the file that the simulation's world.scene names."
            ) from error
        if len(self._memory) != HEAD.size + 8 * size:
            raise CameraLost(
                f"{path} has {len(self._memory)} bytes, expected {HEAD.size + 8 * size}; is the camera's model that of "
                "the simulation?"
            )

    def read(self) -> tuple[float, Array]:
        """Give time in s and places f64[size] of the newest write.

        Raises:
            CameraLost: Nothing was written yet, or no whole one can be had.
        """
        for _ in range(TRIES):
            number, moment = HEAD.unpack_from(self._memory)
            places = np.frombuffer(self._memory[HEAD.size :], np.float64)
            if number and number % 2 == 0 and COUNT.unpack_from(self._memory)[0] == number:
                return moment, places
            time.sleep(PAUSE)
        raise CameraLost(f"{self.path} holds no whole scene, expected one at any time; has the simulation begun?")
