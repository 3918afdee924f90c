"""Episodes of one checkpoint on one bench, and what is written about them."""

from __future__ import annotations

import json
import logging
import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from uva_lightning.metrics.jerk import jerks
from uva_lightning.results import sha256, versions, write_json
from uva_lightning.robot.benches.base import Recorder, Recording, Session, dry
from uva_lightning.robot.camera import Frames
from uva_lightning.robot.chain import Array
from uva_lightning.robot.errors import RobotError
from uva_lightning.robot.evaluator_job import EPISODES, RESULT, RESULTS, WEIGHTS, Job, waiting
from uva_lightning.robot.filming import Filmed, write_films
from uva_lightning.robot.operator import Label, Operator
from uva_lightning.robot.recorder_rows import step_row
from uva_lightning.robot.rollout import ChunkPolicy, Ended, EpisodeResult, RolloutRunner, Step
from uva_lightning.robot.sight import Observation
from uva_lightning.whole_files import whole_folder

log = logging.getLogger(__name__)
ROOM = 2**28
"""Bytes that have to be free for a recording of a bench in this process."""


class Bounded(Operator):
    """An operator who also ends episodes when there is no more time.

    Args:
        operator: Who decides otherwise.
        over: Tells whether there is none.
    """

    def __init__(self, operator: Operator, over: Callable[[], bool]) -> None:
        self._operator, self._over = operator, over

    def confirm(self, episode: int) -> bool:
        """Ask, if there is time."""
        return not self._over() and self._operator.confirm(episode)

    def label(self, episode: int) -> Label:
        """An episode that was cut off says nothing about the policy."""
        return Label.INVALID if self._over() else self._operator.label(episode)

    def should_stop(self) -> bool:
        """Stop when there is no more time."""
        return self._over() or self._operator.should_stop()


class Timed:
    """A policy whose decisions are timed, on the wall: time of a simulation does not pass meanwhile."""

    def __init__(self, policy: ChunkPolicy) -> None:
        self._policy, self.took = policy, list[float]()

    def reset(self, seed: int) -> None:
        """Begin an episode."""
        self._policy.reset(seed)
        self.took = []

    def act(self, observation: Observation) -> Array:
        """Decide."""
        begin = time.perf_counter()
        try:
            return self._policy.act(observation)
        finally:
            self.took.append(time.perf_counter() - begin)


def serve(folder: Path, ending: Callable[[], bool], pause: Callable[[], object]) -> None:
    """Run jobs as they come.

    Args:
        folder: Of jobs and results.
        ending: Tells whether to end, also in the middle of an episode.
        pause: Waits a moment.
    """
    while not ending():
        jobs = waiting(folder)
        if not jobs:
            pause()
            continue
        content = tried(jobs[0], folder / RESULTS / jobs[0].name, ending)
        log.info("%s: %s", jobs[0].name, content["reason"] or "done")
        shutil.rmtree(jobs[0], ignore_errors=True)


def tried(place: Path, out: Path, ending: Callable[[], bool]) -> dict[str, Any]:
    """Run a job and write its result, whatever happens."""
    shutil.rmtree(out, ignore_errors=True)  # of an earlier try
    with whole_folder(out) as part:
        try:
            content = run(Job.read(place), place / WEIGHTS, part, out.parents[1] / EPISODES, ending)
        except Exception as error:  # the trainer has to hear of it
            log.exception("%s failed", place.name)
            said = f"{type(error).__name__}: {error}"
            content = {"available": False, "reason": said, "episodes": [], "error": not isinstance(error, RobotError)}
        write_json(part / RESULT, {**content, "cpu_seconds": time.process_time(), "versions": versions()})
    return content


def run(job: Job, weights: Path, out: Path, recordings: Path, ending: Callable[[], bool]) -> dict[str, Any]:
    """Run the episodes of a job.

    Args:
        job: What to do.
        weights: Checkpoint.
        out: Folder for films.
        recordings: Folder for recordings, where the bench has none of its own.
        ending: Tells whether to end early.

    Returns:
        Content of ``result.json``.

    Raises:
        RobotError: The bench cannot be opened.
    """
    end = time.monotonic() + job.budget

    def over() -> bool:
        return ending() or time.monotonic() > end

    session = job.bench.open(job.seed)
    try:
        used = dry(session) if job.dry_run else session
        recorder, note = (used.recorder, "") if used.recorder else own_recorder(recordings)
        played = Episodes(job, used, weights, recorder, over)
        reasons = [played.run(), note]
    finally:
        with suppress(RobotError):
            session.close()
    try:
        write_films(out, played.films, job.control.rate_hz)
    except (ImportError, OSError) as error:  # numbers count without pictures
        reasons.append(f"No films: {error}")
    rows, reason = played.rows, " ".join(filter(None, reasons))
    return {"step": job.step, "available": bool(rows), "dry_run": job.dry_run, "reason": reason, "episodes": rows}


class Episodes:
    """Run the episodes of a job on an open bench, and write them down.

    Args:
        job: What to do.
        session: Where.
        weights: Checkpoint.
        recorder: Writes episodes down; None if nobody can.
        over: Tells whether there is no more time.
    """

    def __init__(
        self, job: Job, session: Session, weights: Path, recorder: Recorder | None, over: Callable[[], bool]
    ) -> None:
        driving = job.driver.build(session, job.control, weights, job.seed)
        self.job, self.session, self.control, self._over = job, session, driving.control, over
        self._policy, self._cameras = Timed(driving.policy), [Filmed(camera) for camera in session.cameras]
        self._recorder = recorder
        self._recording: Recording | None = None
        limits = asdict(session.limits)
        facts = {"arm": session.station.model.name, "limits": limits, "config": job.record()}
        self._meta = {"policy": weights_of(job, weights), "task": task_of(job), **json.loads(json.dumps(facts))}
        self.rows, self.films = list[dict[str, Any]](), list[list[list[Frames]]]()
        self._runner = RolloutRunner(
            self._policy,
            session.station,
            self._cameras,
            Bounded(session.operator, over),
            driving.control,
            driving.history,
            session.clock,
            session.wait,
            self._write,
            driving.constant,
        )

    def run(self) -> str:
        """Run them; gives why there are fewer than asked for."""
        faults = 0
        for episode in range(self.job.episodes):
            if self._over():
                return f"Time was up after {episode} of {self.job.episodes} episodes."
            try:
                result = self._one(episode)
            except RobotError as error:  # nobody is there, the scene could not be set up, or nothing can be written
                return f"Episode {episode} failed: {type(error).__name__}: {error}"
            self.rows.append(row(result, self._policy.took, self.control.period))
            faults += result.ended == Ended.FAULT
            if faults >= self.job.faults:
                return f"The arm had {faults} faults; the last one: {result.reason}"
        return ""

    def _one(self, episode: int) -> EpisodeResult:
        recording, seed = None, self.job.seed + episode
        self._policy.took = []
        for camera in self._cameras:
            camera.begin()
        if self._recorder is not None:
            recording = self._recorder.begin({**self._meta, "seed": seed, "episode": episode})
        self._listen(recording)
        label, reason = Label.INVALID, "It was broken off."
        try:
            result = self._runner.run(episode, seed)
            label, reason = result.label, result.reason
        finally:
            self._listen(None)
            if recording is not None:
                self._drain(recording)
                recording.end(label, reason)
        if episode < self.job.films:
            self.films.append([camera.frames for camera in self._cameras])
        return result

    def _listen(self, recording: Recording | None) -> None:
        self._recording = recording
        for camera in self._cameras:
            camera.recording = recording

    def _write(self, step: Step) -> None:
        if self._recording is not None:
            self._recording.step(step_row(step, self.session.station.model.chain))
            self._drain(self._recording)

    def _drain(self, recording: Recording) -> None:
        """Write what happened to the arm."""
        for time_, kind, text in self.session.events:
            recording.event(kind, text, time_)
        self.session.events.clear()


def weights_of(job: Job, weights: Path) -> dict[str, Any]:
    """Say which policy drives."""
    found = {"driver": type(job.driver).__name__, "step": job.step}
    return {**found, "sha256": sha256(weights)} if job.driver.trained else found


def task_of(job: Job) -> str:
    """Give the instruction, where there is one."""
    return str(getattr(job.driver, "instruction", None) or "")


def own_recorder(folder: Path) -> tuple[Recorder | None, str]:
    """Make a recorder for a bench that has none, or say why there is none."""
    try:
        from uva_lightning.robot.recorder import Recorder as EpisodeRecorder

        return EpisodeRecorder(folder, ROOM), ""
    except ImportError as error:
        return None, f"No recordings: {error}"


def row(result: EpisodeResult, took: list[float], period: float) -> dict[str, Any]:
    """Give what is kept of an episode.

    Args:
        result: Of it.
        took: Times of the policy's decisions, s.
        period: Of a step, s.
    """
    times = {**result.latencies(), "inference": np.array(took)}
    jerks = [jerk(step.action, period) for step in result.steps if step.action is not None]
    return {
        "episode": result.episode,
        "label": str(result.label),
        "ended": str(result.ended),
        "reason": result.reason,
        "duration": result.duration,
        "steps": len(result.steps),
        "chunks": result.chunks,
        "rejected": result.rejected,
        "points": result.points,
        "clipped": result.clipped,
        "latency": {name: [round(float(value), 6) for value in values] for name, values in times.items()},
        "jerk": [value for value in jerks if np.isfinite(value)],
    }


def jerk(action: Array, period: float) -> float:
    """Give the root of the mean squared third derivative of a chunk's positions, f[h, 10], in m/s^3."""
    found = jerks(np.asarray(action, float)[:, :3], 1 / period)
    return float(np.sqrt(np.square(found).mean())) if len(found) else 0.0
