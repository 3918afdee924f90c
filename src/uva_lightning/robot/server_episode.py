"""The recording of the episode that runs: what has to be written when, and what to do when it cannot be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from uva_lightning.robot.arm import JointTrajectory
from uva_lightning.robot.arm_model import ArmModel
from uva_lightning.robot.camera import Camera, Frames
from uva_lightning.robot.driver import Event, Status
from uva_lightning.robot.errors import CameraLost, RobotError
from uva_lightning.robot.operator import Label
from uva_lightning.robot.recorder_rows import asked_row


class Recording(Protocol):
    """One episode that is being written."""

    folder: Path

    def step(self, row: Mapping[str, Any]) -> None:
        """Write a row."""

    def frame(self, camera: str, picture: Frames, time: float) -> None:
        """Write a picture u8[H, W, 3]."""

    def event(self, kind: str, text: str, time: float, **numbers: float) -> None:
        """Write an event."""

    def end(self, label: Label, reason: str) -> Path:
        """Finish it; give its folder."""

    def abort(self, reason: str) -> None:
        """Finish what is left of it."""


class Recorder(Protocol):
    """What makes recordings."""

    def begin(self, meta: Mapping[str, Any]) -> Recording:
        """Begin one.

        Raises:
            RobotError: It cannot be written.
        """


class Episodes:
    """Record one episode after the other, or none at all.

    Args:
        recorder: Nothing is recorded without one.
        model: Of the arm.
        cameras: Connected ones.
        period: Between two rows, and two looks at the cameras, s.
    """

    def __init__(
        self, recorder: Recorder | None, model: ArmModel, cameras: Sequence[Camera] = (), period: float = 0.05
    ) -> None:
        self.recorder, self.model, self.cameras, self.period = recorder, model, tuple(cameras), period
        self.recording: Recording | None = None
        self._finisher = ThreadPoolExecutor(1, "uva-arm-finish")  # a disk may take its time, an arm may not wait
        self._finishing: Future[Path] | None = None
        self._due, self._seen, self._measured = float("-inf"), dict[str, float](), float("-inf")

    def begin(self, meta: Mapping[str, Any], now: float) -> str:
        """Begin an episode; give its name, empty if nothing is recorded. One that was left open is ended as invalid.

        Raises:
            RobotError: It cannot be recorded.
        """
        self.end(Label.INVALID, "the next one began")
        self._finishing = None
        self._due, self._seen, self._measured = now, {}, float("-inf")
        if self.recorder is None:
            return ""
        self.recording = self.recorder.begin(meta)
        return self.recording.folder.stem

    def tick(self, status: Status, now: float) -> None:
        """Write what is new.

        Raises:
            RobotError: It cannot be written.
        """
        if self.recording is None or now < self._due:
            return
        self._due = now + self.period
        state = status.state
        if state is not None and state.time > self._measured:
            self._measured = state.time
            self.recording.step(
                {
                    "time": state.time,
                    "mode": status.mode.value,
                    "q": state.q,
                    "velocity": state.velocity,
                    "torque": state.torque,
                    "eef": self.model.chain.forward(state.q),
                    "opening": state.opening,
                    "sent_q": None if status.set_point is None else status.set_point[:-1],
                    "sent_opening": None if status.set_point is None else status.set_point[-1],
                }
            )
        for camera in self.cameras:
            self._look(self.recording, camera)

    def asked(self, trajectory: JointTrajectory, now: float, rejected: str | None, clipped: Sequence[int] = ()) -> None:
        """Write what a client asked for, why it was refused, if it was, and which way-points were changed.

        Raises:
            RobotError: It cannot be written.
        """
        if self.recording is not None:
            self.recording.step(asked_row(trajectory, now, rejected, clipped))

    def event(self, event: Event) -> None:
        """Write an event.

        Raises:
            RobotError: It cannot be written.
        """
        if self.recording is not None:
            self.recording.event(event.kind, event.text, event.time)

    def end(self, label: Label, reason: str) -> None:
        """Begin to finish the recording of the episode, if there is one."""
        recording, self.recording = self.recording, None
        if recording is not None:
            self._finishing = self._finisher.submit(recording.end, label, reason)

    def finished(self) -> tuple[bool, str]:
        """Tell whether the last recording is on the disk, and in which folder, empty if nothing was recorded.

        Raises:
            RobotError: It could not be finished; what was written stays readable.
        """
        if self._finishing is None:
            return True, ""
        return (True, str(self._finishing.result())) if self._finishing.done() else (False, "")

    def close(self) -> None:
        """Finish what is left."""
        self.end(Label.INVALID, "the server ends")
        self._finisher.shutdown(wait=True)

    def abort(self, reason: str) -> None:
        """Leave what was written, after an error of the recording itself; never raises one."""
        recording, self.recording = self.recording, None
        if recording is not None:
            try:
                recording.abort(reason)
            except (RobotError, OSError):  # the first error was told already
                return

    def _look(self, recording: Recording, camera: Camera) -> None:
        try:
            frames, times = camera.latest(1)
        except CameraLost:  # told to whoever observes
            return
        if times[-1] > self._seen.get(camera.name, -np.inf):
            self._seen[camera.name] = float(times[-1])
            recording.frame(camera.name, frames[-1], float(times[-1]))
