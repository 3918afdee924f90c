"""The trainer's side of the evaluator never waits, and gives up on one that fails."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from stand_ins import EPISODE, StillDriver, stand_in

from uva_lightning.robot.benches.fake import FakeBench
from uva_lightning.robot.control import Control
from uva_lightning.robot.errors import RobotConfigError
from uva_lightning.robot.evaluator_job import Job
from uva_lightning.robot.evaluator_process import EVENTS, Evaluator, EvaluatorProcess

PATIENCE = 60.0


class Side:
    """The trainer's side, on a clock that goes when it is told to."""

    def __init__(self, folder, how="works", **options):
        self.now, self.folder = 0.0, folder
        self.process = EvaluatorProcess(
            folder, Evaluator(**{"grace": 10.0, "stop": 1.0, **options}), stand_in(how), lambda: self.now, self.wait
        )

    def wait(self, seconds):
        time.sleep(0.01)
        self.now += seconds

    def submit(self, step=1, save=lambda folder: None):
        return self.process.submit(Job(step, FakeBench(), StillDriver(), Control(), episodes=2, budget=20.0), save)

    def outcome(self):
        """Give what comes, in real time and with the own clock standing."""
        end = time.monotonic() + PATIENCE
        while (found := self.process.collect()) is None:
            assert time.monotonic() < end
            time.sleep(0.01)
        return found

    def events(self):
        lines = (self.folder / EVENTS).read_text().splitlines()
        return [json.loads(line)["event"] for line in lines]


@pytest.fixture
def side(tmp_path):
    made = []

    def make(*args, **options):
        made.append(Side(tmp_path / "hardware", *args, **options))
        return made[-1]

    yield make
    for one in made:
        one.process.close()


def test_a_job_comes_back_as_a_result(side, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    one = side()
    assert one.process.collect() is None
    assert one.submit(7, lambda folder: (folder / "weights.ckpt").write_text("w"))
    found = one.outcome()
    assert (found.step, found.available, found.content["episodes"]) == (7, True, [EPISODE, EPISODE])
    assert found.content["files"] == ["job.json", "weights.ckpt"]
    assert not list((one.folder / "jobs").iterdir())
    assert (one.folder / "seen.txt").read_text().split()[1] == "None"  # it is no rank of the training
    one.submit(8)
    assert one.outcome().step == 8
    assert len((one.folder / "seen.txt").read_text().splitlines()) == 1  # the same process


def test_the_newest_waits_for_the_one_that_runs(side):
    one = side("hangs")
    for step in (1, 2, 3):
        assert one.submit(step)
    assert [path.name for path in (one.folder / "next").iterdir()] == ["step_00000003"]
    one.now = 31.0
    assert "no result within 30 s" in one.process.collect().content["reason"]
    assert [path.name for path in (one.folder / "jobs").iterdir()] == ["step_00000003"]
    assert len(one.events()) == one.events().index("unavailable") + 3  # then another process is started for it


@pytest.mark.parametrize("how", ["dies", "hangs", "deaf"])
def test_after_failures_in_a_row_no_more_are_tried(side, how):
    one = side(how)
    for step in (1, 2):
        assert one.submit(step)
        if how != "dies":
            assert one.process.collect() is None
            one.now += 31.0
        found = one.outcome()
        assert (found.step, found.available, found.content["episodes"]) == (step, False, [])
        assert ("status 7" if how == "dies" else "no result within") in found.content["reason"]
    assert one.process.broken
    assert not one.submit(3)
    assert one.events()[-2:] == ["breaker", "skipped"]


def test_a_killed_evaluator_is_started_again(side):
    one = side("hangs")
    one.submit(1)
    (pid, _) = wait_for(one.folder / "seen.txt")[0].split()
    os.kill(int(pid), signal.SIGKILL)
    assert "status -9" in one.outcome().content["reason"]
    one.submit(2)
    assert len(wait_for(one.folder / "seen.txt", 2)) == 2
    assert one.process.failures == 1


def test_an_absent_robot_is_no_failure(side):
    one = side("absent")
    for step in range(4):
        assert one.submit(step)
        assert not one.outcome().available
    assert one.process.failures == 0


def test_faults_of_the_arm_open_the_breaker_too(tmp_path):
    folder = tmp_path / "hardware"
    process = EvaluatorProcess(folder, Evaluator(breaker=1), stand_in(ended="fault", label="invalid"))
    side = Side.__new__(Side)
    side.process, side.folder = process, folder
    side.submit(1)
    assert side.outcome().available
    assert process.broken
    process.close()


def test_the_end_waits_but_not_long(side):
    one = side("hangs", wait_at_end=5.0)
    one.submit(1)
    assert one.process.await_last() == []
    assert 5.0 <= one.now < 6.0
    assert one.events()[-1] == "left"
    two = side()
    two.submit(1), two.submit(2)
    assert [outcome.step for outcome in two.process.await_last()] == [1, 2]


def test_closing_ends_even_a_deaf_one(side):
    one = side("deaf")
    one.submit(1)
    (pid, _) = wait_for(one.folder / "seen.txt")[0].split()
    time.sleep(0.1)  # until it is deaf
    one.process.close()
    assert not alive(int(pid))
    one.process.close()  # again is harmless


def test_jobs_of_an_earlier_run_are_forgotten(tmp_path):
    (tmp_path / "hardware" / "jobs" / "step_00000001").mkdir(parents=True)
    EvaluatorProcess(tmp_path / "hardware", Evaluator())
    assert not (tmp_path / "hardware" / "jobs").exists()


def test_options_out_of_range_are_refused():
    with pytest.raises(RobotConfigError, match=r"evaluator\.breaker is 0, expected at least 1"):
        Evaluator(breaker=0)


@pytest.mark.skipif(not hasattr(os, "SCHED_IDLE"), reason="this system has no idle class")
def test_it_takes_the_time_that_nobody_wants_from_the_first_instruction_on(tmp_path):
    wait = (sys.executable, "-c", "import time; time.sleep(60)")
    for nice, kind in ((19, os.SCHED_IDLE), (3, os.sched_getscheduler(0))):
        process = EvaluatorProcess(tmp_path / str(nice), Evaluator(nice=nice, stop=0.0), wait)
        process.submit(Job(1, FakeBench(), StillDriver(), Control()), lambda part: None)
        pid = process._process.pid
        try:
            assert os.sched_getscheduler(pid) == kind
            assert os.getpriority(os.PRIO_PROCESS, pid) == min(19, os.getpriority(os.PRIO_PROCESS, 0) + nice)
            assert (os.getsid(pid), os.getpgid(pid)) == (os.getsid(0), pid)  # Ctrl-C is not for it
        finally:
            process.close()


TRAINER = """
import sys, time
from pathlib import Path
from stand_ins import SlowBench, StillDriver
from uva_lightning.robot.control import Control
from uva_lightning.robot.evaluator_job import Job
from uva_lightning.robot.evaluator_process import Evaluator, EvaluatorProcess
folder = Path(sys.argv[1])
process = EvaluatorProcess(folder, Evaluator(nice=0))
bench = SlowBench(diary=str(folder / "diary.txt"))
process.submit(Job(1, bench, StillDriver(), Control(), dry_run=False), lambda part: None)
(folder / "pid.txt").write_text(str(process._process.pid))
time.sleep(600)
"""


@pytest.mark.slow
@pytest.mark.parametrize("fate", [signal.SIGKILL, signal.SIGSTOP])
def test_the_arm_is_parked_when_the_trainer_is_killed_or_stopped(tmp_path, fate):
    """Nobody can tell the evaluator; it sees that its parent is another one, or stands still."""
    paths = [str(Path(__file__).parents[1] / "src"), str(Path(__file__).parent / "support")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}
    trainer = subprocess.Popen([sys.executable, "-c", TRAINER, str(tmp_path)], env=environment)
    evaluator = 0
    try:
        assert "begins" in wait_for(tmp_path / "diary.txt")
        evaluator = int((tmp_path / "pid.txt").read_text())
        trainer.send_signal(fate)
        killed = time.monotonic()
        if fate == signal.SIGKILL:
            trainer.wait()
        assert wait_for(tmp_path / "diary.txt", 3) == ["begins", "holds", "parked"]
        assert time.monotonic() - killed < 30
        end = time.monotonic() + PATIENCE
        while alive(evaluator) and time.monotonic() < end:
            time.sleep(0.05)
        assert not alive(evaluator)
    finally:
        trainer.kill()
        if evaluator and alive(evaluator):
            os.kill(evaluator, signal.SIGKILL)


def wait_for(path, lines=1):
    end = time.monotonic() + PATIENCE
    while not path.exists() or len(path.read_text().splitlines()) < lines:
        assert time.monotonic() < end, f"{path} has no {lines} lines"
        time.sleep(0.02)
    return path.read_text().splitlines()


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    try:
        return ") Z" not in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return True
