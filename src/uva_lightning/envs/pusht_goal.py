"""A reward that a planner can read off imagined Push-T frames."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from uva_lightning.envs.pusht_draw import BLOCK, BLOCK_EDGE, GOAL_GREEN, Pose, draw
from uva_lightning.envs.pusht_world import GOAL

COLOUR_TOLERANCE = 30.0
"""Distance in RGB at which a pixel counts 0.6 as block; block and goal green are 85 apart, block and agent 103."""
FAR_AWAY = (-500.0, -500.0)


class PushTGoal:
    """Score futures by the share of the goal that the block covers in the picture, the best of all imagined frames.

    That is the environment's reward, read from pixels alone. Scores are rounded, so that differences below what the
    model can tell are ties, and the planner then keeps the policy's first proposal.

    Args:
        goal: Pose of the goal: x, y in px, angle in rad.
        image_size: Side of the frames in pixels.
        camera: Camera that is judged.
        resolution: Scores are rounded to multiples of it.
    """

    def __init__(self, goal: Pose = GOAL, image_size: int = 96, camera: str = "top", resolution: float = 0.02) -> None:
        if not resolution > 0:
            raise ValueError(f"resolution is {resolution}, expected a positive share of the goal such as 0.02.")
        self.camera, self.resolution = camera, resolution
        scene = draw(FAR_AWAY, (*FAR_AWAY, 0.0), goal, image_size).astype(np.float32)
        self.area = np.linalg.norm(scene - np.array(GOAL_GREEN), axis=-1) < COLOUR_TOLERANCE  # bool[H, W]

    def __call__(self, frames: Mapping[str, NDArray[np.uint8]]) -> NDArray[np.float64]:
        """Score u8[n, t, H, W, 3]: f64[n], in [0, 1], higher is better."""
        pixels = frames[self.camera][:, :, self.area].astype(np.float32)  # [n, t, pixels, 3]
        distance = np.stack([np.square(pixels - np.array(colour)).sum(axis=-1) for colour in (BLOCK, BLOCK_EDGE)])
        covered = np.exp(-distance.min(axis=0) / (2 * COLOUR_TOLERANCE**2)).mean(axis=-1)  # [n, t]
        best: NDArray[np.float64] = covered.max(axis=1).astype(np.float64)
        return np.round(best / self.resolution) * self.resolution
