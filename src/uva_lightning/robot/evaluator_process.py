"""The trainer's side of the evaluator: start it, give it jobs, take results, and never wait for it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from uva_lightning.robot.errors import RobotConfigError
from uva_lightning.robot.evaluator_job import JOBS, RESULT, RESULTS, Job
from uva_lightning.robot.rollout import Ended
from uva_lightning.whole_files import whole_folder

LEAST = 19
"""Largest niceness."""
EVENTS, OUTPUT, NEXT = "events.jsonl", "evaluator.log", "next"
OF_THE_RANK = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "NODE_RANK", "MASTER_ADDR", "MASTER_PORT")
"""Variables that would make the evaluator believe that it is a rank of the training."""


@dataclass(frozen=True)
class Evaluator:
    """How the evaluator process runs.

    Args:
        nice: Added to its niceness; 10 gets about a tenth of a core where all are wanted. From 19 on it also gets the
            idle class of Linux's scheduler: time that nobody else wants. Lower it for a real arm on a busy machine.
        threads: Of its policy.
        grace: Beyond the budget for starting, loading and ending, after which it counts as hanging, s.
        wait_at_end: Longest time that the end of training waits for the last result, s.
        stop: Time that it has to park the arm when it is told to end, before it is killed, s.
        breaker: Failures in a row, its own or the arm's, after which no more episodes are run in this training.
    """

    nice: int = 10
    threads: int = 1
    grace: float = 180.0
    wait_at_end: float = 60.0
    stop: float = 20.0
    breaker: int = 2

    def __post_init__(self) -> None:
        for name, least in (("nice", 0), ("threads", 1), ("grace", 1), ("wait_at_end", 0), ("stop", 0), ("breaker", 1)):
            if not least <= getattr(self, name) < float("inf"):
                raise RobotConfigError(f"evaluator.{name} is {getattr(self, name)}, expected at least {least}.")


@dataclass(frozen=True)
class Outcome:
    """What became of a job.

    Args:
        step: Of the training whose weights were tried.
        content: Of its ``result.json``; without episodes where there was none.
        folder: With films.
    """

    step: int
    content: Mapping[str, Any]
    folder: Path

    @property
    def available(self) -> bool:
        """Whether episodes could be run."""
        return bool(self.content["available"])


class EvaluatorProcess:
    """Give jobs to an evaluator and take results; it is started by the first job, and again after it has failed.

    Args:
        folder: Of jobs, results and logs.
        options: How it runs.
        command: Program and arguments before the folder; the evaluator of this package if not given.
        clock: Gives the time in s.
        wait: Lets so many seconds pass.
    """

    def __init__(
        self,
        folder: Path,
        options: Evaluator,
        command: Sequence[str] = (sys.executable, "-m", "uva_lightning.robot.evaluator"),
        clock: Callable[[], float] = time.monotonic,
        wait: Callable[[float], object] = time.sleep,
    ) -> None:
        self.folder, self.options, self._command = folder, options, tuple(command)
        self._clock, self._wait = clock, wait
        self._process: subprocess.Popen[bytes] | None = None
        self._job: Job | None = None
        self._next: Job | None = None
        self._end = 0.0
        self.failures = 0
        for place in (JOBS, NEXT):  # of an earlier run: nobody waits for them any more
            shutil.rmtree(folder / place, ignore_errors=True)

    @property
    def broken(self) -> bool:
        """Whether it has failed too often."""
        return self.failures >= self.options.breaker

    def submit(self, job: Job, save: Callable[[Path], object]) -> bool:
        """Hand over a job; where one still runs it waits for that one, instead of another that has waited.

        Args:
            job: What to do.
            save: Writes what the job needs into its folder.

        Returns:
            Whether it will be done, as far as one knows; not after too many failures.
        """
        if self.broken:
            self.event("skipped", f"{job.name}: {self.failures} failures in a row")
            return False
        shutil.rmtree(self.folder / NEXT, ignore_errors=True)
        with whole_folder(self.folder / NEXT / job.name) as part:
            save(part)
            job.write(part)
        self._next = job
        if self._job is None:
            self._begin()
        return True

    def collect(self) -> Outcome | None:
        """Give what became of the job, if that is known by now; then the next one begins."""
        job, process = self._job, self._process
        if job is None or process is None:
            return None
        status = process.poll()  # before the look: what it wrote until its end is there
        folder = self.folder / RESULTS / job.name
        if (folder / RESULT).is_file():
            return self._over(job, json.loads((folder / RESULT).read_text()))
        if status is not None:
            return self._over(job, nothing(f"The evaluator ended with status {status}; see {self.folder / OUTPUT}."))
        if self._clock() > self._end:
            self._kill()
            return self._over(job, nothing(f"The evaluator gave no result within {self._patience(job):g} s."))
        return None

    def await_last(self) -> list[Outcome]:
        """Wait for what is still to be done, but not long; gives what became of it."""
        end, outcomes = self._clock() + self.options.wait_at_end, list[Outcome]()
        while (job := self._job) is not None:
            if (outcome := self.collect()) is not None:
                outcomes.append(outcome)
            elif self._clock() >= end:
                self.event("left", f"{job.name}: training ended before it was done")
                break
            else:
                self._wait(0.1)
        return outcomes

    def close(self) -> None:
        """Have it park the arm and end; kill it where it does not."""
        process, self._job, self._next = self._process, None, None
        if process is None:
            return
        with suppress(ProcessLookupError):
            process.terminate()
        end = self._clock() + self.options.stop
        while process.poll() is None and self._clock() < end:
            self._wait(0.05)
        self._kill()

    def event(self, kind: str, text: str) -> None:
        """Add a line to the log; where even that fails there is nobody to tell."""
        line = json.dumps({"time": time.time(), "event": kind, "text": text})
        with suppress(OSError):
            self.folder.mkdir(parents=True, exist_ok=True)
            with (self.folder / EVENTS).open("a") as file:
                file.write(f"{line}\n")

    def _begin(self) -> None:
        """Let the evaluator see the job that has waited."""
        job, self._next = self._next, None
        if job is None or self.broken:
            return
        for folder in (JOBS, RESULTS):
            shutil.rmtree(self.folder / folder / job.name, ignore_errors=True)
        (self.folder / JOBS).mkdir(parents=True, exist_ok=True)
        (self.folder / NEXT / job.name).rename(self.folder / JOBS / job.name)
        if self._process is None or self._process.poll() is not None:
            self._start()
        self._job, self._end = job, self._clock() + self._patience(job)
        self.event("submitted", job.name)

    def _patience(self, job: Job) -> float:
        """Time after which a job without a result counts as hanging, s."""
        return job.budget + self.options.grace

    def _over(self, job: Job, content: Mapping[str, Any]) -> Outcome:
        self._job = None
        shutil.rmtree(self.folder / JOBS / job.name, ignore_errors=True)
        failed = content.get("error") or any(row["ended"] == Ended.FAULT for row in content["episodes"])
        self.failures = self.failures + 1 if failed else 0
        self.event("result" if content["available"] else "unavailable", f"{job.name}: {content['reason'] or 'done'}")
        if self.broken:
            self.event("breaker", f"{self.failures} failures in a row: no more episodes in this training")
        self._begin()
        return Outcome(job.step, content, self.folder / RESULTS / job.name)

    def _start(self) -> None:
        environment = {name: value for name, value in os.environ.items() if name not in OF_THE_RANK}
        environment["OMP_NUM_THREADS"] = str(self.options.threads)
        how = [f"--threads={self.options.threads}", f"--parent={os.getpid()}"]
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / OUTPUT).open("ab") as output:
            self._process = subprocess.Popen(
                [*self._command, str(self.folder), *how],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=environment,
                process_group=0,  # Ctrl-C is for the trainer, which then ends it in peace
            )
        step_back(self._process.pid, self.options.nice)
        self.event("started", f"process {self._process.pid}")

    def _kill(self) -> None:
        """Kill it and whatever it has started, and bury it."""
        process, self._process = self._process, None
        if process is None:
            return
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        with suppress(subprocess.TimeoutExpired):
            process.wait(timeout=5.0)


def nothing(reason: str) -> dict[str, Any]:
    """Give the result of a job that was not done."""
    return {"available": False, "reason": reason, "episodes": [], "error": True}


def step_back(pid: int, nice: int) -> None:
    """Leave the processor to others, from the first instruction of a process on: its imports alone take seconds.

    It must not begin a session: sessions share the processor among each other (autogroups, ``sched(7)``), so in one of
    its own neither niceness nor class would count beside the training.

    Args:
        pid: Of the process.
        nice: Added to our niceness.
    """
    with suppress(ProcessLookupError):  # it has ended already, which others find out
        os.setpriority(os.PRIO_PROCESS, pid, min(LEAST, os.getpriority(os.PRIO_PROCESS, 0) + nice))
        if nice >= LEAST and hasattr(os, "SCHED_IDLE"):
            with suppress(PermissionError):  # a container may forbid it; then the niceness alone has to do
                os.sched_setscheduler(pid, os.SCHED_IDLE, os.sched_param(0))
