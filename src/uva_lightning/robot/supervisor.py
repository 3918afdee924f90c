"""The arm server as a whole: a process that never loads the arm's library, and watches over one that does."""

from __future__ import annotations

import queue
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from uva_lightning.robot.camera import Camera, FreshCamera
from uva_lightning.robot.driver_child import DriverOptions
from uva_lightning.robot.driver_process import DriverProcess
from uva_lightning.robot.server import ArmService
from uva_lightning.robot.server_console import Console
from uva_lightning.robot.server_desk import Desk
from uva_lightning.robot.server_episode import Episodes, Recorder
from uva_lightning.robot.server_floor import Floor
from uva_lightning.robot.server_log import EventLog
from uva_lightning.robot.server_session import Lease
from uva_lightning.robot.server_socket import ArmSocket
from uva_lightning.robot.watchdogs import Times

OPENING = 10.0
"""Seconds for a camera to give its first frame."""
EVENTS, PRINTED = "events.jsonl", "driver.txt"


@dataclass(frozen=True)
class Waiting(Times):
    """Times of an arm server, s.

    Args:
        answer: For which the person beside the robot may think; then silence counts as no, or as invalid.
        lease: Silence of a client after which another one may move the arm.
        arming: For which a token can be used.
        observation: Age at which an observation is too old to act on.
        tick: Without one of the driver for so long, it counts as dead; also for an answer of it.
        late: Without one for so long, it is noted.
        camera: Age of the newest frame at which a camera counts as lost.
    """

    LONGEST = {
        "lease": 3.0,
        "arming": 600.0,
        "observation": 0.5,
        "tick": 0.2,
        "late": 0.05,
        "camera": 0.5,
    }

    answer: float = 60.0
    lease: float = 3.0
    arming: float = 600.0
    observation: float = 0.5
    tick: float = 0.2
    late: float = 0.05
    camera: float = 0.5

    def __post_init__(self) -> None:
        self.check("waiting")


@dataclass(frozen=True)
class ServerOptions:
    """What an arm server is made of.

    Args:
        driver: Arm, limits, watchdogs.
        cameras: Not connected yet.
        recorder: Called with facts of the station; None records nothing.
        facts: Of the station, such as its serial number and who operates it; recordings have them.
        host: Address to listen at.
        port: 0 takes a free one.
        keys: The server's folder of keys.
        log: Folder of ``events.jsonl`` and of ``driver.txt``, what the arm's library prints; None writes to stderr.
        waiting: Times.
    """

    driver: DriverOptions
    cameras: Sequence[Camera] = ()
    recorder: Callable[[Mapping[str, Any]], Recorder] | None = None
    facts: Mapping[str, str] = field(default_factory=dict)
    host: str = "127.0.0.1"
    port: int = 8790
    keys: Path | None = None
    log: Path | None = None
    waiting: Waiting = field(default_factory=Waiting)


class Supervisor:
    """Start everything, serve until a signal or ``quit`` comes, and end in order: hold, park, soft.

    Args:
        options: What it is made of.
        say: Called with what the person at the console is to read.

    Raises:
        RobotError: The arm or a camera is not there, or an option is wrong.
        OSError: The port is taken.
    """

    def __init__(self, options: ServerOptions, say: Callable[[str], object]) -> None:
        self.say, waiting = say, options.waiting
        log = EventLog(None if options.log is None else options.log / EVENTS, aloud=True)
        self._lines: queue.Queue[str] = queue.Queue()
        self._signals: list[int] = []
        cameras = [FreshCamera(camera, waiting.camera) for camera in options.cameras]
        printed = None if options.log is None else options.log / PRINTED
        driver = DriverProcess(options.driver, waiting.late, waiting.tick, waiting.tick, printed)
        try:
            if not driver.harmless:
                waiting.bound("waiting")
            for camera in cameras:
                camera.connect(OPENING)
            facts = {**options.facts, "arm": driver.model.name, "limits": asdict(driver.limits)}
            recorder = None if options.recorder is None else options.recorder(facts)
            episodes = Episodes(recorder, driver.model, cameras)
            lease = Lease(waiting.lease, waiting.arming)
            self.floor = Floor(driver, time.monotonic, Desk(waiting.answer), lease, episodes, log)
            service = ArmService(self.floor, cameras, waiting.observation)
            self.socket = ArmSocket(service, options.host, options.port, options.keys)
        except BaseException:
            driver.close()
            raise
        self.cameras, self.console = cameras, Console(self.floor)

    def run(self, lines: Any = sys.stdin) -> None:
        """Serve; Ctrl-C, SIGTERM and SIGHUP end it in order."""
        for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(signum, lambda number, frame: self._signals.append(number))
        threading.Thread(target=self._read, args=(lines,), name="uva-arm-console", daemon=True).start()
        try:
            self.socket.run(self._over)
        finally:
            if self._signals:
                self.say(f"{signal.Signals(self._signals[0]).name}: the arm parks, then the server ends.")
            self.socket.close()
            self.floor.close()
            for camera in self.cameras:
                camera.close()

    def _over(self) -> bool:
        """Do what was typed; tell whether it is time to end."""
        while not self._lines.empty():
            self.say(self.console.line(self._lines.get()))
        if asked := self.console.notice():
            self.say(asked)
        return self.console.over or bool(self._signals)

    def _read(self, lines: Any) -> None:
        """Pass lines on; where nobody can type, nothing is allowed by typing."""
        for line in lines:
            self._lines.put(line)
