"""Pictures of block pushing.

Mirroring a picture and exchanging its red and its green channel gives the picture of the mirrored scene with the
colours exchanged: ``BlockPushMirror`` relies on it.
"""

from __future__ import annotations

import math
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from uva_lightning.envs.block_push_world import BLOCK_SIDE, SQUARE_SIDE, SQUARES
from uva_lightning.envs.pusht_draw import WALL
from uva_lightning.envs.pusht_world import AGENT_RADIUS, WALL_RADIUS, WALLS, WORLD_SIZE, place

Image = NDArray[np.uint8]

BLOCK_COLOURS = ((210, 40, 40), (40, 210, 40))
SQUARE_COLOURS = ((255, 200, 200), (200, 255, 200))
AGENT = (60, 60, 230)

_CANVAS = round(WORLD_SIZE)
_HALF = BLOCK_SIDE / 2
_CORNERS = np.array([(-_HALF, -_HALF), (_HALF, -_HALF), (_HALF, _HALF), (-_HALF, _HALF)])


def draw(agent: tuple[float, float], blocks: NDArray[np.float64], size: int) -> Image:
    """Draw the scene.

    Args:
        agent: Agent position x, y in px of the world.
        blocks: Red and green block, f64[2, 3]: x, y in px, angle in rad.
        size: Side of the picture in pixels.

    Returns:
        u8[size, size, 3], RGB.
    """
    canvas = _background().copy()
    for colour, (x, y, angle) in zip(BLOCK_COLOURS, blocks, strict=True):
        corners = np.rint(place(_CORNERS, (x, y, angle))).astype(np.int32)
        cv2.fillPoly(canvas, [corners], colour)
    cv2.circle(canvas, (round(agent[0]), round(agent[1])), math.ceil(AGENT_RADIUS), AGENT, cv2.FILLED)
    return _smaller(canvas, size)


def draw_empty(size: int) -> Image:
    """Draw the plane without agent and blocks."""
    return _smaller(_background(), size)


def _smaller(canvas: Image, size: int) -> Image:
    return np.asarray(cv2.resize(canvas, (size, size), interpolation=cv2.INTER_AREA), dtype=np.uint8)


@lru_cache(maxsize=1)
def _background() -> Image:
    canvas = np.full((_CANVAS, _CANVAS, 3), 255, dtype=np.uint8)
    for colour, (x, y) in zip(SQUARE_COLOURS, SQUARES, strict=True):
        reach = SQUARE_SIDE / 2
        cv2.rectangle(canvas, (round(x - reach), round(y - reach)), (round(x + reach), round(y + reach)), colour, -1)
    for a, b in WALLS:
        cv2.line(canvas, a, b, WALL, round(2 * WALL_RADIUS))
    return canvas
