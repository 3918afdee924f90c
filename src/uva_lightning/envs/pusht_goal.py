"""What a planner can read off imagined Push-T frames: how far the block is from the goal."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from uva_lightning.envs.pusht_draw import Pose
from uva_lightning.envs.pusht_pose import BlockPose
from uva_lightning.envs.pusht_world import GOAL
from uva_lightning.policy.imagination import Futures
from uva_lightning.policy.rewards import Reward
from uva_lightning.policy.windows import Frames

NEAR = 60.0
"""Distance in px below which the small model's imagination ranks proposals worse than the policy's best guess."""


class PushTGoal(Reward):
    """Score futures by how far the block's corners are from their places in the goal, in px, with a minus sign.

    The distance, unlike the environment's coverage, tells proposals apart also where the block does not touch the goal
    and where it lies on it the wrong way round. It is averaged over the poses that a frame may show and over the
    imagined frames. Distances below ``near`` count as ``near``: there the policy decides alone.

    Args:
        goal: Pose of the goal: x, y in px, angle in rad.
        near: Distance in px that is close enough, 0 to judge all the way.
        camera: Camera that is judged.
    """

    margin = 6.0

    def __init__(self, goal: Pose = GOAL, near: float = NEAR, camera: str = "top") -> None:
        if near < 0:
            raise ValueError(f"near is {near} px, expected 0 or more; 0 judges all the way to the goal.")
        self.camera, self.pose = camera, BlockPose()
        self.distance = self.pose.distances(goal).clamp(min=near)

    @torch.inference_mode()
    def __call__(self, past: Frames, future: Futures) -> NDArray[np.float64]:
        """Score futures u8[k, b, t, H, W, 3] of observations with the past u8[b, t, H, W, 3]: f64[k, b] in px."""
        frames = future[self.camera]
        proposals, samples = frames.shape[:2]
        pictures = frames.swapaxes(0, 1).reshape(samples, -1, *frames.shape[3:])  # u8[b, k * t, H, W, 3]
        now = self.pose.find(past[self.camera][:, -1])
        expected = self.pose.expect(pictures, now, self.distance).view(samples, proposals, -1).mean(dim=-1)
        score: NDArray[np.float64] = -expected.T.double().numpy()
        return score
