"""One episode on an arm: observe, let a policy act, check, send, log. No thread and no clock of its own."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from uva_lightning.robot.arm import JointTrajectory
from uva_lightning.robot.camera import Camera
from uva_lightning.robot.chain import Array
from uva_lightning.robot.control import ChunkPlanner, Control
from uva_lightning.robot.errors import ActionRejected, BadShape, RobotError, Stale
from uva_lightning.robot.operator import Label, Operator
from uva_lightning.robot.sight import History, Observation, Sight, Watcher
from uva_lightning.robot.station import Station

BEAT = 0.1
"""Longest time without a heartbeat while it waits, s."""


class ChunkPolicy(Protocol):
    """What decides; ``WindowPolicy`` is one."""

    def reset(self, seed: int) -> None:
        """Begin an episode."""

    def act(self, observation: Observation) -> NDArray[Any]:
        """Decide what to do: f[1, h, 10], as ``tool_poses.targets`` takes them."""


class Ended(StrEnum):
    """Why an episode was over."""

    REFUSED = "refused"
    OPERATOR = "operator"
    LENGTH = "length"
    REJECTED = "rejected"
    FAULT = "fault"


@dataclass(frozen=True)
class Step:
    """What happened at one step.

    Args:
        number: Of the step.
        time: When it was done with observing, s.
        observed: When the newest frame was taken, or the arm measured if that was earlier, s.
        q: Angles f64[j] then, rad.
        opening: Of the gripper then, m.
        late: How much later than planned the step began, s.
        inference: Duration of the policy's part, s; None where it was not asked.
        action: What it said, f64[h, 10].
        sent: Trajectory that was accepted.
        clipped: Numbers of its way-points at which the gripper was slowed or kept in its range.
        rejected: Why nothing was sent.
    """

    number: int
    time: float
    observed: float
    q: Array
    opening: float
    late: float
    inference: float | None = None
    action: Array | None = None
    sent: JointTrajectory | None = None
    clipped: Sequence[int] = ()
    rejected: str | None = None


@dataclass(frozen=True)
class EpisodeResult:
    """How an episode went.

    Args:
        episode: Its number.
        label: What the operator says.
        ended: Why it was over.
        reason: In a sentence.
        duration: s.
        steps: All of them.
    """

    episode: int
    label: Label
    ended: Ended
    reason: str
    duration: float = 0.0
    steps: Sequence[Step] = field(default=(), repr=False)

    @property
    def chunks(self) -> int:
        """How often a chunk was asked for."""
        return sum(step.sent is not None or step.rejected is not None for step in self.steps)

    @property
    def rejected(self) -> int:
        """How many chunks were refused or failed."""
        return sum(step.rejected is not None for step in self.steps)

    @property
    def points(self) -> int:
        """How many way-points were accepted."""
        return sum(len(step.sent.time) for step in self.steps if step.sent is not None)

    @property
    def clipped(self) -> int:
        """How many of them were changed."""
        return sum(len(step.clipped) for step in self.steps)

    def latencies(self) -> dict[str, Array]:
        """Give f64[n] in s: ``age`` of the newest frame, ``inference``, and how ``late`` steps began."""
        return {
            "age": np.array([step.time - step.observed for step in self.steps]),
            "inference": np.array([step.inference for step in self.steps if step.inference is not None]),
            "late": np.array([step.late for step in self.steps]),
        }


class RolloutRunner:
    """Run episodes. Nothing that happens to the robot is raised: it is in the result.

    Args:
        policy: That decides.
        station: With the arm.
        cameras: Connected ones, best within ``FreshCamera``.
        operator: Who allows and labels.
        control: Pace.
        history: What the policy sees; has to be as in its data.
        clock: Gives the time in s, on which cameras and station are too.
        wait: Lets so many seconds pass.
        record: Told of every step as soon as it is over.
        constant: Further entries of every observation, such as ``{"text": {"instruction": f32[1, 512]}}``.

    Raises:
        RobotConfigError: The station expects another pace.
    """

    def __init__(
        self,
        policy: ChunkPolicy,
        station: Station,
        cameras: Sequence[Camera],
        operator: Operator,
        control: Control | None = None,
        history: History | None = None,
        clock: Callable[[], float] = time.monotonic,
        wait: Callable[[float], object] = time.sleep,
        record: Callable[[Step], object] | None = None,
        constant: Observation | None = None,
    ) -> None:
        self.policy, self.station, self.operator = policy, station, operator
        self.control = control or Control()
        self.control.check_rate(station.rate_hz)
        self.clock, self.wait = clock, wait
        self._record = record or (lambda step: None)
        self._constant: Mapping[str, Any] = constant or {}
        self._watcher = Watcher(cameras, station.model.chain, history or History(), self.control.period)
        self._planner = ChunkPlanner(station.model, self.control, station.joint_margin)

    def run(self, episode: int = 0, seed: int = 0) -> EpisodeResult:
        """Run an episode; the arm holds afterwards, whatever happened.

        Args:
            episode: Its number, for the operator and the log.
            seed: Of the policy.
        """
        if not self.operator.confirm(episode):
            return EpisodeResult(episode, Label.INVALID, Ended.REFUSED, "The operator did not allow it.")
        steps, began = list[Step](), self.clock()
        try:
            ended, reason = self._drive(seed, steps)
        except RobotError as error:
            ended, reason = Ended.FAULT, f"{type(error).__name__}: {error}"
            self._hold(reason)
        finally:
            self._hold("the episode is over")
        duration = self.clock() - began
        label = Label.INVALID if ended == Ended.FAULT else self.operator.label(episode)
        return EpisodeResult(episode, label, ended, reason, duration, tuple(steps))

    def _drive(self, seed: int, steps: list[Step]) -> tuple[Ended, str]:
        """Fill the list of steps until the episode is over; give why."""
        control = self.control
        self._watcher.reset()
        self._planner.accepted(None)
        self.policy.reset(seed)
        self.station.begin()
        due, planned, rejects = self.clock(), -control.execute, 0
        for number in range(control.max_steps):
            if self.operator.should_stop():
                return Ended.OPERATOR, "The operator ended it."
            self.station.heartbeat()
            step, sight = self._observe(number, due)
            if number - planned >= control.execute or rejects:  # after a refusal at every step
                step = self._plan(step, sight)
                planned, rejects = (planned, rejects + 1) if step.sent is None else (number, 0)
            steps.append(step)
            self._record(step)
            if rejects >= control.max_rejects:
                return Ended.REJECTED, f"{rejects} chunks in a row were refused, the last one: {step.rejected}"
            due = max(due + control.period, self.clock())
            self._pass(due)
        return Ended.LENGTH, f"It took all of its {control.max_steps} steps."

    def _observe(self, number: int, due: float) -> tuple[Step, Sight]:
        begin, state = self.clock(), self.station.state()
        sight = self._watcher.look(state)
        oldest = min(sight.time, state.time)
        step = Step(number, self.clock(), oldest, sight.q, sight.opening, begin - due)
        return step, sight

    def _plan(self, step: Step, sight: Sight) -> Step:
        """Ask the policy and send what it says; whatever is wrong with that is in the step."""
        values, begin = dict(vars(step)), self.clock()
        try:
            self._check_age(step)
            action = self._act()
            values |= {"inference": self.clock() - begin, "action": action}
            trajectory = self._planner.trajectory(action, sight.pose, sight.time, self.clock(), sight.q)
            receipt = self.station.send(trajectory)
        except ActionRejected as error:
            rejected = f"{type(error).__name__}: {error}"
            self.station.pause(rejected)
            self._planner.accepted(None)  # the next one begins where the arm stands
            return Step(**values | {"rejected": rejected})
        self._planner.accepted(receipt.trajectory)
        return Step(**values | {"sent": receipt.trajectory, "clipped": receipt.clipped})

    def _act(self) -> Array:
        """Give the chunk f64[h, 10].

        Raises:
            ActionRejected: The policy raised an error; a robot must not depend on which.
            BadShape: It is not one chunk.
        """
        try:
            said = np.asarray(self.policy.act({**self._watcher.observation(), **self._constant}), float)
        except Exception as error:
            raise ActionRejected(f"The policy failed ({type(error).__name__}: {error}).") from error
        if said.ndim != 3 or len(said) != 1:
            raise BadShape(f"The policy gives shape {said.shape}, expected (1, h, 10): one chunk.")
        chunk: Array = said[0]
        return chunk

    def _check_age(self, step: Step) -> None:
        age = step.time - step.observed
        if age > self.control.observation_age:
            raise Stale(
                f"The newest observation is {age:.2f} s old, expected at most {self.control.observation_age:g} s; are "
                "the clocks the same, is a camera slow?"
            )

    def _pass(self, due: float) -> None:
        """Let time pass, not without a sign of life."""
        while (left := due - self.clock()) > 1e-9:
            self.wait(min(left, BEAT))
            self.station.heartbeat()

    def _hold(self, reason: str) -> None:
        """Hold; where even that fails the watchdogs do it."""
        with contextlib.suppress(RobotError):
            self.station.hold(reason)
