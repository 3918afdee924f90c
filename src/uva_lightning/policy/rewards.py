"""What a planner wants: rewards of imagined futures."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from uva_lightning.policy.imagination import Futures
from uva_lightning.policy.windows import Frames

Score = Callable[[Frames, Futures], NDArray[np.float64]]
"""Judges futures u8[k, b, t, H, W, 3] by camera, after the past u8[b, t, H, W, 3]: f64[k, b], high is good."""
BYTE = 255


class Reward(ABC):
    """Judges futures; a plain function does too, see ``Score``."""

    margin: float = 0.0
    """Lead that overrules the most typical proposal, where a planner is given no other."""
    pictures: bool = True
    """Whether it looks at them."""

    @abstractmethod
    def __call__(self, past: Frames, future: Futures) -> NDArray[np.float64]:
        """Judge.

        Args:
            past: u8[b, t, H, W, 3] by camera.
            future: u8[k, b, t, H, W, 3] by camera.

        Returns:
            f64[k, b], high is good.
        """


class PixelGoal(Reward):
    """Nearness of the last frame to a goal picture: minus the root mean square of the difference, in grey levels.

    Args:
        picture: The goal, in the size of the model's frames; where it is transparent, it does not matter.
        camera: Which sees it; the first one if not given.
    """

    def __init__(self, picture: Path | str, camera: str | None = None) -> None:
        if not Path(picture).is_file():
            raise ValueError(f"There is no picture {picture}, expected the goal as a PNG or JPEG file.")
        with Image.open(picture) as opened:
            pixels = np.asarray(opened.convert("RGBA"), dtype=np.float32)
        self.picture, self.camera = picture, camera
        self.goal, weight = pixels[..., :3], pixels[..., 3:] / BYTE
        if not weight.any():
            raise ValueError(f"{picture} is transparent all over, expected a picture of the goal.")
        self.weight = weight / weight.mean()

    def __call__(self, past: Frames, future: Futures) -> NDArray[np.float64]:
        """See the base class."""
        frames = future[camera_of(self.camera, future)][:, :, -1]  # u8[k, b, H, W, 3]
        if frames.shape[2:] != self.goal.shape:
            raise ValueError(
                f"{self.picture} is {list(self.goal.shape[:2])} (height, width), the frames are "
                f"{list(frames.shape[2:4])}; resize it."
            )
        error = self.weight * (frames - self.goal) ** 2
        distance: NDArray[np.float64] = np.sqrt(error.mean(axis=(2, 3, 4), dtype=np.float64))
        return -distance


class TrueReward(Reward):
    """The environment's own reward, mean of all steps; for futures of the simulator."""

    pictures = False

    def __call__(self, past: Frames, future: Futures) -> NDArray[np.float64]:
        """See the base class."""
        if future.rewards is None:
            raise ValueError(
                "TrueReward judges futures that are imagined, expected those of the simulator; set imagination to "
                "Simulator, or give another reward."
            )
        mean: NDArray[np.float64] = future.rewards.mean(axis=-1)
        return mean


def camera_of(wanted: str | None, frames: Frames) -> str:
    """Find the camera that is judged, the first one if none is named.

    Raises:
        ValueError: It has no frames.
    """
    camera = next(iter(frames)) if wanted is None else wanted
    if camera not in frames:
        raise ValueError(f"camera is '{camera}', the futures show {', '.join(frames)}; choose one of these.")
    return camera
