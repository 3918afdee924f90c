"""Pictures of Push-T with OpenCV, close to the recorded ones, which pygame drew at 512 px and OpenCV made smaller."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from uva_lightning.envs.look import GREEN, Look
from uva_lightning.envs.pusht_world import AGENT_RADIUS, BAR, STEM, WALL_RADIUS, WALLS, WORLD_SIZE, place

try:
    import cv2
except ImportError as error:  # pragma: no cover - depends on the installation
    raise ImportError(f"Push-T needs OpenCV ({error}); install it with pip install 'uva_lightning[sim]'.") from error

Pose = tuple[float, float, float]
Image = NDArray[np.uint8]

WALL, GOAL_GREEN = (211, 211, 211), GREEN
BLOCK_EDGE, BLOCK = (119, 136, 153), (143, 163, 184)
AGENT_EDGE, AGENT = (65, 105, 225), (78, 126, 255)
TARGET_RED = (255, 0, 0)
AGENT_RIM = 4.0
EDGE_WIDTH = 4
USUAL = Look()

_CANVAS = round(WORLD_SIZE)
_BOXES = (np.array(BAR), np.array(STEM))


def draw(agent: tuple[float, float], block: Pose, goal: Pose, size: int, look: Look = USUAL) -> Image:
    """Draw the scene.

    Args:
        agent: Agent position x, y in px of the world.
        block: Block pose x, y in px, angle in rad.
        goal: Goal pose, likewise.
        size: Side of the picture in pixels.
        look: Colours and things that do not matter, these in px of the world.

    Returns:
        u8[size, size, 3], RGB.
    """
    canvas = _background(goal, look).copy()
    for corners in (_corners(box, block) for box in _BOXES):
        cv2.fillPoly(canvas, [corners], BLOCK)
        cv2.polylines(canvas, [corners], True, BLOCK_EDGE, EDGE_WIDTH)
    centre = (round(agent[0]), round(agent[1]))
    cv2.circle(canvas, centre, round(AGENT_RADIUS), AGENT_EDGE, cv2.FILLED)
    cv2.circle(canvas, centre, round(AGENT_RADIUS - AGENT_RIM), AGENT, cv2.FILLED)
    return np.asarray(cv2.resize(canvas, (size, size)), dtype=np.uint8)


def mark_target(image: Image, target: NDArray[np.float32]) -> Image:
    """Copy a picture and draw the agent's target (x, y in px of the world) as a red cross."""
    image, scale = image.copy(), len(image) / WORLD_SIZE
    spot = (round(float(target[0]) * scale), round(float(target[1]) * scale))
    cv2.drawMarker(image, spot, TARGET_RED, cv2.MARKER_CROSS, max(3, len(image) // 12), max(1, len(image) // 96))
    return image


def _corners(box: NDArray[np.float64], pose: Pose) -> NDArray[np.int32]:
    return np.rint(place(box, pose)).astype(np.int32)


@lru_cache(maxsize=16)
def _background(goal: Pose, look: Look) -> Image:
    canvas = np.full((_CANVAS, _CANVAS, 3), look.floor, dtype=np.uint8)
    for colour, polygon in look.objects:
        cv2.fillPoly(canvas, [np.rint(polygon).astype(np.int32)], colour)
    for box in _BOXES:
        cv2.fillPoly(canvas, [_corners(box, goal)], look.goal)
    for a, b in WALLS:
        cv2.line(canvas, a, b, WALL, round(2 * WALL_RADIUS))
    return canvas
