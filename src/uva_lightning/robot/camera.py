"""What a camera has to offer: its newest frames and when they were taken; and the check that it still sees."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable

import numpy as np
from numpy.typing import NDArray

from uva_lightning.robot.chain import Array
from uva_lightning.robot.errors import CameraLost, RobotConfigError

Frames = NDArray[np.uint8]
DARK = 2.0
"""Mean brightness, of 255, below which nothing is connected to a capture card, whatever it sends."""


class Camera(ABC):
    """One camera. Subclass it for other hardware; nothing else is needed.

    Times are those of the capture: what the way from the sensor takes, ``latency``, is taken off already.
    """

    name: str
    """As data sets call it."""
    width: int
    """Of its frames, px."""
    height: int
    """Of its frames, px."""
    latency: float
    """From the capture to the arrival, s; measured once at the bench."""

    @abstractmethod
    def connect(self, timeout: float) -> None:
        """Open it; again is harmless.

        Raises:
            RobotUnavailable: It gives no frame within so many seconds.
        """

    @abstractmethod
    def latest(self, count: int = 1) -> tuple[Frames, Array]:
        """Give the newest frames, without waiting.

        Args:
            count: How many; fewer come where it has not taken as many yet, but at least one.

        Returns:
            Frames u8[k, H, W, 3], RGB, the newest last; times of their capture f64[k], ascending, s.

        Raises:
            CameraLost: There is none.
        """

    @abstractmethod
    def close(self) -> None:
        """Disconnect; never raises."""


class FakeCamera(Camera):
    """A square that goes its way over a gradient, for dry runs and tests.

    Args:
        name: Of the camera.
        width: px.
        height: px.
        rate_hz: Frames per second.
        latency: s.
        clock: Gives the time in s; the machine's own if not given.
    """

    def __init__(
        self,
        name: str = "wrist",
        width: int = 64,
        height: int = 48,
        rate_hz: float = 30.0,
        latency: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name, self.width, self.height, self.latency = name, width, height, latency
        self.rate_hz, self.clock = rate_hz, clock
        self._first: int | None = None

    def connect(self, timeout: float) -> None:
        """It is always there, and takes its first frame now."""
        if self._first is None:
            self._first = self._newest()

    def latest(self, count: int = 1) -> tuple[Frames, Array]:
        """Draw what it would have taken by now."""
        if self._first is None:
            raise CameraLost(f"Camera '{self.name}' is not connected; connect it first.")
        newest = max(self._first, self._newest())
        numbers = np.arange(max(self._first, newest - at_least_one(count) + 1), newest + 1)
        return np.stack([self.picture(int(number)) for number in numbers]), numbers / self.rate_hz

    def picture(self, number: int) -> Frames:
        """Draw one frame u8[H, W, 3]; each differs from the one before."""
        down, right = np.mgrid[: self.height, : self.width]
        frame = np.stack((right * 255 // self.width, down * 255 // self.height, np.full_like(right, 64)), axis=-1)
        side = max(2, min(self.width, self.height) // 6)
        left, top = number * 2 % (self.width - side), number % (self.height - side)
        frame[top : top + side, left : left + side] = 255
        return frame.astype(np.uint8)

    def close(self) -> None:
        """Take no more frames."""
        self._first = None

    def _newest(self) -> int:
        return int(np.floor((self.clock() - self.latency) * self.rate_hz + 1e-9))


class FreshCamera(Camera):
    """A camera that is checked whenever it is read: one that has frozen is worse than none.

    Args:
        camera: What is checked.
        age: Of the newest frame, from which on it counts as lost, s.
        frozen: For which the pixels may stay the very same, s; sensors have noise, so only a capture card without a
            picture repeats them. None for a camera without noise.
        clock: Same as that of the camera's times.

    Raises:
        RobotConfigError: A time is not positive.
    """

    def __init__(
        self,
        camera: Camera,
        age: float = 0.5,
        frozen: float | None = 1.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        for what, value in (("age", age), ("frozen", 1.0 if frozen is None else frozen)):
            if not 0 < value < float("inf"):
                raise RobotConfigError(f"{what} of camera '{camera.name}' is {value} s, expected a positive number.")
        self.camera, self.age, self.frozen, self.clock = camera, age, frozen, clock
        self.name, self.width, self.height, self.latency = camera.name, camera.width, camera.height, camera.latency
        self._last: tuple[float, Frames] | None = None  # when these pixels were first seen

    def connect(self, timeout: float) -> None:
        """Open it."""
        self.camera.connect(timeout)
        self._last = None

    def latest(self, count: int = 1) -> tuple[Frames, Array]:
        """Give the newest frames, if they are ones.

        Raises:
            CameraLost: They are old, dark, the same for long, of another size, or not in order.
        """
        frames, times = self.camera.latest(count)
        self._check_form(frames, times)
        age = self.clock() - float(times[-1])
        if age > self.age:
            raise CameraLost(
                f"The newest frame of camera '{self.name}' is {age:.2f} s old, expected at most {self.age:g} s; "
                "look after its cable."
            )
        if frames[-1].mean() < DARK:
            raise CameraLost(
                f"Camera '{self.name}' sends black frames (mean {frames[-1].mean():.1f} of 255), expected at least "
                f"{DARK:g}; is its lens covered, or nothing connected to the capture card?"
            )
        self._check_change(frames, times)
        return frames, times

    def close(self) -> None:
        """Disconnect."""
        self.camera.close()

    def _check_form(self, frames: Frames, times: Array) -> None:
        expected = (len(times), self.height, self.width, 3)
        if len(times) < 1 or frames.shape != expected or frames.dtype != np.uint8:
            raise CameraLost(
                f"Camera '{self.name}' gives {frames.dtype} of shape {frames.shape}, expected uint8 of {expected}; "
                "its width and height are others than configured."
            )
        if not np.isfinite(times).all() or (np.diff(times) <= 0).any():
            raise CameraLost(f"Times of camera '{self.name}' do not ascend: {times.round(3).tolist()}.")

    def _check_change(self, frames: Frames, times: Array) -> None:
        newest, moment = frames[-1], float(times[-1])
        if self._last is None or not np.array_equal(newest, self._last[1]):
            self._last = (moment, newest.copy())
        elif self.frozen is not None and moment - self._last[0] > self.frozen:
            raise CameraLost(
                f"Camera '{self.name}' shows the very same picture for {moment - self._last[0]:.2f} s, expected noise "
                f"within {self.frozen:g} s; its stream hangs."
            )


def last_frames(kept: Iterable[tuple[float, Frames]], count: int, name: str) -> tuple[Frames, Array]:
    """Give the last of the frames that a camera keeps: u8[n, H, W, 3] and their times f64[n], s.

    Raises:
        CameraLost: There is none.
        ValueError: None is asked for.
    """
    last = list(kept)[-at_least_one(count) :]
    if not last:
        raise CameraLost(f"Camera '{name}' has no frame; connect it first.")
    return np.stack([frame for _, frame in last]), np.array([moment for moment, _ in last])


def at_least_one(count: int) -> int:
    """Refuse to give no frame."""
    if count < 1:
        raise ValueError(f"count is {count}, expected at least one frame.")
    return count
