"""``uva arm check`` and ``uva arm park``: look at an arm server, or end what it does."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np

from uva_lightning.commands.errors import UserError
from uva_lightning.robot.errors import RobotError
from uva_lightning.robot.remote import RemoteCamera, RemoteStation

FAILED = 1
PARKED = ("idle", "disconnected")
PARKING = 60.0
"""Most seconds to wait until it is parked."""


def check(
    address: str = "127.0.0.1:8790",
    keys: Path | None = None,
    model: str = "X5_umi",
    urdf: Path | None = None,
    calls: int = 50,
) -> int:
    """Tell how an arm, its cameras and the way to them are; nothing moves.

    Args:
        address: Of the arm server, HOST:PORT.
        keys: This client's folder of uva arm keys.
        model: Name of the arm that is expected.
        urdf: Its geometry where it differs from the model's.
        calls: How often each latency is measured.
    """
    with _station(address, keys, model, urdf) as station:
        clocks = station.link.clocks
        status, good = station.status(), True
        _say(f"arm      {station.model.name} is {status['mode']} ({status['reason']})")
        _say(f"lease    {status['holder'] or 'nobody moves it'}")
        _say(f"clock    {clocks.offset:+.4f} s from ours, known to {clocks.error * 1e3:.2f} ms")
        for name, value in asdict(station.limits).items():
            _say(f"limit    {name} {value}")
        _say(_latency("state", calls, station.status))
        try:
            q = station.state().q
            _say(f"joints   {' '.join(f'{angle:+.3f}' for angle in q)} rad")
        except RobotError as error:
            good = _bad(f"joints   {error}")
        for name in station.cameras:
            try:
                camera = RemoteCamera(station, name)
                frames, times = camera.latest()
                age = station.clock() - float(times[-1])
                _say(
                    f"camera   {name} {camera.width}x{camera.height}, mean {frames.mean():.0f}, {age * 1e3:.0f} ms old"
                )
                _say(_latency(f"camera {name}", calls, camera.latest))
            except RobotError as error:
                good = _bad(f"camera   {name}: {error}")
        if status["mode"] in ("fault", "estop"):
            good = _bad("The arm has to be reset at its console.")
    return 0 if good else FAILED


def park(
    address: str = "127.0.0.1:8790",
    keys: Path | None = None,
    model: str = "X5_umi",
    urdf: Path | None = None,
) -> int:
    """Have an arm go slowly to rest and go soft there, unless somebody moves it.

    Args:
        address: Of the arm server, HOST:PORT.
        keys: This client's folder of uva arm keys.
        model: Name of the arm that is expected.
        urdf: Its geometry where it differs from the model's.
    """
    with _station(address, keys, model, urdf) as station:
        try:
            station.park("uva arm park")
            until = time.monotonic() + PARKING
            while (status := station.status())["mode"] == "parking" and time.monotonic() < until:
                time.sleep(0.1)
        except RobotError as error:
            raise UserError(str(error)) from error
    _say(f"{status['mode']} ({status['reason']})")
    return 0 if status["mode"] in PARKED else FAILED


def _station(address: str, keys: Path | None, model: str, urdf: Path | None) -> RemoteStation:
    station = RemoteStation(address, keys, model=model, urdf=urdf)
    try:
        station.connect()
    except RobotError as error:
        raise UserError(str(error)) from error
    return station


def _latency(what: str, calls: int, call: Callable[[], object]) -> str:
    took = []
    for _ in range(max(1, calls)):
        begin = time.monotonic()
        call()
        took.append(1e3 * (time.monotonic() - begin))
    half, most, worst = np.percentile(took, (50, 95, 100))
    return f"latency  {what}: median {half:.1f} ms, 95 % within {most:.1f} ms, most {worst:.1f} ms"


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")


def _bad(text: str) -> bool:
    _say(f"BAD      {text}")
    return False
