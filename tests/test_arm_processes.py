"""Processes that hang or are killed: the arm stands, parks and goes soft, whoever is left."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from arm_bench import READY
from logged_arm import sent

from uva_lightning.robot.driver import Event, Status
from uva_lightning.robot.driver_channel import TickWatch, model_message, read_model, read_status, status_message
from uva_lightning.robot.driver_child import DriverOptions
from uva_lightning.robot.driver_process import DriverProcess
from uva_lightning.robot.errors import DriverDead, NotArmed, OutOfLimits, RobotConfigError
from uva_lightning.robot.fake_arm import FakeArm
from uva_lightning.robot.keeper import Mode
from uva_lightning.robot.limits import Limits
from uva_lightning.robot.server_floor import Floor
from uva_lightning.robot.server_log import EventLog
from uva_lightning.robot.watchdogs import Watchdogs
from uva_lightning.serving.wire import decode, encode

ROOT = Path(__file__).parents[1]
ENVIRONMENT = {
    **os.environ,
    "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT / "tests" / "support"), str(ROOT)]),
}
WIDE = {"workspace_min": [-1, -1, -1], "workspace_max": [1, 1, 1]}
CALM = {"hold": 2.0, "park": 3.0, "state_age": 2.0, "tracking": 2.0}
"""Tests share their processor."""
PATIENCE = 20.0


def options(folder, **changes):
    arm = {"class_path": "logged_arm.LoggedArm", "init_args": {"folder": str(folder), "q": READY.tolist()}}
    return DriverOptions(
        **{"arm": arm, "limits": Limits(**WIDE), "watchdogs": Watchdogs(**CALM), "rest": tuple(READY), **changes}
    )


def until(condition, what):
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, what
        time.sleep(0.02)


def test_a_silent_counter_is_noticed():
    watch = TickWatch(0.0)
    assert watch.silent(0, 1.0) == 0.0
    assert watch.silent(1, 1.1) == 0.0
    assert watch.silent(1, 1.4) == pytest.approx(0.3)
    assert watch.silent(2, 1.5) == 0.0


def test_status_and_model_come_through():
    arm, events = FakeArm(), [Event(1.0, "hold", "test")]
    for state in (arm.state(), None):
        status = Status(2.0, Mode.HOLD, "test", state, None if state is None else np.arange(7.0))
        found, heard = read_status(decode(encode(status_message(status, events))))
        assert (found.time, found.mode, found.reason, heard) == (2.0, Mode.HOLD, "test", events)
        if state is not None:
            np.testing.assert_array_equal(found.state.q, state.q)
            np.testing.assert_array_equal(found.set_point, np.arange(7.0))
    model = read_model(decode(encode(model_message(arm.model))))
    np.testing.assert_array_equal(model.chain.forward(READY), arm.model.chain.forward(READY))


@pytest.fixture
def started(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", ENVIRONMENT["PYTHONPATH"])
    made = []

    def start(**changes):
        made.append(DriverProcess(options(tmp_path, **changes), late=0.3, dead=1.0, answer=5.0))
        return made[-1]

    yield start
    for driver in made:
        driver.process.kill()
        driver.process.wait()


@pytest.mark.slow
def test_a_driver_that_hangs_is_dead_for_good(started, tmp_path):
    driver = started()
    floor = Floor(driver, log=EventLog(tmp_path / "events.jsonl"))
    with pytest.raises(NotArmed):
        driver.ask("begin", 0.0)
    driver.ask("home", time.monotonic())
    until(lambda: driver.status().mode == Mode.HOMED, "it is not at home")
    driver.ask("allow", time.monotonic())
    driver.ask("begin", time.monotonic())
    far = {"time": np.array([time.monotonic() + 3]), "q": READY[None] + 9, "opening": np.array([0.08])}
    with pytest.raises(OutOfLimits):
        driver.ask("send", 0.0, **far, valid_until=far["time"])
    until(lambda: driver.status().mode == Mode.RUNNING, "it does not run")
    begin = time.monotonic()
    (tmp_path / "hang").touch()
    until(lambda: floor.tick() or floor._dead, "nobody has noticed")
    assert time.monotonic() - begin < 5
    for _ in range(2):  # even if it goes on
        with pytest.raises(DriverDead, match="hangs: no tick for .* Press the emergency stop"):
            floor.ready()
    kinds = [json.loads(line)["kind"] for line in (tmp_path / "events.jsonl").read_text().splitlines()]
    assert kinds.count("dead") == 1
    assert {"late", "running"} <= set(kinds)
    times, _, places = sent(tmp_path)
    assert np.abs(places[-1, :6] - READY).max() < 0.01  # its last set-point stands
    driver.close()  # it does not wait for one that hangs, nor kills it: the arm might fall
    assert driver.process.poll() is None
    assert "kill -9" in driver.events()[-1].text


@pytest.mark.slow
def test_a_driver_that_breaks_leaves_the_arm_soft(started, tmp_path):
    driver = started()
    driver.ask("home", time.monotonic())
    until(lambda: driver.status().mode == Mode.HOMED, "it is not at home")
    assert not sent(tmp_path)[1][-1]
    (tmp_path / "break").touch()
    until(lambda: driver.process.poll() is not None, "it goes on")
    assert sent(tmp_path)[1][-1]
    with pytest.raises(DriverDead, match=r"has ended \(status 1\)"):
        driver.status()


@pytest.mark.slow
def test_a_driver_says_why_it_cannot_begin(started):
    with pytest.raises(RobotConfigError, match=r"The arm .*NoArm.* cannot be made"):
        started(arm={"class_path": "uva_lightning.robot.fake_arm.NoArm"})
    with pytest.raises(RobotConfigError, match="expected at most 5, which X5_umi can do"):
        started(limits=Limits(joint_velocity=9.0))


@pytest.mark.slow
@pytest.mark.skipif(find_spec("mujoco") is None, reason="needs MuJoCo, extra [sim]")
def test_a_simulated_arm_comes_home_and_parks(started):
    world = {"class_path": "uva_lightning.robot.mujoco_world.MujocoWorld", "init_args": {"clock": "time.monotonic"}}
    driver = started(arm={"class_path": "uva_lightning.robot.mujoco_arm.MujocoArm", "init_args": {"world": world}})
    np.testing.assert_allclose(driver.status().state.q, 0, atol=0.01)
    driver.ask("home", time.monotonic())
    until(lambda: driver.status().mode in (Mode.HOMED, Mode.FAULT), "it is not at home")
    status = driver.status()
    assert status.mode == Mode.HOMED, status.reason
    np.testing.assert_allclose(status.state.q, READY, atol=0.03)
    driver.ask("park", time.monotonic(), reason="test")
    until(lambda: driver.status().mode == Mode.IDLE, "it is not parked")
    assert driver.status().set_point is None  # soft


CLIENT = """
import sys, time
import numpy as np
from uva_lightning.robot.arm import JointTrajectory
from uva_lightning.robot.remote import RemoteStation
from uva_lightning.robot.remote_operator import RemoteOperator

address, token = sys.argv[1:]
with RemoteStation(address, token=token, run="run", connect_timeout=10, call_timeout=5, state_age=5) as station:
    assert RemoteOperator(station).confirm(0)
    station.begin()
    for _ in range(40):
        q = station.state().q
        time_ = time.monotonic() + np.array([1.0, 1.5, 2.0])
        step = 0.01 * np.arange(1, 4)[:, None] * np.array([1, 0, 0, 0, 0, 0])
        try:
            station.send(JointTrajectory(time_, q + step, np.full(3, 0.086), time_ + 2.0))
            print("moving", flush=True)
        except Exception as error:
            print(error, file=sys.stderr, flush=True)
        time.sleep(0.2)
        station.heartbeat()
"""


class Served:
    """``uva arm serve`` in a process of its own, and a person who types."""

    def __init__(self, folder):
        self.folder, self.lines, self.started, self.driver = folder, [], [], 0
        part = {"class_path": "logged_arm.Part", "init_args": {"folder": str(folder)}}
        arm = {"folder": str(folder), "q": READY.tolist(), "part": part}
        config = {
            "arm": {"class_path": "logged_arm.LoggedArm", "init_args": arm},
            "limits": {**WIDE, "rate_hz": 2.0},
            "watchdogs": CALM,
            "rest": READY.tolist(),
            "waiting": {"tick": 5.0, "observation": 5.0},
            "port": 0,
            "free_gb": 0,
            "log": str(folder),
        }
        (folder / "arm.yaml").write_text(json.dumps(config))
        self.process = self.start(["-m", "uva_lightning.cli", "arm", "serve", "--config", str(folder / "arm.yaml")])
        threading.Thread(target=lambda: self.lines.extend(self.process.stdout), daemon=True).start()

    def begin(self):
        until(lambda: self.said("serving"), "it does not serve")
        self.address = self.said("serving").split()[3]
        pid = self.process.pid
        self.driver = int(Path(f"/proc/{pid}/task/{pid}/children").read_text())

    def start(self, words):
        pipe = subprocess.PIPE
        self.started.append(
            subprocess.Popen([sys.executable, *words], stdin=pipe, stdout=pipe, text=True, bufsize=1, env=ENVIRONMENT)
        )
        return self.started[-1]

    def kill(self):
        for process in self.started:
            process.kill()
            process.wait()
        if self.driver and not self.driver_ended():
            os.kill(self.driver, signal.SIGKILL)

    def type(self, line):
        self.process.stdin.write(f"{line}\n")

    def said(self, word):
        return next((line for line in list(self.lines) if line.startswith(word)), "")

    def events(self, kind):
        lines = (self.folder / "events.jsonl").read_text().splitlines()
        return [event for event in map(json.loads, lines) if event["kind"] == kind]

    def moved(self):
        self.type("arm")
        until(lambda: self.said("token"), "no token")
        client = self.start(["-c", CLIENT, self.address, self.said("token").split()[1].rstrip(":")])
        until(lambda: self.said("Episode 0: is"), "nobody asks")
        self.type("y")
        assert client.stdout.readline() == "moving\n"
        time.sleep(0.5)
        return client

    def driver_ended(self):
        try:
            os.kill(self.driver, 0)
            return Path(f"/proc/{self.driver}/stat").read_text().split()[2] == "Z"
        except (OSError, FileNotFoundError):
            return True


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_client_then_server_are_killed(tmp_path, how):
    served = Served(tmp_path)
    try:
        served.begin()
        assert (tmp_path / "made").read_text().split() == [str(served.driver)]  # not in the server itself
        client = served.moved()
        client.send_signal(how)
        until(lambda: served.events("hold"), "it does not hold")
        assert "no heartbeat for 2." in served.events("hold")[0]["text"]
        end = signal.SIGKILL if how == signal.SIGSTOP else signal.SIGTERM
        served.process.send_signal(end)
        served.process.wait(PATIENCE)
        until(served.driver_ended, "the driver goes on")
        times, soft, places = sent(tmp_path)
        assert soft[-1]
        assert np.abs(places[-1, :6] - READY).max() < 0.01  # it was parked before
        moving = ~soft
        speed = np.abs(np.diff(places[moving, :6], axis=0)).max() / 0.01
        assert 0.001 < speed <= Limits().joint_velocity + 1e-6
    finally:
        served.kill()
