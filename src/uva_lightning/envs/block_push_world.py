"""Physics of block pushing: Push-T's agent pushes two blocks, one red and one green, into two coloured squares.

Positions are in px (x right, y down), angles in rad. Plane, walls and agent are those of Push-T; the blocks start
below, the squares lie above, so that every block can be pushed into every square.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import pymunk
from numpy.typing import NDArray

from uva_lightning.envs.pusht_world import PHYSICS_DT, PushWorld

COLOURS = ("red", "green")
"""Names of blocks and of squares, in the order of all arrays."""
BLOCK_SIDE, SQUARE_SIDE = 48.0, 110.0
SQUARES = np.array([(136.0, 110.0), (376.0, 110.0)])
"""f64[2, 2], centres of the red and the green square in px; mirrored at x = 256 one becomes the other."""
REACHED = 40.0
"""Distance in px from a square's centre below which a block's centre counts as in it, as 0.05 m in Diffusion Policy."""

Pose = tuple[float, float, float]


class Snapshot(NamedTuple):
    """All that moves, at one moment: positions in px, velocities in px/s, angles in rad, of the blocks in order.

    As for Push-T, the solver's memory of earlier contacts is not part of it.
    """

    agent: tuple[float, float]
    agent_velocity: tuple[float, float]
    blocks: tuple[Pose, Pose]
    block_velocities: tuple[Pose, Pose]


class BlockPushWorld(PushWorld):
    """A plane with walls, agent and two square blocks of mass 1."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = [self._block(x) for x in (176.0, 336.0)]

    def _block(self, x: float) -> pymunk.Body:
        body = pymunk.Body(1, pymunk.moment_for_box(1, (BLOCK_SIDE, BLOCK_SIDE)))
        body.position = (x, 300)
        self.space.add(body, pymunk.Poly.create_box(body, (BLOCK_SIDE, BLOCK_SIDE)))
        return body

    def start(self, agent: tuple[float, float], blocks: tuple[Pose, Pose]) -> None:
        """Begin at rest, with the blocks at x, y and angle."""
        still = (0.0, 0.0, 0.0)
        self.restore(Snapshot(agent, (0.0, 0.0), blocks, (still, still)))
        self.space.step(PHYSICS_DT)

    @property
    def poses(self) -> NDArray[np.float64]:
        """Red and green block: f64[2, 3], x, y in px and angle in rad in [0, pi / 2), a quarter turn being none."""
        return np.array([(*body.position, body.angle % (math.pi / 2)) for body in self.blocks])

    def distances(self) -> NDArray[np.float64]:
        """How far each block is from each square's centre, f64[2, 2] in px, by block and square."""
        distances: NDArray[np.float64] = np.linalg.norm(self.poses[:, None, :2] - SQUARES, axis=-1)
        return distances

    def snapshot(self) -> Snapshot:
        """Remember the present state."""
        velocity = self.agent.velocity
        red, green = ((*body.position, body.angle) for body in self.blocks)
        moving = [(body.velocity.x, body.velocity.y, body.angular_velocity) for body in self.blocks]
        return Snapshot(self.agent_position, (velocity.x, velocity.y), (red, green), (moving[0], moving[1]))

    def restore(self, snapshot: Snapshot) -> None:
        """Return to a remembered state."""
        self.agent.position, self.agent.velocity = snapshot.agent, snapshot.agent_velocity
        self.space.reindex_shapes_for_body(self.agent)
        for body, pose, moving in zip(self.blocks, snapshot.blocks, snapshot.block_velocities, strict=True):
            body.angle, body.position = pose[2], pose[:2]
            body.velocity, body.angular_velocity = moving[:2], moving[2]
            self.space.reindex_shapes_for_body(body)
