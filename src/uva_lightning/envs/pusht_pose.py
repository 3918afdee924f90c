"""Where is the block? Its pose read off Push-T pictures, sharp or imagined, by comparing them with drawn ones."""

from __future__ import annotations

import math

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from uva_lightning.envs.pusht_draw import AGENT, AGENT_EDGE, BLOCK, BLOCK_EDGE, GOAL_GREEN, Pose
from uva_lightning.envs.pusht_world import OUTLINE, WORLD_SIZE, place

CELLS, TURNS = 24, 48
"""Places along each axis and directions that are compared: every 21 px and 7.5 degrees."""
REACH, TURN_REACH = 3, 6
"""The block moves so many places and directions at most in a chunk: 64 px along each axis and 45 degrees."""
BLUR = 1.0
"""Squared difference of two pictures, in cells of the block, that is within the blur of an imagined one."""

FLOOR = (255, 255, 255)
_MIDDLE = np.array([0.0, 45.0])  # of the T in its own frame
_RADIUS = 100.0  # px from there that hold the whole T in every direction
_FINE = 8  # pixels per cell when drawing


class BlockPose:
    """Compare pictures with the block drawn at every place and direction of a grid.

    A pixel counts by how much its colour is the block's, a linear function of the colour: a blurred frame, the mean of
    what may happen, counts as the mean.
    """

    def __init__(self) -> None:
        colours = np.array([BLOCK, BLOCK_EDGE, AGENT, AGENT_EDGE, GOAL_GREEN, FLOOR], dtype=np.float64)
        weights = np.linalg.lstsq(np.c_[colours, np.ones(len(colours))], np.array([1.0, 1, 0, 0, 0, 0]), rcond=None)[0]
        self._colour = torch.from_numpy(weights).float()  # f32[3 + 1]
        self.cell = WORLD_SIZE / CELLS
        self._edge = math.ceil(_RADIUS / self.cell)
        self.side = 2 * self._edge + 1  # cells of a drawn block
        angles = np.arange(TURNS) * 2 * math.pi / TURNS
        self._outlines = np.stack([place(OUTLINE - _MIDDLE, (0.0, 0.0, angle)) for angle in angles])  # f64[r, 8, 2]
        self.drawn = torch.from_numpy(np.stack([self._draw(outline) for outline in self._outlines]))  # f32[r, k, k]
        self._area = self.drawn.square().sum(dim=(1, 2))  # f32[r]

    def distances(self, goal: Pose) -> Tensor:
        """Mean distance of the corners from a goal pose in px, f32[r, c + 2 m, c + 2 m] with ``REACH`` cells around."""
        middles = (np.arange(-REACH, CELLS + REACH) + 0.5) * self.cell
        grid = np.stack(np.meshgrid(middles, middles), axis=-1)  # x, y
        corners = self._outlines[:, None, None] + grid[None, :, :, None]
        return torch.from_numpy(np.linalg.norm(corners - place(OUTLINE, goal), axis=-1).mean(axis=-1)).float()

    def find(self, pictures: NDArray[np.uint8]) -> Tensor:
        """Give the likeliest direction, row and column in u8[b, H, W, 3]: i64[3, b]."""
        likeness = F.conv2d(self._block(pictures)[:, None], self.drawn[:, None], padding=self._edge)
        best = (2 * likeness - self._area[:, None, None]).flatten(1).argmax(dim=1)
        return torch.stack((best // CELLS**2, best // CELLS % CELLS, best % CELLS))

    def expect(self, pictures: NDArray[np.uint8], around: Tensor, values: Tensor) -> Tensor:
        """Average what a pose is worth over the poses that a picture may show, those within reach.

        Args:
            pictures: u8[b, n, H, W, 3].
            around: Poses that they are near to, i64[3, b] as ``find`` gives them.
            values: Worth of each pose, shaped as ``distances``.

        Returns:
            f32[b, n].
        """
        count, (turn, row, column) = pictures.shape[1], around
        margin = self._edge + REACH
        blocks = F.pad(self._block(pictures.reshape(-1, *pictures.shape[2:])), (margin,) * 4)
        blocks = blocks.view(len(pictures), count, *blocks.shape[1:])
        turns = (turn[:, None] + torch.arange(-TURN_REACH, TURN_REACH + 1)) % TURNS  # i64[b, r]
        shifts, window = torch.arange(2 * REACH + 1), torch.arange(self.side + 2 * REACH)
        rows, columns = row[:, None, None] + window[:, None], column[:, None, None] + window
        sample = torch.arange(len(pictures))
        near = blocks[sample[:, None, None], :, rows, columns].permute(0, 3, 1, 2)  # f32[b, n, w, w]
        patches = F.unfold(near.flatten(0, 1)[:, None], self.side).unflatten(0, near.shape[:2])  # f32[b, n, k * k, l]
        likeness = torch.einsum("bnkl,brk->bnrl", patches, self.drawn[turns].flatten(2))
        weight = ((2 * likeness - self._area[turns][:, None, :, None]) / BLUR).flatten(2).softmax(dim=-1)
        at = (row[:, None] + shifts)[:, None, :, None], (column[:, None] + shifts)[:, None, None]
        worth = values[turns[:, :, None, None], at[0], at[1]].flatten(1)  # f32[b, r * l]
        return torch.einsum("bnp,bp->bn", weight, worth)

    def _block(self, pictures: NDArray[np.uint8]) -> Tensor:
        """Share of the block in each cell, f32[n, c, c] of u8[n, H, W, 3]."""
        share = torch.from_numpy(pictures).float() @ self._colour[:3] + self._colour[3]
        return F.interpolate(share[:, None], (CELLS, CELLS), mode="area")[:, 0]

    def _draw(self, outline: NDArray[np.float64]) -> NDArray[np.float32]:
        canvas = np.zeros((self.side * _FINE, self.side * _FINE), dtype=np.uint8)
        corners = np.rint((outline / self.cell + self.side / 2) * _FINE).astype(np.int32)
        cv2.fillPoly(canvas, [corners], 1)
        return np.asarray(cv2.resize(canvas.astype(np.float32), (self.side,) * 2, interpolation=cv2.INTER_AREA))
