"""An arm server on a clock that goes when it is told to, and clients that say what they like, without sockets."""

from __future__ import annotations

import itertools

import numpy as np
from arm_bench import PERIOD, READY, WIDE, Bench, Spy

from uva_lightning.robot.arm import JointTrajectory
from uva_lightning.robot.camera import FakeCamera, FreshCamera
from uva_lightning.robot.driver import LocalDriver
from uva_lightning.robot.errors import RobotError
from uva_lightning.robot.keeper import Keeper
from uva_lightning.robot.server import ArmService
from uva_lightning.robot.server_desk import Desk
from uva_lightning.robot.server_episode import Episodes
from uva_lightning.robot.server_floor import Floor
from uva_lightning.robot.server_session import Lease, geometry_digest
from uva_lightning.robot.wire import read_reply, request


class Log:
    """Remembers events."""

    def __init__(self):
        self.lines = []

    def add(self, time, wall, kind, text, **numbers):
        self.lines.append((time, kind, text))

    def close(self):
        pass


class Client:
    """Says what it is told to; its clock may be another one, and the way to the server may take time."""

    def __init__(self, server, offset=0.0):
        self.server, self.offset, self.session, self.lease = server, offset, "", ""
        self.numbers, self.observed, self.last = itertools.count(1), 0, b""

    def message(self, kind, seq=None, sent=None, **values):
        seq = next(self.numbers) if seq is None else seq
        sent = self.server.now + self.offset if sent is None else sent
        self.last = request(kind, seq, sent, self.session, self.lease, values)
        if kind in ("state", "observe"):
            self.observed = seq
        return self.last

    def say(self, kind, **values):
        return self.raw(self.message(kind, **values))

    def raw(self, data):
        _, said = read_reply(self.server.service.answer(data))
        if isinstance(said, RobotError):
            raise said
        return said

    def hello(self, **changes):
        model = self.server.keeper.arm.model
        said = {"client": "test", "model": model.name, "geometry": geometry_digest(model), "limits": ""}
        welcome = self.say("hello", **{**said, **changes})
        self.session = welcome["session"]
        return welcome

    def join(self, run="run"):
        """Do everything up to having the lease."""
        self.hello()
        self.say("ping", t_client=0.0)
        self.lease = self.say("acquire", token=self.server.floor.lease.arm(self.server.now), run=run)["lease"]
        return self

    def send(self, chunk, **changes):
        self.say("state")
        return self.say("traj", **{**vars(chunk), "obs_seq": self.observed, **changes})


class ServerBench(Bench):
    """The whole server but its socket; ``run`` lets time pass, ``alive`` names the client that beats."""

    def __init__(self, limits=WIDE, recorder=None, patience=60.0, arm=None):
        self.now, self.log = 0.0, Log()
        self.arm = arm or Spy(lambda: self.now)
        self.driver = LocalDriver(
            lambda record: Keeper(self.arm, limits, PERIOD, READY, record=record), lambda: self.now
        )
        self.keeper = self.driver.keeper
        camera = FreshCamera(FakeCamera(clock=lambda: self.now), clock=lambda: self.now)
        camera.connect(1.0)
        episodes = Episodes(recorder, self.arm.model, [camera])
        self.floor = Floor(self.driver, lambda: self.now, Desk(patience), Lease(), episodes, self.log)
        self.service = ArmService(self.floor, [camera])
        self.driver.ask("connect", self.now, timeout=1.0)
        self.arm.q = READY.copy()
        self.tick()

    def tick(self):
        self.driver.tick(self.now)
        self.floor.tick()

    def run(self, seconds, alive=None):
        for number in range(round(seconds / PERIOD)):
            self.now += PERIOD
            if alive is not None and number % 10 == 0:
                alive.say("heartbeat")
            self.tick()

    def running(self, run="run"):
        """Give a client whose episode runs."""
        client = Client(self).join(run)
        assert client.say("confirm", episode=0)["answer"] == "waiting"
        self.floor.answered("yes")
        self.run(0.1, client)
        assert client.say("confirm", episode=0)["answer"] == "yes"
        client.say("begin")
        return client

    def events(self, kind):
        return [text for _, found, text in self.log.lines if found == kind]

    def nan(self):
        chunk = self.chunk(np.full((2, 6), 0.01))
        return JointTrajectory(chunk.time, chunk.q * np.nan, chunk.opening, chunk.valid_until)
