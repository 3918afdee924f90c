"""The server's side of a driver process: it starts it, asks it, and notices when it hangs."""

from __future__ import annotations

import json
import os
import select
import socket
import subprocess
import sys
import time
from collections import deque
from contextlib import nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from uva_lightning.robot.arm import JointTrajectory, Receipt
from uva_lightning.robot.arm_model import ArmModel
from uva_lightning.robot.driver import EVENTS, Driver, Event, Status
from uva_lightning.robot.driver_channel import Channel, Ticks, TickWatch, read_model, read_status
from uva_lightning.robot.driver_child import CONNECT, PARKING, DriverOptions
from uva_lightning.robot.errors import DriverDead, RobotUnavailable, named
from uva_lightning.serving.wire import Message

STARTING = 30.0
"""Seconds for the process to begin, beside those for the arm to connect."""
TELLING = 1.0
"""Seconds between two complaints about a late driver."""


class DriverProcess(Driver):
    """Drive an arm in a process of its own, whose library may hang there without hanging here.

    Args:
        options: What it drives.
        late: Without a tick for so long, an event is noted, s.
        dead: Without one for so long, it counts as dead, for good, s.
        answer: For an answer, s.
        output: File that gets what the arm's library prints; None lets it print here.

    Raises:
        RobotUnavailable: The arm is not there.
        RobotConfigError: The options are wrong.
    """

    def __init__(
        self,
        options: DriverOptions,
        late: float = 0.05,
        dead: float = 0.2,
        answer: float = 0.2,
        output: Path | None = None,
    ) -> None:
        self.output = output
        self.limits, self.late, self.dead, self.answer = options.limits, late, dead, answer
        self._events, self._replies = deque[Event](maxlen=EVENTS), dict[int, Message]()
        self._number, self._why, self._told = 0, "", float("-inf")
        self._status: Status | None = None
        self._model: ArmModel | None = None
        here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        file = Ticks.make()
        words = [str(there.fileno()), str(file), str(os.getpid())]
        with nullcontext() if output is None else output.open("ab") as printed:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "uva_lightning.robot.driver_child", *words],
                pass_fds=(there.fileno(), file),
                stdin=subprocess.DEVNULL,
                stdout=printed,
                stderr=printed,
                start_new_session=True,  # Ctrl-C is for the server alone
            )
        there.close()
        self._channel, self._ticks = Channel(here), Ticks(file)
        os.close(file)
        self._channel.send({"options": json.dumps(asdict(replace(options, arm=dict(options.arm))))})
        self.model = self._begun()
        self._watch = TickWatch(time.monotonic())

    def ask(self, verb: str, now: float, **values: Any) -> Receipt | None:
        """Ask the keeper, and wait for what it says."""
        self._look()
        self._number += 1
        number, until = self._number, time.monotonic() + self.answer
        self._channel.send({"number": number, "verb": verb, "values": values})
        while number not in self._replies:
            left = until - time.monotonic()
            if left <= 0 or self._channel.closed:
                self._look()
                raise RobotUnavailable(f"The driver has not answered '{verb}' within {self.answer:g} s.")
            select.select([self._channel.end], [], [], left)
            self._hear()
        said = self._replies.pop(number)
        self._replies.clear()  # of those that came too late
        if said["code"]:
            raise named(said["code"], said["text"])
        return Receipt.read(JointTrajectory(**values), said["receipt"]) if said["receipt"] else None

    def beat(self, heard: float) -> None:
        """Pass on a sign of life."""
        self._channel.send({"number": 0, "verb": "beat", "values": {"heard": heard}})

    def status(self) -> Status:
        """Give what the driver said last."""
        self._look()
        assert self._status is not None  # since it began
        return self._status

    def events(self) -> list[Event]:
        """Give what has happened, there and to the driver itself."""
        self._hear()
        found = list(self._events)
        self._events.clear()
        return found

    def close(self) -> None:
        """Have the arm park and the process end; one that hangs is left to a person, since an arm may fall."""
        self._channel.send({"number": 0, "verb": "leave", "values": {"reason": "the server ends"}})
        try:
            self.process.wait(PARKING + CONNECT if not self._why else self.answer)
        except subprocess.TimeoutExpired:
            text = f"Process {self.process.pid} still has the arm; secure the arm, then run: kill -9 {self.process.pid}"
            self._events.append(Event(time.monotonic(), "left", text))
        self._hear()

    def _begun(self) -> ArmModel:
        """Wait until the arm is connected and ticked; give its model."""
        until, ended = time.monotonic() + STARTING + CONNECT, False
        while time.monotonic() < until and not ended:
            ended = self.process.poll() is not None  # what it said before it ended is still read
            select.select([self._channel.end], [], [], 0.0 if ended else 0.2)
            self._hear()
            if self._model is not None and self._status is not None:
                return self._model
        self.process.kill()
        what = "has ended" if ended else "has not begun"
        raise RobotUnavailable(
            f"The driver process {what} (status {self.process.poll()}), expected a connected arm within "
            f"{STARTING + CONNECT:g} s; see {self.output or 'what it said above'}."
        )

    def _hear(self) -> None:
        for message in self._channel.receive():
            if "reply" in message:
                self._replies[message["reply"]] = message
            elif "failed" in message:
                raise named(message["failed"], message["text"])
            elif "ready" in message:
                self._model, self.harmless = read_model(message["ready"]), bool(message["harmless"])
            else:
                self._status, events = read_status(message)
                self._events += events

    def _look(self) -> None:
        """Watch over the driver.

        Raises:
            DriverDead: It is dead, now or before.
        """
        self._hear()
        now = time.monotonic()
        if not self._why:
            silent = self._watch.silent(self._ticks.count, now)
            if self.process.poll() is not None:
                self._why = f"The driver has ended (status {self.process.returncode})."
            elif silent > self.dead:
                self._why = f"The driver hangs: no tick for {silent:.2f} s."
                self._channel.send({"number": 0, "verb": "stop", "values": {"reason": self._why}})  # if it wakes up
            elif silent > self.late and now - self._told > TELLING:
                self._told = now
                self._events.append(Event(now, "late", f"The driver is late: no tick for {silent * 1e3:.0f} ms."))
        if self._why:
            raise DriverDead(f"{self._why} Press the emergency stop, look after the arm, then start the server anew.")
