"""A scripted Push-T player, for demonstrations without a download.

Greedy sampling over push primitives: draw pushes (a point of the outline, a direction near the inward normal, a depth
and a way round the block), try each in a second world without pictures, take the cheapest, play it to its end, repeat.
The method and its constants are our own; 100 candidates solved 50 of 50 UVA test seeds, 60 solved 59 of 60.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from uva_lightning.envs.pusht_world import AGENT_RADIUS, OUTLINE, WORLD_SIZE, PushTWorld, Snapshot, place

Point = NDArray[np.float64]

APPROACH_GAP = 4.0
"""Distance between agent and block before a push, in px."""
DETOUR_RADIUS = 115.0
"""Radius of the way round the block, in px."""
CENTRE = np.array([0.0, 45.0])
"""Middle of the T in its own frame, in px."""
MAX_PUSH_STEPS = 60
MAX_WAYPOINT_STEPS = 40
REACHED, PASSED = 4.0, 14.0
"""Distance in px at which the last waypoint, or one on the way, counts as reached."""
LEAD, FINE_LEAD = 45.0, 30.0
"""Largest distance of the target ahead of the agent, in px."""
FINE_BELOW, MEASURE_BELOW = 25.0, 18.0
"""Corner distance to the goal in px below which pushes become short, and coverage is measured."""
STEP_COST, FINE_STEP_COST = 0.12, 0.03
"""Price of a control step, in px of corner distance."""
CORNER_WEIGHT, COVERAGE_WEIGHT = 0.3, 60.0
MARGIN = 20.0
"""Pushes that leave the block's origin nearer than this to the edge of the plane are refused, in px."""

_NEXT = np.roll(OUTLINE, -1, axis=0)
_LENGTHS = np.linalg.norm(_NEXT - OUTLINE, axis=1)
_DIRECTIONS = (_NEXT - OUTLINE) / _LENGTHS[:, None]
_NORMALS = np.stack([_DIRECTIONS[:, 1], -_DIRECTIONS[:, 0]], axis=1)  # outward
_SHARES = _LENGTHS / _LENGTHS.sum()


@dataclass(frozen=True)
class Push:
    """Waypoints of the agent in px, and how far ahead of it the target may lie."""

    waypoints: list[Point]
    lead: float

    def targets(self, world: PushTWorld) -> Iterator[tuple[float, float]]:
        """Yield the targets in px one by one; the caller advances the world in between."""
        budget = MAX_PUSH_STEPS
        for number, (x, y) in enumerate(self.waypoints, start=1):
            reached = REACHED if number == len(self.waypoints) else PASSED
            for _ in range(MAX_WAYPOINT_STEPS):
                at_x, at_y = world.agent_position
                distance = math.hypot(x - at_x, y - at_y)
                if distance < reached or budget == 0:
                    break
                share = min(1.0, self.lead / distance)
                yield at_x + (x - at_x) * share, at_y + (y - at_y) * share
                budget -= 1


class PushTExpert:
    """Play Push-T in a given world, with any goal.

    Args:
        candidates: Pushes tried before each decision.
        seed: Seed of the tries; the same seed and world give the same actions.
    """

    def __init__(self, candidates: int = 100, seed: int = 0) -> None:
        if candidates < 1:
            raise ValueError(f"candidates is {candidates}, expected at least 1; 100 solves nearly every start.")
        self.candidates = candidates
        self.random = np.random.default_rng(seed)

    def targets(self, world: PushTWorld) -> Iterator[tuple[float, float]]:
        """Yield targets (x, y in px) without end; the caller advances the world by each and stops when content."""
        trial = PushTWorld(world.goal)
        while True:
            moved = False
            for target in self._best_push(world, trial).targets(world):
                moved = True
                yield target
            if not moved:  # nothing to do from here: hold still and draw anew
                yield world.agent_position

    def _best_push(self, world: PushTWorld, trial: PushTWorld) -> Push:
        start = world.snapshot()
        distance = _corner_distance(world)
        fine = distance < FINE_BELOW
        best, lowest = Push([], LEAD), math.inf
        for number in range(self.candidates):
            short = fine and number % 3 > 0  # a third stays long, to get out of a corner
            push = self._draw_push(start, short, FINE_LEAD if fine else LEAD)
            if push is None:
                continue
            trial.restore(start)
            steps = 0
            for target in push.targets(trial):
                trial.advance(*target)
                steps += 1
            x, y, _ = trial.block_pose
            if not (MARGIN < x < WORLD_SIZE - MARGIN and MARGIN < y < WORLD_SIZE - MARGIN):
                continue
            cost = _corner_distance(trial)
            if distance < MEASURE_BELOW:
                cost = CORNER_WEIGHT * cost + COVERAGE_WEIGHT * (1 - trial.coverage())
            cost += steps * (FINE_STEP_COST if fine else STEP_COST)
            if cost < lowest:
                best, lowest = push, cost
        return best

    def _draw_push(self, start: Snapshot, short: bool, lead: float) -> Push | None:
        """Draw a push; None where the agent has no room to begin it."""
        random, pose = self.random, start.block
        edge = int(random.choice(len(OUTLINE), p=_SHARES))
        contact = OUTLINE[edge] + random.uniform(0.08, 0.92) * (_NEXT[edge] - OUTLINE[edge])
        point = place(contact[None], pose)[0]
        normal = place(_NORMALS[edge][None], (0.0, 0.0, pose[2]))[0]
        turn = float(random.normal(0, 0.25 if short else 0.35))
        direction = place(-normal[None], (0.0, 0.0, turn))[0]
        depth = abs(random.normal(0, 12)) + 1 if short else random.uniform(5, 110)
        begin = point + normal * (AGENT_RADIUS + APPROACH_GAP)
        if begin.min() < 18 or begin.max() > WORLD_SIZE - 18:
            return None
        end = np.clip(point + normal * AGENT_RADIUS + direction * depth, 16, WORLD_SIZE - 16)
        return Push([*_way_round(np.array(start.agent), place(CENTRE[None], pose)[0], begin), end], lead)


def _corner_distance(world: PushTWorld) -> float:
    """Mean distance of the block's corners to where they belong, in px."""
    offset = place(OUTLINE, world.block_pose) - place(OUTLINE, world.goal)
    return float(np.hypot(offset[:, 0], offset[:, 1]).mean())


def _way_round(agent: Point, centre: Point, begin: Point) -> list[Point]:
    """Go straight where the block is not in the way, else along an arc about it."""
    path = begin - agent
    length = float(np.linalg.norm(path))
    share = np.clip(np.dot(centre - agent, path) / max(length**2, 1e-6), 0, 1)
    clearance = float(np.linalg.norm(agent + share * path - centre))
    if length < 40 or clearance > DETOUR_RADIUS - 15:
        return [begin]
    first = math.atan2(*(agent - centre)[::-1])
    last = math.atan2(*(begin - centre)[::-1])
    turn = (last - first + math.pi) % (2 * math.pi) - math.pi
    count = max(1, int(abs(turn) / 0.5))
    angles = first + turn * np.arange(count + 1) / count
    arc = centre + DETOUR_RADIUS * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    return [*np.clip(arc, 22, WORLD_SIZE - 22), begin]
