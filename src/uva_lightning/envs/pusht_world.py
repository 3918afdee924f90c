"""Physics of Push-T: a round agent pushes a T-shaped block on a plane of 512 px, as in Diffusion Policy.

``PushWorld`` is what other pushing tasks share: the plane, its walls and the agent.

Positions are in px (x right, y down), angles in rad, times in s. The numbers and the order of the arithmetic are those
of Diffusion Policy's ``pusht_env`` (Chi et al., 2023), so that its 206 recorded episodes replay to within rounding.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

try:
    import pymunk
    import shapely
except ImportError as error:  # pragma: no cover - depends on the installation
    raise ImportError(
        f"Push-T needs pymunk and shapely ({error}); install them with pip install 'uva_lightning[sim]'."
    ) from error

WORLD_SIZE = 512.0
"""Side of the plane in px."""
CONTROL_HZ = 10
PHYSICS_DT = 0.01
STIFFNESS, DAMPING = 100.0, 20.0
AGENT_RADIUS = 15.0
TOUCH = 1.0
"""Gap in px below which agent and block count as in contact; the solver keeps them a few tenths of a px apart."""
GOAL = (256.0, 256.0, math.pi / 4)
"""Goal pose of the standard task: x, y in px, angle in rad."""
WALLS = (((5, 506), (5, 5)), ((5, 5), (506, 5)), ((506, 5), (506, 506)), ((5, 506), (506, 506)))
WALL_RADIUS = 2.0
BAR = ((-60.0, 30.0), (60.0, 30.0), (60.0, 0.0), (-60.0, 0.0))
STEM = ((-15.0, 30.0), (-15.0, 120.0), (15.0, 120.0), (15.0, 30.0))
"""Corners of the two boxes of the T in its own frame, in px."""
OUTLINE = np.array(
    [(-60, 0), (60, 0), (60, 30), (15, 30), (15, 120), (-15, 120), (-15, 30), (-60, 30)], dtype=np.float64
)
"""f64[8, 2], corners of the whole T in its own frame, in px."""

_SUBSTEPS = round(1 / (PHYSICS_DT * CONTROL_HZ))


class Snapshot(NamedTuple):
    """All that moves, at one moment: positions in px, velocities in px/s, angles in rad.

    The solver's memory of earlier contacts is not part of it, so a restored world follows the original to a few
    tenths of a px while they touch, not bit by bit.
    """

    agent: tuple[float, float]
    agent_velocity: tuple[float, float]
    block: tuple[float, float, float]
    block_velocity: tuple[float, float]
    block_spin: float


def place(points: NDArray[np.float64], pose: tuple[float, float, float]) -> NDArray[np.float64]:
    """Move points from the frame of the T into the world.

    Args:
        points: f64[n, 2] in px.
        pose: x, y in px and angle in rad of the T.

    Returns:
        f64[n, 2] in px.
    """
    cos, sin = math.cos(pose[2]), math.sin(pose[2])
    return points @ np.array([[cos, sin], [-sin, cos]]) + pose[:2]


class PushWorld(ABC):
    """A plane with walls, and an agent that is pulled to a target; a task adds what is pushed."""

    def __init__(self) -> None:
        self.space = pymunk.Space()
        self.space.gravity = (0, 0)
        self.space.damping = 0.0
        self.space.add(*(pymunk.Segment(self.space.static_body, a, b, WALL_RADIUS) for a, b in WALLS))
        self.agent = pymunk.Body(body_type=pymunk.Body.KINEMATIC)
        self.agent.position = (256, 400)
        self.space.add(self.agent, pymunk.Circle(self.agent, AGENT_RADIUS))

    def advance(self, x: float, y: float) -> None:
        """Pull the agent towards a target in px for one control step of 0.1 s."""
        agent, space = self.agent, self.space
        for _ in range(_SUBSTEPS):
            p, v = agent.position, agent.velocity
            pull_x = STIFFNESS * (x - p.x) - DAMPING * v.x
            pull_y = STIFFNESS * (y - p.y) - DAMPING * v.y
            agent.velocity = (v.x + pull_x * PHYSICS_DT, v.y + pull_y * PHYSICS_DT)
            space.step(PHYSICS_DT)

    @property
    def agent_position(self) -> tuple[float, float]:
        """Agent x, y in px."""
        return self.agent.position.x, self.agent.position.y

    def touches(self, body: pymunk.Body) -> bool:
        """Tell whether the agent touches a body, to within ``TOUCH``."""
        at = self.agent.position
        return min(shape.point_query(at).distance for shape in body.shapes) <= AGENT_RADIUS + TOUCH

    @abstractmethod
    def snapshot(self) -> Any:
        """Remember the present state."""

    @abstractmethod
    def restore(self, snapshot: Any) -> None:
        """Return to a remembered state."""


class PushTWorld(PushWorld):
    """A plane with walls, agent and block; ``goal`` is the pose that ``coverage`` compares the block with."""

    def __init__(self, goal: tuple[float, float, float] = GOAL) -> None:
        super().__init__()
        # Diffusion Policy takes the inertia of the bar for the stem too; the recorded motions depend on it.
        self.block = pymunk.Body(1, 2 * pymunk.moment_for_poly(1, BAR))
        bar, stem = pymunk.Poly(self.block, BAR), pymunk.Poly(self.block, STEM)
        self.block.center_of_gravity = (bar.center_of_gravity + stem.center_of_gravity) / 2
        self.block.position = (256, 300)
        self.space.add(self.block, bar, stem)
        self.set_goal(goal)

    def set_goal(self, goal: tuple[float, float, float]) -> None:
        """Set the goal pose: x, y in px, angle in rad."""
        self.goal = goal
        self._goal_shape = shapely.Polygon(place(OUTLINE, goal))

    def start(self, agent: tuple[float, float], block: tuple[float, float, float]) -> None:
        """Begin as Diffusion Policy does for a seed.

        The position is set before the angle, which then turns the block about its centre of gravity and moves its
        origin; recorded poses need ``restore``.
        """
        self.agent.position = agent
        self.block.position = block[:2]
        self.block.angle = block[2]
        self.space.step(PHYSICS_DT)

    @property
    def block_pose(self) -> tuple[float, float, float]:
        """Block x, y in px and angle in rad, in [0, 2 pi)."""
        return self.block.position.x, self.block.position.y, self.block.angle % (2 * math.pi)

    def coverage(self, pose: tuple[float, float, float] | None = None) -> float:
        """Share of the goal area that the block covers, in [0, 1]; at another pose if one is given."""
        block = shapely.Polygon(place(OUTLINE, self.block_pose if pose is None else pose))
        return float(self._goal_shape.intersection(block).area / self._goal_shape.area)

    def snapshot(self) -> Snapshot:
        """Remember the present state."""
        velocity, agent_velocity = self.block.velocity, self.agent.velocity
        return Snapshot(
            self.agent_position,
            (agent_velocity.x, agent_velocity.y),
            (self.block.position.x, self.block.position.y, self.block.angle),
            (velocity.x, velocity.y),
            self.block.angular_velocity,
        )

    def restore(self, snapshot: Snapshot) -> None:
        """Return to a remembered or recorded state."""
        self.agent.position, self.agent.velocity = snapshot.agent, snapshot.agent_velocity
        self.block.angle = snapshot.block[2]  # before the position: an angle moves the origin
        self.block.position = snapshot.block[:2]
        self.block.velocity, self.block.angular_velocity = snapshot.block_velocity, snapshot.block_spin
        self.space.reindex_shapes_for_body(self.block)
        self.space.reindex_shapes_for_body(self.agent)
