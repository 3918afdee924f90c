"""``uva arm serve``: let a policy move an arm, under the eyes of a person and within limits set here."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from uva_lightning.commands.errors import UserError
from uva_lightning.robot.camera import Camera
from uva_lightning.robot.driver_child import DriverOptions
from uva_lightning.robot.errors import RobotError
from uva_lightning.robot.limits import BenchLimits
from uva_lightning.robot.supervisor import ServerOptions, Supervisor, Waiting
from uva_lightning.robot.watchdogs import Watchdogs

if TYPE_CHECKING:
    from uva_lightning.robot.server_episode import Recorder


def serve(
    arm: dict,  # type: ignore[type-arg] # typed, what it names inside would be made here, not in the driver's process
    limits: BenchLimits,
    cameras: list[Camera] | None = None,
    watchdogs: Watchdogs | None = None,
    rest: list[float] | None = None,
    host: str = "127.0.0.1",
    port: int = 8790,
    keys: Path | None = None,
    log: Path = Path("runs/arm"),
    free_gb: float = 2.0,
    waiting: Waiting | None = None,
    facts: dict[str, str] | None = None,
) -> None:
    """Serve an arm to one client at a time; Ctrl-C and SIGTERM park it and end the server.

    The person beside the robot types here; 'help' lists what. This is no certified safety function.

    Args:
        arm: class_path and init_args of an Arm; it is made in a process of its own.
        limits: Of the arm's motion; nobody can widen them over the network. The workspace has to be given.
        cameras: What the policy sees.
        watchdogs: When the arm stops by itself.
        rest: Angles at which the arm may go soft, in rad; all zero where left out.
        host: Address to listen at; others than 127.0.0.1 need keys.
        port: Port; 0 takes a free one.
        keys: Folder robot of uva arm keys.
        log: Folder of events and recorded episodes.
        free_gb: Room in GB that has to be free on the disk when an episode begins; 0 records no episodes.
        waiting: How long it waits for what.
        facts: Of the station, such as serial and operator; they go into the recordings.
    """
    rests = None if rest is None else tuple(rest)
    driver = DriverOptions(arm, limits, watchdogs or Watchdogs(), rests)

    def recorder(facts: Mapping[str, Any]) -> Recorder:
        from uva_lightning.robot.recorder import Recorder

        return Recorder(log / "episodes", round(free_gb * 1e9), facts)

    options = ServerOptions(
        driver,
        cameras or (),
        recorder if free_gb > 0 else None,
        facts or {},
        host,
        port,
        keys,
        log,
        waiting or Waiting(),
    )
    try:
        supervisor = Supervisor(options, say)
    except (RobotError, OSError) as error:
        raise UserError(str(error)) from error
    name, port = supervisor.floor.driver.model.name, supervisor.socket.port
    say(f"serving {name} at {host}:{port} {'with keys' if keys else 'to this machine'}; type 'help'")
    supervisor.run()


def say(text: str) -> None:
    """Tell the person at the console."""
    with contextlib.suppress(OSError):  # the terminal is gone; the arm still has to park
        sys.stdout.write(f"{text}\n")
        sys.stdout.flush()
