"""A reward that a planner can read off imagined Push-T frames."""

from __future__ import annotations

from collections.abc import Mapping

import cv2
import numpy as np
from numpy.typing import NDArray

from uva_lightning.envs.pusht_draw import BLOCK, BLOCK_EDGE, GOAL_GREEN, Pose, draw
from uva_lightning.envs.pusht_world import GOAL, WORLD_SIZE

COLOUR_TOLERANCE = 30.0
"""Distance in RGB at which a pixel is half as much block, about a quarter of that between block and goal green."""
FAR_AWAY = (-500.0, -500.0)


class PushTGoal:
    """Score futures by how near the pixels of the block lie to the goal.

    The score is minus the mean distance, in px of the world, of the block's pixels to the goal area in the last frame;
    0 is a block that covers the goal. It needs no knowledge of the simulator's state.

    Args:
        goal: Pose of the goal: x, y in px, angle in rad.
        image_size: Side of the frames in pixels.
        camera: Camera that is judged.
    """

    def __init__(self, goal: Pose = GOAL, image_size: int = 96, camera: str = "top") -> None:
        self.camera = camera
        scene = draw(FAR_AWAY, (*FAR_AWAY, 0.0), goal, image_size).astype(np.float32)
        outside = (np.linalg.norm(scene - GOAL_GREEN, axis=-1) > COLOUR_TOLERANCE).astype(np.uint8)
        self.distance = cv2.distanceTransform(outside, cv2.DIST_L2, 5) * (WORLD_SIZE / image_size)

    def __call__(self, frames: Mapping[str, NDArray[np.uint8]]) -> NDArray[np.float64]:
        """Score u8[n, t, H, W, 3]: f64[n], higher is better."""
        last = frames[self.camera][:, -1].astype(np.float32)
        blockness = np.zeros(last.shape[:3], dtype=np.float32)
        for colour in (BLOCK, BLOCK_EDGE):
            error = np.square(last - np.array(colour, dtype=np.float32)).sum(axis=-1)
            blockness = np.maximum(blockness, np.exp(-error / (2 * COLOUR_TOLERANCE**2)))
        weight = blockness.sum(axis=(1, 2)).clip(min=1e-6)
        return -(blockness * self.distance).sum(axis=(1, 2)).astype(np.float64) / weight
