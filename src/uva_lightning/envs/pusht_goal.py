"""A reward that a planner can read off imagined Push-T frames."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from uva_lightning.envs.pusht_draw import AGENT, AGENT_EDGE, BLOCK, BLOCK_EDGE, GOAL_GREEN, Pose, draw
from uva_lightning.envs.pusht_world import GOAL

SAME_COLOUR = 30.0
"""Distance in RGB below which a pixel has the colour of the goal."""
FLOOR = (255, 255, 255)
POWER = 4
FAR_AWAY = (-500.0, -500.0)


class PushTGoal:
    """Score futures by the share of the goal that the block covers in the picture, raised to the fourth power.

    The share is the environment's reward, read from pixels alone, averaged over the imagined frames. It is a linear
    function of the picture: a blurred frame, the mean of what may happen, is not marked down for being uncertain. The
    power says that finishing counts: far from the goal a little more coverage now is no reason to overrule the policy.

    Args:
        goal: Pose of the goal: x, y in px, angle in rad.
        image_size: Side of the frames in pixels.
        camera: Camera that is judged.
    """

    def __init__(self, goal: Pose = GOAL, image_size: int = 96, camera: str = "top") -> None:
        self.camera = camera
        scene = draw(FAR_AWAY, (*FAR_AWAY, 0.0), goal, image_size).astype(np.float64)
        self.area = np.linalg.norm(scene - np.array(GOAL_GREEN), axis=-1) < SAME_COLOUR  # bool[H, W]
        # The direction in RGB along which the block lies 1 from the bare goal; the agent and the floor lie 0 from it.
        colours = np.array([BLOCK, BLOCK_EDGE, AGENT, AGENT_EDGE, FLOOR], dtype=np.float64) - np.array(GOAL_GREEN)
        direction = np.linalg.lstsq(colours, np.array([1.0, 1.0, 0.0, 0.0, 0.0]), rcond=None)[0]  # f64[3]
        solved = draw(FAR_AWAY, goal, goal, image_size)[self.area].mean(axis=0, dtype=np.float64) - np.array(GOAL_GREEN)
        self.blockness = direction / (solved @ direction)  # a solved scene scores 1

    def __call__(self, frames: Mapping[str, NDArray[np.uint8]]) -> NDArray[np.float64]:
        """Score u8[n, t, H, W, 3]: f64[n] in [0, 1], higher is better."""
        mean = frames[self.camera][:, :, self.area].mean(axis=(1, 2), dtype=np.float64)  # f64[n, 3]
        covered: NDArray[np.float64] = (mean - np.array(GOAL_GREEN)) @ self.blockness
        return covered.clip(0, 1) ** POWER
