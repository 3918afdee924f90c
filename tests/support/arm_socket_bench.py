"""An arm server in a thread of this process, behind a socket, and a client's station."""

from __future__ import annotations

import threading
import time

from arm_bench import READY, WIDE, Spy

from uva_lightning.robot.camera import FakeCamera
from uva_lightning.robot.driver import LocalDriver
from uva_lightning.robot.keeper import Keeper
from uva_lightning.robot.remote import RemoteStation
from uva_lightning.robot.server import ArmService
from uva_lightning.robot.server_floor import Floor
from uva_lightning.robot.server_log import EventLog
from uva_lightning.robot.server_socket import ArmSocket
from uva_lightning.robot.watchdogs import Watchdogs

PERIOD = 0.01
PATIENT = Watchdogs(hold=1.5, park=5.0, state_age=2.0, tracking=2.0)
"""Tests share their processor."""


class Server:
    """An arm server in a thread of this process, whose person answers at once."""

    def __init__(self, keys=None, answers=("yes", "success"), watchdogs=PATIENT, log=None):
        self.arm = Spy(time.monotonic)
        make = lambda record: Keeper(self.arm, WIDE, PERIOD, READY, watchdogs, record)  # noqa: E731
        self.driver = LocalDriver(make, time.monotonic)
        self.floor = Floor(self.driver, log=EventLog(log))
        camera = FakeCamera()
        camera.connect(1.0)
        self.socket = ArmSocket(ArmService(self.floor, [camera], patience=5.0), port=0, keys=keys)
        self.driver.ask("connect", time.monotonic(), timeout=1.0)
        self.arm.q, self.answers = READY.copy(), answers
        self.over, self.frozen = threading.Event(), threading.Event()
        self.thread = threading.Thread(target=self.work, daemon=True)
        self.address = f"127.0.0.1:{self.socket.port}"

    def work(self):
        while not self.over.is_set():
            self.driver.tick(time.monotonic())
            self.floor.tick()
            if (question := self.floor.desk.question) is not None and self.answers:
                self.floor.answered(self.answers[0 if question.kind == "confirm" else 1])
            if self.frozen.is_set():
                time.sleep(PERIOD)
            else:
                self.socket.step(PERIOD)
        self.socket.close()

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        self.thread.join(5)


def station(server, **options):
    token = server.floor.lease.arm(time.monotonic())
    options = {"connect_timeout": 5.0, "call_timeout": 3.0, "state_age": 2.0, **options}
    return RemoteStation(server.address, token=token, run="run", **options)
