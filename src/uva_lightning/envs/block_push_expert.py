"""A scripted block pusher, for demonstrations without a download.

It draws which block goes first and which square it goes into, all four ways alike, then steers: round the blocks to the
far side of the one to push, and along the line to the square, correcting sideways. If it is told to be careless, it
pushes some blocks beside their centre, so that they turn away and have to be fetched again: from pushes that all work
no model learns what a push does that is a little off.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from uva_lightning.envs.block_push_world import SQUARES, BlockPushWorld
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
ASIDE = 30.0
"""Largest distance in px from the line of push at which a careless push is made; half a block is 24 px wide."""
EDGE = 20.0


class BlockPushExpert:
    """Play block pushing in a given world.

    Args:
        seed: Seed of all that is drawn; the same seed and world give the same actions.
        careless: Share of the pushes that are made beside the block's centre.
    """

    def __init__(self, seed: int = 0, careless: float = 0.0) -> None:
        self.careless, self._random = careless, np.random.default_rng(seed)
        self.order = [int(block) for block in self._random.permutation(2)]
        self.squares = [int(square) for square in self._random.permutation(2)]

    def targets(self, world: BlockPushWorld) -> Iterator[tuple[float, float]]:
        """Yield targets (x, y in px) without end; the caller advances the world by each and stops when content."""
        for block, square in zip(self.order, self.squares, strict=True):
            pushing, aside = False, 0.0
            while world.distances()[block, square] > CENTRED:
                before, pushing = pushing, _lined_up(world, block, square, pushing)
                if pushing and not before:
                    aside = self._aside()
                yield _push(world, block, square, aside) if pushing else _approach(world, block, square)
        while True:
            yield world.agent_position

    def _aside(self) -> float:
        """Draw how far beside its line, in px, the push is made that begins now."""
        careless = self._random.uniform() < self.careless
        return float(self._random.uniform(-ASIDE, ASIDE)) if careless else 0.0


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


def _push(world: BlockPushWorld, block: int, square: int, aside: float) -> tuple[float, float]:
    _, direction, _, beside = _line(world, block, square)
    left = np.array([-direction[1], direction[0]])
    lead = min(PUSH_LEAD, float(world.distances()[block, square]) + CENTRED)
    return _inside(np.array(world.agent_position) + lead * direction - CORRECTION * (beside - aside) * left)


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
