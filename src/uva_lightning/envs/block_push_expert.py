"""A scripted block pusher, for demonstrations without a download.

It draws which block goes first and which square it goes into, all four ways alike, then steers: round the blocks to the
far side of the one to push, and along the line to the square, correcting sideways. If it is told to be careless, it
plays some actions without looking and a little beside what it meant, as a policy plays its chunks, so that blocks turn
away and have to be fetched again. From pushes that are all steered no model learns what one does that is not.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from uva_lightning.envs.block_push_world import REACHED, SQUARES, BlockPushWorld
from uva_lightning.envs.pusht_world import WORLD_SIZE

Point = NDArray[np.float64]

CENTRED = 12.0
"""Distance in px from the square's centre at which a push ends."""
LEAD, PUSH_LEAD = 36.0, 20.0
"""Largest distance of the target ahead of the agent in px, on the way and while pushing."""
BEHIND = 58.0
"""Distance in px from the block's centre at which a push begins."""
CLEARANCE, DETOUR = 54.0, 68.0
"""Distance in px from a block's centre that the agent keeps, and that of a way round it."""
TURN = 0.6
"""Part of a way round that is looked ahead, in rad."""
LINED_UP, LOST = 10.0, 20.0
"""Distance in px from the line of push below which a push may begin, and above which it is given up."""
CORRECTION = 1.5
"""Steering to the line of push, in px per px of distance from it."""
BLIND = (8, 16)
"""Fewest and most actions that are played without looking, as a policy plays its chunks."""
DRIFT = (5.0, 15.0)
"""How far beside what was meant the first and the last of them lie, standard deviation in px; a block is 48 px wide."""
EDGE = 20.0


class BlockPushExpert:
    """Play block pushing in a given world.

    Args:
        seed: Seed of all that is drawn; the same seed and world give the same actions.
        careless: Share of the actions that are played blindly and beside what was meant.
    """

    def __init__(self, seed: int = 0, careless: float = 0.0) -> None:
        self.careless, self._random = careless, np.random.default_rng(seed)
        self.order = [int(block) for block in self._random.permutation(2)]
        self.squares = [int(square) for square in self._random.permutation(2)]
        self._state = _State()

    def targets(self, world: BlockPushWorld) -> Iterator[tuple[float, float]]:
        """Yield targets (x, y in px) without end; the caller advances the world by each and stops when content."""
        while True:
            steps = int(self._random.integers(*BLIND, endpoint=True))
            if self._random.uniform() < self.careless:
                yield from self._blindly(world, steps)
            else:
                for _ in range(steps):
                    yield self._target(world)

    def _target(self, world: BlockPushWorld) -> tuple[float, float]:
        """Steer by what is there."""
        state = self._state
        for job, (block, square) in enumerate(zip(self.order, self.squares, strict=True)):
            state.done[job] = world.distances()[block, square] <= (REACHED if state.done[job] else CENTRED)
            if not state.done[job]:
                pushing = _lined_up(world, block, square, state.pushing == job)
                state.pushing = job if pushing else None
                return _push(world, block, square) if pushing else _approach(world, block, square)
        return world.agent_position

    def _blindly(self, world: BlockPushWorld, steps: int) -> Iterator[tuple[float, float]]:
        """Steer in a copy of the present, then play that in the present, whatever comes of it, drifting aside."""
        before, state = world.snapshot(), deepcopy(self._state)
        meant = []
        for _ in range(steps):
            meant.append(self._target(world))
            world.advance(*meant[-1])
        world.restore(before)
        self._state = state
        first, last = self._random.normal(0, 1, (2, 2)) * np.array(DRIFT)[:, None]
        for target, way in zip(meant, np.linspace(first, last, steps), strict=True):
            yield _inside(np.array(target) + way)


@dataclass
class _State:
    """Which of the two jobs is done, and which block is being pushed."""

    done: list[bool] = field(default_factory=lambda: [False, False])
    pushing: int | None = None


def _line(world: BlockPushWorld, block: int, square: int) -> tuple[Point, Point, float, float]:
    """Give the block's centre, the direction to the square, and the agent's place along and beside that line."""
    centre = world.poses[block, :2]
    way = SQUARES[square] - centre
    direction = way / np.linalg.norm(way)
    offset = np.array(world.agent_position) - centre
    return centre, direction, float(offset @ direction), float(direction[0] * offset[1] - direction[1] * offset[0])


def _lined_up(world: BlockPushWorld, block: int, square: int, pushing: bool) -> bool:
    *_, along, beside = _line(world, block, square)
    return along < 0 and abs(beside) < (LOST if pushing else LINED_UP) and -along < BEHIND + LINED_UP


def _push(world: BlockPushWorld, block: int, square: int) -> tuple[float, float]:
    _, direction, _, beside = _line(world, block, square)
    left = np.array([-direction[1], direction[0]])
    lead = min(PUSH_LEAD, float(world.distances()[block, square]) + CENTRED)
    return _inside(np.array(world.agent_position) + lead * direction - CORRECTION * beside * left)


def _approach(world: BlockPushWorld, block: int, square: int) -> tuple[float, float]:
    centre, direction, *_ = _line(world, block, square)
    agent, goal = np.array(world.agent_position), centre - BEHIND * direction
    for other in sorted(world.poses[:, :2], key=lambda p: float(np.hypot(*(p - agent)))):
        if _clearance(agent, goal, other) < CLEARANCE:
            goal = _round(agent, goal, other)
            break
    way = goal - agent
    distance = float(np.linalg.norm(way))
    return _inside(agent + way * min(1.0, LEAD / max(distance, 1e-6)))


def _clearance(agent: Point, goal: Point, centre: Point) -> float:
    """Distance of a block's centre from the way to a goal."""
    way = goal - agent
    share = np.clip((centre - agent) @ way / max(float(way @ way), 1e-6), 0, 1)
    return float(np.linalg.norm(agent + share * way - centre))


def _round(agent: Point, goal: Point, centre: Point) -> Point:
    """Give the next place on the shorter way round a block."""
    first, last = (math.atan2(*(point - centre)[::-1]) for point in (agent, goal))
    turn = (last - first + math.pi) % (2 * math.pi) - math.pi
    angle = first + math.copysign(min(TURN, abs(turn)), turn)
    return centre + DETOUR * np.array([math.cos(angle), math.sin(angle)])


def _inside(point: Point) -> tuple[float, float]:
    x, y = np.clip(point, EDGE, WORLD_SIZE - EDGE)
    return float(x), float(y)
