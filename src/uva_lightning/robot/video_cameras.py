"""Cameras that decode: a recording that is played again, and a USB camera of Linux, both by PyAV."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from uva_lightning.robot.camera import Camera, Frames, at_least_one, last_frames
from uva_lightning.robot.chain import Array
from uva_lightning.robot.errors import CameraLost, RobotConfigError, RobotUnavailable

KEPT = 128
"""Frames of a USB camera that are kept."""


class ReplayCamera(Camera):
    """Play a recording, beginning when it is connected.

    Args:
        recording: MP4 or what else PyAV reads, or frames u8[n, H, W, 3].
        times: Of the frames f64[n], s; those in the file if not given.
        name: Of the camera.
        latency: s.
        clock: Gives the time in s; the machine's own if not given.

    Raises:
        RobotConfigError: It cannot be read, or the times do not fit the frames.
        ImportError: A file is given and PyAV is not installed.
    """

    def __init__(
        self,
        recording: Path | str | Frames,
        times: Array | None = None,
        name: str = "wrist",
        latency: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if isinstance(recording, np.ndarray):
            frames, known = recording, times
        else:
            frames, known = _read(Path(recording))
            known = known if times is None else times
        if frames.ndim != 4 or frames.shape[-1] != 3 or frames.dtype != np.uint8 or len(frames) < 1:
            raise RobotConfigError(f"The recording is {frames.dtype} of {frames.shape}, expected uint8 [n, H, W, 3].")
        moments = np.zeros(0) if known is None else np.asarray(known, float)
        if moments.shape != (len(frames),) or not np.isfinite(moments).all() or (np.diff(moments) <= 0).any():
            raise RobotConfigError(
                f"The recording of camera '{name}' has {len(frames)} frames and times of shape {moments.shape}, "
                "expected one ascending time per frame."
            )
        self.name, self.latency, self.clock = name, latency, clock
        self.height, self.width = frames.shape[1:3]
        self._frames, self._times = frames, moments - moments[0]
        self._begin: float | None = None

    def connect(self, timeout: float) -> None:
        """Begin to play; the first frame is taken now."""
        if self._begin is None:
            self._begin = self.clock() - self.latency

    def latest(self, count: int = 1) -> tuple[Frames, Array]:
        """Give the newest frames of those played by now; after the end the last ones get old."""
        if self._begin is None:
            raise CameraLost(f"Camera '{self.name}' is not connected; connect it first.")
        played = self.clock() - self.latency - self._begin
        last = max(1, int(np.searchsorted(self._times, played + 1e-9, side="right")))
        some = slice(max(0, last - at_least_one(count)), last)
        return self._frames[some], self._times[some] + self._begin

    def close(self) -> None:
        """Stop playing."""
        self._begin = None


class UvcCamera(Camera):
    """A USB camera or capture card of Linux (Video4Linux), read by a thread of its own.

    Args:
        device: Such as ``/dev/v4l/by-id/...``, which stays the same when it is plugged in again.
        name: Of the camera.
        width: That it is asked for, px.
        height: That it is asked for, px.
        rate_hz: That it is asked for.
        latency: From the capture to the arrival, s: 0.17 with a GoPro on an HDMI card (UMI), less by USB alone.
        pixels: Format it is asked for, as FFmpeg calls it; ``mjpeg`` where USB is too slow for raw frames.
        clock: Gives the time in s; the machine's own if not given.
    """

    def __init__(
        self,
        device: str,
        name: str = "wrist",
        width: int = 640,
        height: int = 480,
        rate_hz: float = 30.0,
        latency: float = 0.17,
        pixels: str = "mjpeg",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name, self.width, self.height, self.latency = name, width, height, latency
        self.device, self.rate_hz, self.pixels, self.clock = device, rate_hz, pixels, clock
        self._kept: deque[tuple[float, Frames]] = deque(maxlen=KEPT)
        self._stop, self._reader = threading.Event(), threading.Thread()
        self._error: Exception | None = None

    def connect(self, timeout: float) -> None:
        """Open the device and wait for the first frame.

        Raises:
            RobotUnavailable: There is no such device, or it gives no frame in time.
            ImportError: PyAV is not installed.
        """
        if self._reader.is_alive():
            return
        av = _av()
        options = {"video_size": f"{self.width}x{self.height}", "framerate": f"{self.rate_hz:g}"}
        options["input_format"] = self.pixels
        try:
            container = av.open(self.device, format="v4l2", options=options, timeout=(timeout, timeout))
        except (OSError, ValueError) as error:
            raise RobotUnavailable(
                f"Camera '{self.name}' at {self.device} cannot be opened ({error}), expected a Video4Linux device with "
                f"{self.width}x{self.height} px at {self.rate_hz:g} Hz as {self.pixels}; v4l2-ctl --list-formats-ext "
                "lists what it can."
            ) from error
        self._kept.clear()
        self._stop, self._error = threading.Event(), None
        self._reader = threading.Thread(target=self._read, args=(container, self._stop), name=self.name, daemon=True)
        self._reader.start()
        end = time.monotonic() + timeout
        while not self._kept:
            if time.monotonic() > end or not self._reader.is_alive():
                self.close()
                raise RobotUnavailable(
                    f"Camera '{self.name}' at {self.device} gives no frame within {timeout:g} s"
                    f"{'' if self._error is None else f' ({self._error})'}; is another program using it?"
                )
            time.sleep(0.01)

    def latest(self, count: int = 1) -> tuple[Frames, Array]:
        """Give the newest frames that have arrived."""
        found = last_frames(self._kept, count, self.name)
        if self._error is not None:
            raise CameraLost(f"Camera '{self.name}' stopped ({self._error}); look after its cable.")
        return found

    def close(self) -> None:
        """Stop reading; the thread closes the device."""
        self._stop.set()
        if self._reader.is_alive():
            self._reader.join(timeout=1.0)
        self._kept.clear()

    def _read(self, container: Any, stop: threading.Event) -> None:
        try:
            with container:
                for frame in container.decode(video=0):
                    if stop.is_set():
                        return
                    moment = self.clock() - self.latency
                    if self._kept and moment <= self._kept[-1][0]:
                        continue  # two arrived at once: times must ascend
                    self._kept.append((moment, frame.to_ndarray(format="rgb24")))
            self._error = RuntimeError("its stream ended")
        except (OSError, ValueError) as error:
            self._error = error


def _read(path: Path) -> tuple[Frames, Array]:
    """Decode all frames u8[n, H, W, 3] of a file and their times f64[n] in s."""
    av = _av()
    try:
        with av.open(str(path)) as container:
            pairs = list(_decoded(container))
    except (OSError, ValueError, IndexError) as error:
        raise RobotConfigError(f"{path} cannot be played ({error}), expected a video such as MP4.") from error
    if not pairs:
        raise RobotConfigError(f"{path} has no frames, expected a video.")
    return np.stack([frame for frame, _ in pairs]), np.array([moment for _, moment in pairs])


def _decoded(container: Any) -> Iterator[tuple[Frames, float]]:
    for frame in container.decode(video=0):
        yield frame.to_ndarray(format="rgb24"), float(frame.time)


def _av() -> Any:
    try:
        import av
    except ImportError as error:
        raise ImportError(f"Videos need PyAV ({error}); install it with pip install 'uva_lightning[sim]'.") from error
    return av
