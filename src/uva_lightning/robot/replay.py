"""Play a recorded episode dry: what would today's limits have refused, and where would the arm have gone?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from uva_lightning.robot.arm import JointTrajectory
from uva_lightning.robot.chain import Array
from uva_lightning.robot.control import ChunkPlanner, Control
from uva_lightning.robot.episodes import Asked, BrokenEpisode, RecordedEpisode
from uva_lightning.robot.errors import ActionRejected, NotArmed
from uva_lightning.robot.fake_arm import FakeArm
from uva_lightning.robot.keeper import Keeper, Mode
from uva_lightning.robot.limits import Limits
from uva_lightning.robot.tool_poses import tool_pose

NEAR = 0.03
"""Distance from where the recorded arm was sent, rad or m, up to which the replayed one still goes the same way."""
PERIOD = 0.01
HOMING = 60.0
"""Longest way home that is simulated, s."""


@dataclass(frozen=True)
class Chunk:
    """One chunk of the episode.

    Args:
        number: Of its row.
        time: When it was asked for, s.
        then: Why it was refused then; None where it was carried out.
        today: Why it would be refused today; None where it would be carried out.
        alone: Whether it was checked alone, from where the recorded arm was, as the replayed one went another way.
    """

    number: int
    time: float
    then: str | None
    today: str | None
    alone: bool


@dataclass(frozen=True)
class Replay:
    """What came of an episode.

    Args:
        chunks: All that was asked for.
        off: Largest difference between set-points, then and today, while both went the same way, rad; None where no
            set-points were recorded.
    """

    chunks: Sequence[Chunk]
    off: float | None

    @property
    def refused(self) -> Sequence[Chunk]:
        """Those that were carried out, but would be refused today."""
        return [chunk for chunk in self.chunks if chunk.then is None and chunk.today is not None]

    @property
    def allowed(self) -> Sequence[Chunk]:
        """Those that were refused, but would be carried out today."""
        return [chunk for chunk in self.chunks if chunk.then is not None and chunk.today is None]


def replay(episode: RecordedEpisode, limits: Limits | None = None, control: Control | None = None) -> Replay:
    """Ask an ideal arm, its keeper and its limits for all that was asked for, at the times at which it was.

    Args:
        episode: The recording.
        limits: Today's.
        control: Pace, by which chunks are planned of which no trajectory is recorded, as it was refused.

    Raises:
        BrokenEpisode: The recording cannot be read, or shows nothing of the arm.
        RobotConfigError: The limits do not fit the arm.
        NotArmed: The arm cannot stand where the episode begins.
    """
    asked = list(episode.asked())
    if not asked:
        return Replay([], None)
    stage = _Stage(episode, asked[0], limits or Limits())
    planner = ChunkPlanner(episode.model, control or Control(), stage.keeper.limits.joint_margin)
    chunks = []
    for each in asked:
        stage.go_on(each.now)
        alone = not stage.near(each.now)
        today = stage.try_out(each, planner, alone)
        chunks.append(Chunk(each.number, each.now, each.rejected, today, alone))
    stage.go_on(asked[-1].now if asked[-1].trajectory is None else float(asked[-1].trajectory.time[-1]))
    return Replay(chunks, stage.off)


class _Stage:
    """The ideal arm and its keeper, on the clock of the recording."""

    def __init__(self, episode: RecordedEpisode, first: Asked, limits: Limits) -> None:
        self._times, self._places, self._known = _way(episode)
        place = self._place(first.now)
        self.now = first.now
        self.arm = FakeArm(clock=lambda: self.now)
        self.arm.model, self.arm.q, self.arm.opening = episode.model, place[:-1].copy(), float(place[-1])
        self.keeper = Keeper(self.arm, limits, PERIOD, place[:-1])
        self.off: float | None = None
        self._apart = False
        self._begin(first.now)

    def go_on(self, until: float) -> None:
        """Let time pass, and compare the set-points."""
        while self.now + PERIOD <= until:
            self.now += PERIOD
            self.keeper.heartbeat(self.now)
            self.keeper.tick(self.now)
            if self._known and not self._apart and self._times[0] <= self.now <= self._times[-1]:
                self.off = max(self.off or 0.0, float(np.abs(self.arm.q - self._place(self.now)[:-1]).max()))

    def near(self, time: float) -> bool:
        """Tell whether the arm is where the recorded one was."""
        place = np.append(self.arm.q, self.arm.opening)
        return not self._apart and float(np.abs(place - self._place(time)).max()) <= NEAR

    def try_out(self, asked: Asked, planner: ChunkPlanner, alone: bool) -> str | None:
        """Ask for a chunk; say why it is refused, if it is."""
        place = self._place(asked.now)
        try:
            trajectory = _planned(asked, planner)
            if alone:
                receipt = self.keeper.guard.check(trajectory, asked.now, place[:-1], float(place[-1]))
            else:
                receipt = self.keeper.send(trajectory, asked.now)
        except (ActionRejected, NotArmed) as error:
            self._apart = self._apart or asked.rejected is None  # the recorded arm goes on, this one does not
            planner.accepted(None)  # as RolloutRunner: the next one begins where the arm stands
            return f"{type(error).__name__}: {error}"
        self._apart = self._apart or asked.rejected is not None
        planner.accepted(receipt.trajectory)
        return None

    def _begin(self, now: float) -> None:
        """Be ready when the episode begins."""
        self.now = now - HOMING
        self.keeper.connect(self.now)
        self.keeper.home(self.now)
        while self.keeper.mode == Mode.HOMING and self.now < now:
            self.now += PERIOD
            self.keeper.tick(self.now)
        self.keeper.allow(self.now)
        self.now = now
        self.keeper.begin(now)

    def _place(self, time: float) -> Array:
        """Give where the recorded arm was, angles and opening, f64[j + 1]."""
        return np.array([np.interp(time, self._times, column) for column in self._places.T])


def _planned(asked: Asked, planner: ChunkPlanner) -> JointTrajectory:
    """Give the trajectory that was asked for, or plan the chunk again.

    Raises:
        ActionRejected: It cannot be planned, or nothing of it is recorded.
    """
    if asked.trajectory is not None:
        return asked.trajectory
    if asked.action is None or asked.eef is None:
        raise ActionRejected(f"Only the refusal is recorded ({asked.rejected}), expected a chunk or a trajectory.")
    return planner.trajectory(asked.action, tool_pose(asked.eef), asked.observed, asked.now, asked.q)


def _way(episode: RecordedEpisode) -> tuple[Array, Array, bool]:
    """Give times f64[n] and places f64[n, j + 1] of set-points, or of measurements where those were not recorded."""
    for kind in ("sent_", ""):
        q, opening = f"{kind}q", f"{kind}opening"
        rows = [row for row in episode.rows if row[q] is not None and row[opening] is not None]
        if rows:
            found = {float(row["time"]): [*row[q], row[opening]] for row in rows}
            return np.array(sorted(found)), np.array([found[time] for time in sorted(found)], float), bool(kind)
    raise BrokenEpisode(f"{episode.path} does not show where the arm was; record its measurements.")


def told(result: Replay) -> str:
    """Describe a replay for people."""
    if not result.chunks:
        return "Nothing was asked for."
    begin = result.chunks[0].time
    lines = [
        f"  row {chunk.number} at {chunk.time - begin:.2f} s{', alone' if chunk.alone else ''}: {_verdict(chunk)}"
        for chunk in (*result.refused, *result.allowed)
    ]
    then, today = (sum(getattr(chunk, when) is not None for chunk in result.chunks) for when in ("then", "today"))
    off = "" if result.off is None else f"; set-points differ by at most {result.off:.4f} rad"
    lines.append(
        f"{len(result.chunks)} chunks: {then} refused then, {today} today; {len(result.refused)} of those carried out "
        f"then would be refused today, {len(result.allowed)} of those refused then would be carried out{off}."
    )
    if any(chunk.alone for chunk in result.chunks):
        lines.append("alone: checked from where the recorded arm was, as the replayed one had gone another way.")
    return "\n".join(lines)


def _verdict(chunk: Chunk) -> str:
    return (
        f"refused today, {chunk.today}" if chunk.today is not None else f"carried out today, refused then, {chunk.then}"
    )
