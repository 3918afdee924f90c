"""A station at the other end of a socket: an episode over it, and what is told when the other end is not there."""

import select
import socket
import threading
import time

import numpy as np
import pytest
import zmq
from arm_bench import READY
from arm_socket_bench import PATIENT, Server, station

from uva_lightning.cli import main
from uva_lightning.robot.arm import JointTrajectory
from uva_lightning.robot.control import Control
from uva_lightning.robot.errors import (
    ConnectTimeout,
    LeaseLost,
    OutOfLimits,
    RobotConfigError,
    ServerLost,
    WatchdogTripped,
)
from uva_lightning.robot.keeper import Mode
from uva_lightning.robot.limits import Limits
from uva_lightning.robot.operator import Label
from uva_lightning.robot.remote import RemoteCamera, RemoteStation
from uva_lightning.robot.remote_link import Link
from uva_lightning.robot.remote_operator import RemoteOperator
from uva_lightning.robot.rollout import Ended, RolloutRunner
from uva_lightning.robot.server_socket import ArmSocket
from uva_lightning.robot.sight import History
from uva_lightning.robot.tool_poses import to_six
from uva_lightning.robot.watchdogs import Watchdogs
from uva_lightning.robot.wire_keys import make_keys


class Cable(threading.Thread):
    """Carries bytes to a server and back until it is cut; then nothing comes through, and nobody is told."""

    def __init__(self, port):
        super().__init__(daemon=True)
        self.port, self.cut, self.ends = port, threading.Event(), {}
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self.listening.getsockname()[1]}"

    def run(self):
        while not self.cut.is_set():
            ready, _, _ = select.select([self.listening, *self.ends], [], [], 0.02)
            for end in ready:
                if end is self.listening:
                    one, other = self.listening.accept()[0], socket.create_connection(("127.0.0.1", self.port))
                    self.ends |= {one: other, other: one}
                elif data := end.recv(1 << 20):
                    self.ends[end].sendall(data)
                else:
                    del self.ends[end]

    def close(self):
        self.cut.set()
        self.join(5)
        for end in (self.listening, *self.ends):
            end.close()


class Straight:
    """Goes on along the tool; may do something else at a step."""

    def __init__(self, then=lambda step: None):
        self.steps, self.then = 0, then

    def reset(self, seed):
        self.steps = 0

    def act(self, observation):
        self.steps += 1
        self.then(self.steps)
        chunk = np.zeros((1, 16, 10))
        chunk[0, :, 2] = 0.002 * np.arange(1, 17)
        chunk[0, :, 3:9], chunk[0, :, 9] = to_six(np.eye(3)), 0.086
        return chunk


def run(connected, policy):
    control = Control(rate_hz=2, execute=2, spare=6, lead=1.0, observation_age=2.0, max_steps=4, max_rejects=9)
    cameras = [RemoteCamera(connected, name) for name in connected.cameras]
    operator = RemoteOperator(connected, lambda seconds: time.sleep(0.02))
    runner = RolloutRunner(policy, connected, cameras, operator, control, History(image_side=32))
    return runner.run()


def test_an_episode_runs_over_a_connection(tmp_path):
    with Server(log=tmp_path / "events.jsonl") as server, station(server) as connected:
        began = server.arm.model.chain.forward(READY)
        connected.episode_begin({"task": "reach", "seed": 1})
        result = run(connected, Straight())
        connected.episode_end(result.label, result.reason)
        assert (result.label, result.ended) == (Label.SUCCESS, Ended.LENGTH), result.steps
        assert result.rejected < result.chunks, result.steps  # a busy machine may be late, but not always
        moved = server.arm.model.chain.forward(server.arm.q)[:3, 3] - began[:3, 3]
        assert 0.0005 < np.linalg.norm(moved) < 0.02
        assert connected.status()["mode"] == "hold"
    text = (tmp_path / "events.jsonl").read_text()
    assert all(f'"kind": "{kind}"' in text for kind in ("acquire", "armed", "running", "hold", "release"))


def test_times_are_those_of_the_client():
    ahead = 1000.0
    with Server() as server, station(server, clock=lambda: time.monotonic() + ahead) as connected:
        assert connected.state().time == pytest.approx(time.monotonic() + ahead, abs=0.3)
        camera = RemoteCamera(connected, "wrist")
        assert camera.latest(2)[1][-1] == pytest.approx(time.monotonic() + ahead, abs=0.3)
        assert RemoteOperator(connected).confirm(0)
        connected.begin()
        connected.state()
        soon = time.monotonic() + ahead + np.array([1.0, 1.2])
        q = np.tile(READY, (2, 1))
        connected.send(JointTrajectory(soon, q, np.full(2, 0.086), soon + 0.5))
        with pytest.raises(OutOfLimits):
            connected.send(JointTrajectory(soon, q + 9, np.full(2, 0.086), soon + 0.5))


def test_a_server_that_dies_ends_the_episode():
    with Server() as server, station(server) as connected:
        connected.link.call_timeout = 0.3
        result = run(connected, Straight(lambda step: server.frozen.set()))
        assert (result.ended, result.label) == (Ended.FAULT, Label.INVALID)
        assert "ServerLost" in result.reason
        time.sleep(PATIENT.hold)
        assert server.driver.keeper.mode != Mode.RUNNING


def test_a_cut_connection_ends_the_episode():
    with Server() as server:
        cable = Cable(server.socket.port)
        cable.start()
        server.address = cable.address
        with station(server) as connected:
            connected.link.call_timeout = 0.3
            result = run(connected, Straight(lambda step: cable.cut.set()))
        cable.close()
        assert (result.ended, result.label) == (Ended.FAULT, Label.INVALID)
        until = time.monotonic() + 5
        while server.driver.keeper.mode == Mode.RUNNING and time.monotonic() < until:
            time.sleep(0.02)
        assert server.driver.keeper.mode != Mode.RUNNING
        assert "no heartbeat" in server.driver.keeper.reason


def test_a_client_that_hangs_loses_the_arm(monkeypatch):
    monkeypatch.setattr("uva_lightning.robot.remote.THINKING", 0.2)
    with Server(watchdogs=Watchdogs(hold=0.3, park=9.0, state_age=2.0)) as server, station(server) as connected:
        assert RemoteOperator(connected, lambda seconds: time.sleep(0.02)).confirm(0)
        connected.begin()
        until = time.monotonic() + 5
        while server.driver.keeper.mode == Mode.RUNNING and time.monotonic() < until:
            time.sleep(0.02)
        assert server.driver.keeper.mode == Mode.HOLD
        with pytest.raises(WatchdogTripped, match="heartbeats have ended"):
            connected.heartbeat()


def test_a_server_that_is_not_there_is_told_in_time():
    with zmq.Context() as context, context.socket(zmq.ROUTER) as socket:
        free = socket.bind_to_random_port("tcp://127.0.0.1")
    begin = time.monotonic()
    with pytest.raises(ConnectTimeout, match=r"No arm server answers at 127.0.0.1:\d+ within 0.3 s"):
        RemoteStation(f"127.0.0.1:{free}", connect_timeout=0.3).connect()
    assert time.monotonic() - begin < 2
    with pytest.raises(ServerLost, match="connect first"):
        RemoteStation(f"127.0.0.1:{free}").state()
    with pytest.raises(RobotConfigError, match="expected HOST:PORT"):
        Link("127.0.0.1")


def test_only_known_keys_are_let_in(tmp_path):
    robot, friend = make_keys(tmp_path, "friend")
    _, stranger = make_keys(tmp_path / "elsewhere", "stranger")
    (stranger / "server.key").write_bytes((friend / "server.key").read_bytes())  # it knows the server, at least
    with Server(keys=robot, log=tmp_path / "events.jsonl") as server:
        with station(server, keys=friend) as connected:
            assert connected.state().opening == pytest.approx(0.086)
        for keys in (stranger, None):
            with pytest.raises(ConnectTimeout, match="does it know this client's key"):
                RemoteStation(server.address, keys, connect_timeout=0.5).connect()
        time.sleep(0.1)
    assert "unknown key" in (tmp_path / "events.jsonl").read_text()


def test_keys_are_for_their_owner_alone(tmp_path):
    robot, own = make_keys(tmp_path, "trainer")
    make_keys(tmp_path, "other")
    assert len(list((robot / "clients").iterdir())) == 2
    with pytest.raises(RobotConfigError, match="already"):
        make_keys(tmp_path, "trainer")
    with pytest.raises(RobotConfigError, match="expected letters"):
        make_keys(tmp_path, "../x")
    (own / "client.key_secret").chmod(0o644)
    with pytest.raises(RobotConfigError, match="chmod 600"):
        Link("127.0.0.1:1", own)
    with pytest.raises(RobotConfigError, match="is no key"):
        Link("127.0.0.1:1", robot)
    with pytest.raises(RobotConfigError, match=r"nowhere/client\.key_secret is no key: there is no such file"):
        Link("127.0.0.1:1", tmp_path / "nowhere")


def test_a_server_for_everybody_needs_keys():
    with Server() as server, pytest.raises(RobotConfigError, match="without keys, expected 127.0.0.1"):
        ArmSocket(server.socket.service, "0.0.0.0", 0)


def test_a_port_that_is_taken_is_told_in_plain_words():
    with Server() as server:
        port = server.socket.port
        with pytest.raises(OSError, match=rf"^Cannot listen at 127.0.0.1:{port} \(Address already in use\); choose"):
            ArmSocket(server.socket.service, port=port)


def test_an_oversized_message_does_not_reach_the_server():
    with Server() as server, zmq.Context() as context, context.socket(zmq.DEALER) as socket:
        socket.setsockopt(zmq.LINGER, 0)
        socket.connect(f"tcp://{server.address}")
        socket.send(b"\0" * (1 << 20))
        assert not socket.poll(300)
        with station(server) as connected:  # others are served on
            connected.state()


def test_a_lost_lease_is_told_by_the_next_heartbeat():
    with Server() as server, station(server) as connected:
        assert RemoteOperator(connected, lambda seconds: time.sleep(0.02)).confirm(0)
        connected.begin()
        server.floor.lease.disarm()
        time.sleep(0.5)
        with pytest.raises(LeaseLost):
            connected.heartbeat()


def test_an_arm_is_looked_at_and_parked_by_commands(capsys, tmp_path):
    assert main(["arm", "keys", "--out", str(tmp_path)]) == 0
    assert "for the robot's machine" in capsys.readouterr().out
    options = ["--keys", str(tmp_path / "client-trainer")]
    with Server(keys=tmp_path / "robot") as server:
        where = ["--address", server.address, *options]
        assert main(["arm", "check", *where, "--calls", "3"]) == 0
        said = capsys.readouterr().out
        assert "X5_umi is idle (connected)" in said
        assert "limit    joint_velocity 1.0" in said
        assert "camera   wrist 64x48" in said
        assert "latency  state: median" in said
        server.driver.ask("home", time.monotonic())
        assert main(["arm", "park", *where]) == 0
        assert "idle (parked)" in capsys.readouterr().out
        server.driver.ask("stop", time.monotonic(), reason="test")
        assert main(["arm", "check", *where, "--calls", "1"]) == 1
        assert "BAD      The arm has to be reset" in capsys.readouterr().out
    assert main(["arm", "check", "--address", "127.0.0.1:1"]) == 2
    assert "No arm server answers" in capsys.readouterr().err


def test_no_arm_is_served_within_a_workspace_that_nobody_has_measured(capsys):
    with pytest.raises(SystemExit):
        main(["arm", "serve", "--arm", '{"class_path": "uva_lightning.robot.fake_arm.FakeArm"}', "--port", "0"])
    assert "limits.workspace_min, limits.workspace_max" in capsys.readouterr().err


def test_limits_that_differ_are_found_at_once():
    with Server() as server, pytest.raises(RobotConfigError, match="has limits"):
        station(server, limits=Limits(joint_velocity=2.0)).connect()
