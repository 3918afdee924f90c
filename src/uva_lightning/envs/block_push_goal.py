"""What a planner can read off imagined frames of block pushing: how far the blocks still have to go."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from uva_lightning.envs.block_push import CLASSES
from uva_lightning.envs.block_push_draw import AGENT, BLOCK_COLOURS, draw_empty
from uva_lightning.envs.block_push_world import SQUARES
from uva_lightning.envs.pusht_world import WORLD_SIZE
from uva_lightning.policy.imagination import Futures
from uva_lightning.policy.rewards import Reward
from uva_lightning.policy.windows import Frames

REACH = 330.0
"""Distance in px that agent and blocks move at most in a chunk of 16 steps."""
LEAST = 0.3
"""Share of a colour in a pixel below which it is taken for an error of the picture."""
OTHER_WEIGHT = 0.5
"""What a px of the other block's way counts, in px of the asked block's."""

Points = NDArray[np.float64]


class BlockPushGoal(Reward):
    """Score futures by the way that is left in the last frame, in px, with a minus sign.

    That is the distance of the asked block from the asked square, and half that of the other block from the other
    square, which has to be left free for it: who has pushed the other block into the asked square has chosen another
    goal. Places are read off the pictures: each pixel is taken as a mixture of the empty plane, the two blocks' colours
    and the agent's, and the centre of a colour's share is where the thing is; of a blurred frame, the mean of what may
    happen, that is the mean place.

    Args:
        goal: Which block into which square: ``R-R``, ``R-G``, ``G-R`` or ``G-G``.
        camera: Camera that is judged.
    """

    margin = 10.0

    def __init__(self, goal: str, camera: str = "top") -> None:
        if goal not in CLASSES:
            raise ValueError(f"goal is {goal!r}, expected one of {', '.join(CLASSES)}, block first.")
        self.camera, (block, square) = camera, CLASSES[goal]
        self.squares = SQUARES[[square, 1 - square]] if block == 0 else SQUARES[[1 - square, square]]
        self.weights = np.where(np.arange(2) == block, 1.0, OTHER_WEIGHT)

    def __call__(self, past: Frames, future: Futures) -> NDArray[np.float64]:
        """Score futures u8[k, b, t, H, W, 3] of observations with the past u8[b, t, H, W, 3]: f64[k, b] in px."""
        now = places(past[self.camera][:, -1])
        last = future[self.camera][:, :, -1]
        there = places(last.reshape(-1, *last.shape[2:]), np.tile(now, (len(last), 1, 1)))[:, :2]  # f64[k * b, 2, 2]
        score: NDArray[np.float64] = -np.linalg.norm(there - self.squares, axis=-1) @ self.weights
        return score.reshape(last.shape[:2])


def places(pictures: NDArray[np.uint8], around: Points | None = None) -> Points:
    """Find the red block, the green block and the agent in pictures, sharp or imagined.

    Args:
        pictures: u8[n, H, W, 3].
        around: Where they are looked for, f64[n, 3, 2] in px, within ``REACH``; everywhere if not given.

    Returns:
        Their centres, f64[n, 3, 2], x and y in px of the world; those of ``around`` for what is not seen.
    """
    size = pictures.shape[1]
    axis = (np.arange(size) + 0.5) * WORLD_SIZE / size
    differs, unmixing = pictures.astype(np.float32) - draw_empty(size), _unmixing(size)
    shares = sum(differs[..., colour, None] * unmixing[:, :, colour] for colour in range(3))  # f32[n, H, W, 3]
    shares = np.where(shares > LEAST, shares, 0.0).clip(max=1.0)
    if around is not None:
        near = np.abs(axis[:, None] - around[:, None, :, :].transpose(0, 3, 1, 2)) < REACH  # bool[n, 2, size, 3]
        shares = shares * near[:, 1, :, None] * near[:, 0, None]
    grid = np.stack([*np.meshgrid(axis, axis), np.ones((size, size))], axis=-1).astype(np.float32)
    sums = shares.reshape(len(shares), -1, 3).swapaxes(1, 2) @ grid.reshape(-1, 3)  # x, y and 1, f32[n, 3, 3]
    mass, centres = sums[..., 2], sums[..., :2].astype(np.float64) / np.maximum(sums[..., 2:], 1e-6)
    fallback = np.full_like(centres, WORLD_SIZE / 2) if around is None else around
    found: Points = np.where(mass[..., None] > 1, centres, fallback)
    return found


def _unmixing(size: int) -> NDArray[np.float32]:
    """Turn a pixel's difference from the empty plane into shares of the three colours, f32[size, size, 3, 3]."""
    mixed = np.array([*BLOCK_COLOURS, AGENT], dtype=np.float64) - draw_empty(size)[:, :, None].astype(np.float64)
    return np.linalg.inv(mixed).astype(np.float32)
