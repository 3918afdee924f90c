"""What a planner can read off imagined frames of block pushing: how far the asked block still has to go."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from uva_lightning.envs.block_push import CLASSES
from uva_lightning.envs.block_push_draw import AGENT, BLOCK_COLOURS, draw_empty
from uva_lightning.envs.block_push_world import BLOCK_SIDE, SQUARES
from uva_lightning.envs.pusht_world import AGENT_RADIUS, WORLD_SIZE

REACH = 330.0
"""Distance in px that agent and blocks move at most in a chunk of 16 steps."""
LEAST = 0.15
"""Share of a colour in a pixel below which it is taken for an error of the picture."""
CONTACT = BLOCK_SIDE / 2 + AGENT_RADIUS
"""Distance in px between the centres of agent and block when they touch at a side."""
AGENT_WEIGHT, TURN_WEIGHT = 0.15, 40.0
"""Price of a px between agent and block, in px of the block's way; and of a rad that the agent has to go round it."""

Points = NDArray[np.float64]


class BlockPushGoal:
    """Score futures by the way that the asked block has left to the asked square, in px, with a minus sign.

    To it comes a smaller price for an agent that is not yet where it has to push, so that futures differ also before
    the block moves. Both are read off the pictures: each pixel is taken as a mixture of the empty plane, the two
    blocks' colours and the agent's, and the centre of a colour's share is where the thing is; of a blurred frame, the
    mean of what may happen, that is the mean place. The last imagined frame counts.

    Args:
        goal: Which block into which square: ``R-R``, ``R-G``, ``G-R`` or ``G-G``.
        camera: Camera that is judged.
    """

    def __init__(self, goal: str, camera: str = "top") -> None:
        if goal not in CLASSES:
            raise ValueError(f"goal is {goal!r}, expected one of {', '.join(CLASSES)}, block first.")
        self.camera, (self.block, square) = camera, CLASSES[goal]
        self.square = SQUARES[square]

    def __call__(
        self, past: Mapping[str, NDArray[np.uint8]], future: Mapping[str, NDArray[np.uint8]]
    ) -> NDArray[np.float64]:
        """Score futures u8[k, b, t, H, W, 3] of observations with the past u8[b, t, H, W, 3]: f64[k, b] in px."""
        now = places(past[self.camera][:, -1])
        last = future[self.camera][:, :, -1]
        there = places(last.reshape(-1, *last.shape[2:]), np.tile(now, (len(last), 1, 1)))
        return -self.cost(there[:, self.block], there[:, -1]).reshape(last.shape[:2])

    def cost(self, block: Points, agent: Points) -> Points:
        """Give the way that is left, f64[n] in px, for centres f64[n, 2] of block and agent."""
        way, offset = self.square - block, agent - block
        left, apart = np.linalg.norm(way, axis=-1), np.linalg.norm(offset, axis=-1)
        cosine = -(way * offset).sum(axis=-1) / np.maximum(left * apart, 1e-6)
        turn = np.arccos(np.clip(cosine, -1, 1))  # 0 where the agent is opposite to the square
        near = np.maximum(1 - left / BLOCK_SIDE, 0)  # at the square it no longer matters where the agent is
        price: Points = AGENT_WEIGHT * np.maximum(apart - CONTACT, 0) + TURN_WEIGHT * turn
        return left + price * (1 - near)


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
    shares = np.einsum("nhwc,hwcs->nhws", pictures.astype(np.float32) - draw_empty(size), _unmixing(size))
    shares = np.where(shares > LEAST, shares, 0.0).clip(max=1.0)
    if around is not None:
        near = np.abs(axis[:, None] - around[:, None, :, :].transpose(0, 3, 1, 2)) < REACH  # bool[n, 2, size, 3]
        shares = shares * near[:, 1, :, None] * near[:, 0, None]
    grid = np.stack(np.meshgrid(axis, axis), axis=-1)  # x, y
    mass = shares.sum(axis=(1, 2))
    centres = np.einsum("nhws,hwp->nsp", shares, grid) / np.maximum(mass, 1e-6)[..., None]
    fallback = np.full_like(centres, WORLD_SIZE / 2) if around is None else around
    found: Points = np.where(mass[..., None] > 1, centres, fallback)
    return found


def _unmixing(size: int) -> NDArray[np.float32]:
    """Turn a pixel's difference from the empty plane into shares of the three colours, f32[size, size, 3, 3]."""
    mixed = np.array([*BLOCK_COLOURS, AGENT], dtype=np.float64) - draw_empty(size)[:, :, None].astype(np.float64)
    return np.linalg.inv(mixed).astype(np.float32)
