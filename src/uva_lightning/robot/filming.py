"""Films of episodes, from the pictures that the policy saw."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from uva_lightning.robot.benches.base import Recording
from uva_lightning.robot.camera import Camera, Frames
from uva_lightning.robot.chain import Array
from uva_lightning.robot.evaluator_job import FILM
from uva_lightning.robot.sight import squared
from uva_lightning.video_files import gif_bytes, side_by_side, write_mp4
from uva_lightning.whole_files import whole

SIDE, MOST = 128, 80
"""Of the small film for TensorBoard: px of a picture, and pictures."""
KEPT = 600
"""Pictures of an episode that are kept, to bound the memory."""


class Filmed(Camera):
    """A camera that keeps one picture for every time at which it was looked at.

    Args:
        camera: That takes them.
    """

    recording: Recording | None = None
    """Gets them too."""

    def __init__(self, camera: Camera) -> None:
        self.camera, self.name, self.latency = camera, camera.name, camera.latency
        self.width, self.height = camera.width, camera.height
        self.begin()

    def begin(self) -> None:
        """Forget the episode before."""
        self.frames: list[Frames] = []
        self._last = -np.inf

    def connect(self, timeout: float) -> None:
        """Open it."""
        self.camera.connect(timeout)

    def latest(self, count: int = 1) -> tuple[Frames, Array]:
        """Give the newest frames, and keep the newest."""
        frames, times = self.camera.latest(count)
        if times[-1] > self._last:
            self._last = float(times[-1])
            if len(self.frames) < KEPT:
                self.frames.append(frames[-1].copy())
            if self.recording is not None:
                self.recording.frame(self.name, frames[-1], self._last)
        return frames, times

    def close(self) -> None:
        """Disconnect."""
        self.camera.close()


def write_films(out: Path, episodes: Sequence[Sequence[Sequence[Frames]]], rate_hz: float) -> list[str]:
    """Write each episode as ``episode_000.mp4``, cameras side by side, and all of them as one small GIF.

    Args:
        out: Folder.
        episodes: For each, the pictures u8[H, W, 3] of each camera.
        rate_hz: Pictures per second.

    Returns:
        Names of the files.
    """
    small, names = [], list[str]()
    for number, cameras in enumerate(episodes):
        shown = [np.stack(frames) for frames in cameras if frames]
        if not shown:
            continue
        height = min(frames.shape[1] for frames in shown)
        film = side_by_side([frames[:, :height] for frames in shown])
        names.append(f"episode_{number:03d}.mp4")
        write_mp4(out / names[-1], film, rate_hz)
        small.append(side_by_side([np.stack([squared(frame, SIDE) for frame in frames]) for frames in shown]))
    if small:
        film = side_by_side(small)
        every = -(-len(film) // MOST)
        with whole(out / FILM) as part:
            part.write_bytes(gif_bytes(film[::every], rate_hz / every))
        names.append(FILM)
    return names
