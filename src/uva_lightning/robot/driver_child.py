"""The process that holds an arm: its keeper, ticked whatever else happens, and nothing else.

Only this process loads the library of the arm. It outlives whoever started it by as long as the arm takes to hold, to
park and to go soft.
"""

from __future__ import annotations

import ctypes
import json
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from uva_lightning.robot.arm import Arm
from uva_lightning.robot.driver import LocalDriver
from uva_lightning.robot.driver_channel import Channel, Ticks, model_message, status_message
from uva_lightning.robot.errors import RobotConfigError, RobotError
from uva_lightning.robot.keeper import Keeper, Mode
from uva_lightning.robot.limits import Limits
from uva_lightning.robot.watchdogs import Watchdogs

PR_SET_PDEATHSIG = 1
CONNECT = 5.0
"""Seconds for the arm to answer at the begin."""
PARKING = 60.0
"""Most seconds for parking at the end."""
ENDED = (Mode.IDLE, Mode.DISCONNECTED)
STOPPED = (Mode.FAULT, Mode.ESTOP)


@dataclass(frozen=True)
class DriverOptions:
    """What a driver is made of; it travels to its process as JSON.

    Args:
        arm: ``class_path`` and ``init_args`` of an ``Arm``.
        limits: Of its motion.
        watchdogs: When it stops by itself.
        rest: Angles at which it may go soft, rad; all zero if not given.
        period: Of the keeper's tick, s.
    """

    arm: Mapping[str, Any]
    limits: Limits
    watchdogs: Watchdogs
    rest: tuple[float, ...] | None = None
    period: float = 0.01

    def keeper(self, record: Any) -> Keeper:
        """Make the keeper with its arm."""
        rest = None if self.rest is None else np.array(self.rest, float)
        return Keeper(make_arm(self.arm), self.limits, self.period, rest, self.watchdogs, record)


class DriverLoop:
    """Tick, and answer between ticks.

    Args:
        driver: With a connected arm.
        channel: To the server.
        ticks: That the server watches.
        period: Between two ticks, s.
    """

    def __init__(self, driver: LocalDriver, channel: Channel, ticks: Ticks, period: float) -> None:
        self.driver, self.channel, self.ticks, self.period = driver, channel, ticks, period
        self.leaving, self._left = "", 0.0

    def run(self) -> None:
        """Go on until the arm is soft at the end."""
        due = time.monotonic()
        try:
            while not self._gone():
                left = due - time.monotonic()
                if left > 0:
                    self._wait(left)
                self._answer()
                now = time.monotonic()
                if now < due:
                    continue
                self.driver.tick(now)
                self.ticks.beat()
                self.channel.send(status_message(self.driver.status(), self.driver.events()))
                due = max(due + self.period, now)
        finally:  # after an error nobody has thought of too: better soft than stiff for ever
            self.driver.close()

    def leave(self, why: str) -> None:
        """Begin to end: hold, and park soon."""
        if not self.leaving:
            self.leaving, self._left = why, time.monotonic()
            self.driver.keeper.hold(self._left, why)

    def _wait(self, seconds: float) -> None:
        if self.channel.closed:
            time.sleep(seconds)
        else:
            select.select([self.channel.end], [], [], seconds)

    def _answer(self) -> None:
        for message in self.channel.receive():
            verb, values = message["verb"], message["values"]
            if verb == "beat":
                self.driver.beat(values["heard"])
            elif verb == "leave":
                self.leave(values["reason"])
                self.driver.keeper.park(time.monotonic(), values["reason"])
            else:
                self._carry_out(message["number"], verb, values)
        if self.channel.closed:
            self.leave("the server is gone")

    def _carry_out(self, number: int, verb: str, values: Mapping[str, Any]) -> None:
        code = text = ""
        receipt = None
        try:
            receipt = self.driver.ask(verb, time.monotonic(), **values)
        except RobotError as error:
            code, text = type(error).__name__, str(error)
        self.channel.send({"reply": number, "code": code, "text": text, "receipt": receipt and receipt.message()})

    def _gone(self) -> bool:
        """Tell whether nothing is left to do; what stands by itself after the end is parked."""
        keeper, now = self.driver.keeper, time.monotonic()
        if not self.leaving:
            return False
        if keeper.mode == Mode.HOMED:
            keeper.park(now, self.leaving)
        late = now - self._left
        stopped = keeper.mode in STOPPED and late > keeper.watchdogs.park
        return keeper.mode in ENDED or stopped or late > PARKING


def make_arm(spec: Mapping[str, Any]) -> Arm:
    """Make an arm of its class and arguments.

    Raises:
        RobotConfigError: There is no such arm, or its arguments are others.
    """
    from jsonargparse import ArgumentError, ArgumentParser

    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--arm", type=Arm)
    try:
        made = parser.instantiate(parser.parse_object({"arm": dict(spec)})).arm
    except (ArgumentError, TypeError, ValueError, ImportError) as error:
        why = " ".join(str(error).split())
        raise RobotConfigError(f"The arm {json.dumps(dict(spec))} cannot be made: {why}") from error
    if not isinstance(made, Arm):
        raise RobotConfigError(f"The arm is {spec!r}, expected class_path and init_args of an Arm.")
    return made


def main(argv: list[str]) -> int:
    """Drive: descriptors of socket and shared memory, and the process that started this one."""
    end, file, parent = (int(word) for word in argv)
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    channel, ticks = Channel(socket.socket(fileno=end)), Ticks(file)
    leaving: list[int] = []
    for signum in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(signum, lambda number, frame: leaving.append(number))
    select.select([end], [], [], CONNECT)
    told = channel.receive()
    if not told or os.getppid() != parent:  # it died before it could be watched
        return 1
    options = json.loads(told[0]["options"])
    options |= {"limits": Limits(**options["limits"]), "watchdogs": Watchdogs(**options["watchdogs"])}
    made = DriverOptions(**options)
    try:
        driver = LocalDriver(made.keeper, time.monotonic)
        driver.ask("connect", time.monotonic(), timeout=CONNECT)
    except (RobotError, ImportError, ValueError) as error:
        channel.send({"failed": type(error).__name__, "text": str(error)})
        return 1
    channel.send({"ready": model_message(driver.model), "harmless": driver.harmless})
    loop = DriverLoop(driver, channel, ticks, made.period)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the server, which ends this process in order
    for signum in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, lambda number, frame: loop.leave(f"ended by {signal.Signals(number).name}"))
    if leaving:
        loop.leave("ended while it began")
    loop.run()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
