"""The arm behind an arm server (``uva arm serve``), with the person at its console."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from uva_lightning.robot.arm_model import arm_model
from uva_lightning.robot.benches.base import Bench, Recording, Session
from uva_lightning.robot.benches.fake import check_cameras
from uva_lightning.robot.camera import Camera, Frames, FreshCamera
from uva_lightning.robot.errors import RobotConfigError, RobotError, RobotUnavailable
from uva_lightning.robot.keeper import Mode
from uva_lightning.robot.limits import Limits
from uva_lightning.robot.operator import Label

if TYPE_CHECKING:
    from uva_lightning.robot.remote import RemoteStation

PARKING, ASKING = 15.0, 0.1
"""Longest wait until the arm is parked, and time between two looks, s."""


@dataclass(frozen=True)
class RemoteBench(Bench):
    """A real arm, or whatever the server has in its place.

    Args:
        address: ``host:port`` of the server.
        keys: Folder with this client's keys; None where the server needs none.
        token_file: File into which a person writes what the robot's console said to ``arm``, while training runs: it is
            read whenever episodes are due. Without it, or without the file, nobody here can move the arm.
        run: Name of the run, to which the token is bound.
        cameras: Names of the server's cameras that are used; data sets must have the same names for them.
        model: Name of the arm that is expected there.
        urdf: Its geometry where it differs from the model's.
        limits: What the server's limits have to be; None accepts them.
        connect_timeout: For the first answer, s.
        call_timeout: For every further one, s.
        state_age: Age of the newest measurement at which an episode may not go on, s.
        frame_age: Age of the newest picture at which a camera counts as lost, s.
    """

    address: str = "127.0.0.1:8790"
    keys: str | None = None
    token_file: str | None = None
    run: str = ""
    cameras: Sequence[str] = ("camera0",)
    model: str = "X5_umi"
    urdf: str | None = None
    limits: Limits | None = None
    connect_timeout: float = 2.0
    call_timeout: float = 0.5
    state_age: float = 0.2
    frame_age: float = 0.5

    def __post_init__(self) -> None:
        check_cameras(self.cameras)
        arm_model(self.model, self.urdf)
        host, _, port = self.address.rpartition(":")
        if not host or not port.isdigit():
            raise RobotConfigError(f"The arm server is '{self.address}', expected HOST:PORT such as 127.0.0.1:8790.")

    def check(self) -> None:
        """See the base class."""
        if self.keys is not None and not Path(self.keys).is_dir():
            raise RobotConfigError(
                f"There is no folder {self.keys} with this client's keys, expected one; set bench.keys, or null where "
                "the server needs none."
            )

    @property
    def camera_names(self) -> Sequence[str]:
        """See the base class."""
        return tuple(self.cameras)

    def open(self, seed: int) -> Session:
        """See the base class; the person at the robot sets up the scenes, so the seed is not used.

        Raises:
            RobotUnavailable: The server does not answer, or pyzmq is not installed.
            RobotError: It does not let us.
        """
        try:
            from uva_lightning.robot.remote import RemoteCamera, RemoteStation
            from uva_lightning.robot.remote_operator import RemoteOperator
        except ImportError as error:
            raise RobotUnavailable(str(error)) from error
        station = RemoteStation(
            self.address,
            self.keys,
            self._token(),
            self.run,
            self.model,
            self.urdf,
            self.limits,
            connect_timeout=self.connect_timeout,
            call_timeout=self.call_timeout,
            state_age=self.state_age,
        )
        station.connect()
        try:
            cameras: list[Camera] = []
            for name in self.cameras:
                cameras.append(FreshCamera(RemoteCamera(station, name), self.frame_age, clock=station.clock))
                cameras[-1].connect(self.connect_timeout)
        except RobotError:
            station.close()
            raise

        def close() -> None:
            if station.token:
                with suppress(RobotError):
                    _park(station)
            station.close()

        return Session(
            station,
            cameras,
            RemoteOperator(station),
            station.limits,
            station.clock,
            time.sleep,
            close,
            ServerRecorder(station),
        )

    def _token(self) -> str:
        if self.token_file is None:
            return ""
        try:
            return Path(self.token_file).read_text().strip()
        except OSError:
            return ""


def _park(station: RemoteStation) -> None:
    """Wait until it is parked: giving the arm back in the middle would make it hold first."""
    station.park("the episodes are over")
    end = station.clock() + PARKING
    while station.status()["mode"] == Mode.PARKING and station.clock() < end:
        time.sleep(ASKING)


class ServerRecorder:
    """Has the server write episodes down: it outlives the training.

    Args:
        station: Connected one.
    """

    def __init__(self, station: RemoteStation) -> None:
        self._station = station

    def begin(self, meta: Mapping[str, Any]) -> Recording:
        """Begin an episode."""
        self._station.episode_begin(meta)
        return _AtServer(self._station)


class _AtServer:
    """An episode that the server writes down; it sees itself what happens."""

    def __init__(self, station: RemoteStation) -> None:
        self._station = station

    def step(self, row: Mapping[str, Any]) -> None:
        """The server has it."""

    def frame(self, camera: str, picture: Frames, time: float) -> None:
        """The server has it."""

    def event(self, kind: str, text: str, time: float, **numbers: float) -> None:
        """The server has it."""

    def end(self, label: Label, reason: str) -> str:
        """Finish it."""
        return self._station.episode_end(label, reason)
