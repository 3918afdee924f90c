"""What a policy sees: frames and its own gripper at the same past moments, as in the data it learnt from."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from uva_lightning.robot.arm import ArmState
from uva_lightning.robot.camera import Camera, Frames
from uva_lightning.robot.chain import Array, Chain
from uva_lightning.robot.errors import RobotConfigError
from uva_lightning.robot.tool_poses import proprioception, tool_pose

Observation = Mapping[str, Mapping[str, NDArray[Any]]]
"""``video``: u8[1, t, H, W, 3] per camera; ``state``: f32[1, n, p] per entry of ``tool_poses.proprioception``."""
MEASUREMENTS = 64
"""Newest ones that are kept to find where the arm was when a frame was taken."""


@dataclass(frozen=True)
class History:
    """Which moments a policy sees; the defaults are UVA's.

    Args:
        frames: Pictures of each camera.
        stride: Steps between two of them.
        states: Moments of proprioception: ``frames``, those of the pictures, or another number, every step.
        image_side: Pictures are resized by their shorter side and cropped to so many px in the middle; None leaves
            them.
    """

    frames: int = 4
    stride: int = 4
    states: int = 4
    image_side: int | None = 224

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value is not None and value < 1:
                raise RobotConfigError(f"history.{name} is {value}, expected at least 1.")


@dataclass(frozen=True)
class Sight:
    """One moment.

    Args:
        time: When the first of the frames was taken, s.
        frames: u8[H, W, 3] per camera.
        q: Angles f64[j] at that time, rad.
        pose: Tool pose f64[4, 4] at that time.
        opening: Of the gripper at that time, m.
    """

    time: float
    frames: Mapping[str, Frames]
    q: Array
    pose: Array
    opening: float


class Watcher:
    """Gather the moments of an episode.

    Args:
        cameras: Connected ones.
        chain: Of the arm.
        history: Which moments a policy sees.
        period: Of a step, s.

    Raises:
        RobotConfigError: There is no camera, or two have one name.
    """

    def __init__(self, cameras: Sequence[Camera], chain: Chain, history: History, period: float) -> None:
        names = [camera.name for camera in cameras]
        if not names or len(set(names)) < len(names):
            raise RobotConfigError(f"The cameras are {names}, expected at least one, each with its own name.")
        self.cameras, self.chain, self.history, self.period = tuple(cameras), chain, history, period
        self.reset()

    def reset(self) -> None:
        """Forget all: another episode begins."""
        steps = max(1 + self.history.stride * (self.history.frames - 1), self.history.states)
        self._sights = deque[Sight](maxlen=2 * steps)  # twice: it may look more often while it waits
        self._states = deque[tuple[float, Array]](maxlen=MEASUREMENTS)
        self._begin: Array | None = None

    def look(self, state: ArmState) -> Sight:
        """Add this moment.

        Raises:
            CameraLost: A camera gives no picture.
        """
        if not self._states or state.time > self._states[-1][0]:
            self._states.append((state.time, np.append(state.q, state.opening)))
        taken = {camera.name: camera.latest(1) for camera in self.cameras}
        time = min(float(times[-1]) for _, times in taken.values())
        moments = np.array([moment for moment, _ in self._states])
        places = np.stack([place for _, place in self._states])
        place = np.array([np.interp(time, moments, column) for column in places.T])
        pose = tool_pose(self.chain.forward(place[:-1]))
        frames = {name: squared(frames[-1], self.history.image_side) for name, (frames, _) in taken.items()}
        sight = Sight(time, frames, place[:-1], pose, float(place[-1]))
        if not self._sights or time > self._sights[-1].time:
            self._sights.append(sight)
        self._begin = pose if self._begin is None else self._begin
        return sight

    def observation(self) -> Observation:
        """Give the history at the wanted distances of time, filled up with the oldest at the begin of an episode."""
        if not self._sights or self._begin is None:
            raise ValueError("Nothing was seen in this episode yet; look first.")
        shown = self._back(self._sights, self.history.frames, self.history.stride)
        felt = shown if len(shown) == self.history.states else self._back(self._sights, self.history.states, 1)
        poses = np.stack([sight.pose for sight in felt])
        state = proprioception(poses, np.array([sight.opening for sight in felt]), self._begin)
        video = {camera.name: np.stack([sight.frames[camera.name] for sight in shown]) for camera in self.cameras}
        return {
            "video": {name: frames[None] for name, frames in video.items()},
            "state": {name: values[None].astype(np.float32) for name, values in state.items()},
        }

    def _back(self, sights: Sequence[Sight], count: int, stride: int) -> list[Sight]:
        """Find those nearest to so many moments, so many steps apart, the newest last."""
        times = np.array([sight.time for sight in sights])
        wanted = times[-1] - stride * self.period * np.arange(count - 1, -1, -1)
        return [sights[int(number)] for number in np.abs(times - wanted[:, None]).argmin(axis=1)]


def squared(frame: Frames, side: int | None) -> Frames:
    """Resize u8[H, W, 3] by its shorter side and keep the middle, u8[side, side, 3]; all of it if side is None."""
    if side is None or frame.shape[:2] == (side, side):
        return frame
    height, width = frame.shape[:2]
    scale = side / min(height, width)
    size = (max(side, round(width * scale)), max(side, round(height * scale)))
    small = np.asarray(Image.fromarray(frame).resize(size, Image.Resampling.BILINEAR))
    top, left = (small.shape[0] - side) // 2, (small.shape[1] - side) // 2
    return small[top : top + side, left : left + side]
