"""A policy without a model, which knows where the cube is: proof that everything around a policy works."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from uva_lightning.robot.chain import Array
from uva_lightning.robot.control import Control
from uva_lightning.robot.sight import Observation
from uva_lightning.robot.tool_poses import actions, tool_pose

CLOSING = 1.2
"""Time to close the gripper, s."""
SLOWEST = 0.4
"""Shortest time of a way, s."""


class ReachingPolicy:
    """Go above the cube, down, close, and up again, in straight lines that begin and end at rest.

    The tool keeps the orientation that it has at the begin, which should point down to the table.

    Args:
        hand: Gives the pose f64[4, 4] of the arm's last frame, m.
        cube: Gives the place f64[3] of the cube, m.
        control: Pace.
        clock: Gives the time in s.
        wide: Opening on the way, m.
        closed: Opening that is asked for at the cube, m; less than its side.
        speed: Of the tool in the middle of a way, m/s.
        height: Above the cube, m.
    """

    def __init__(
        self,
        hand: Callable[[], Array],
        cube: Callable[[], Array],
        control: Control,
        clock: Callable[[], float],
        wide: float = 0.08,
        closed: float = 0.02,
        speed: float = 0.12,
        height: float = 0.1,
    ) -> None:
        self._hand, self._cube, self._clock, self.control = hand, cube, clock, control
        self.wide, self.closed, self.speed, self.height = wide, closed, speed, height
        self.reset(0)

    def reset(self, seed: int) -> None:
        """Begin anew, from wherever the hand will be when it is asked first."""
        self._ways: list[tuple[float, Array, Array]] = []  # end in s, place and opening at the begin and at the end
        self._rotation, self._begin = np.eye(3), 0.0

    def act(self, observation: Observation) -> Array:
        """Give the part of the way that comes next, f64[1, h, 10]; what is seen is not used."""
        if not self._ways:
            self._plan()
        passed = self._clock() - self._begin
        moments = passed + self.control.period * (self.control.shift + np.arange(self.control.predict))
        places = np.stack([self._at(moment) for moment in moments])  # x, y, z, opening
        poses = np.tile(np.eye(4), (len(places), 1, 1))
        poses[:, :3, :3], poses[:, :3, 3] = self._rotation, places[:, :3]
        return actions(tool_pose(poses), places[:, 3], tool_pose(self._hand()))[None]

    def _plan(self) -> None:
        hand, cube = self._hand(), self._cube()
        self._rotation, self._begin = hand[:3, :3].copy(), self._clock()
        above = cube + (0.0, 0.0, self.height)
        stops = [(hand[:3, 3], self.wide), (above, self.wide), (cube, self.wide), (cube, self.closed),
                 (above, self.closed)]  # fmt: skip
        end = 0.0
        for (begin, opened), (goal, closed) in zip(stops, stops[1:], strict=False):
            way = 1.5 * float(np.linalg.norm(goal - begin)) / self.speed  # smooth ones are 1.5 as fast in the middle
            end += max(way, SLOWEST if opened == closed else CLOSING)
            self._ways.append((end, np.append(begin, opened), np.append(goal, closed)))

    def _at(self, moment: float) -> Array:
        begin = 0.0
        for end, start, goal in self._ways:
            if moment < end:
                share = (moment - begin) / (end - begin)
                place: Array = start + (3 * share**2 - 2 * share**3) * (goal - start)
                return place
            begin = end
        return self._ways[-1][2]
