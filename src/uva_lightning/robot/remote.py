"""An arm, its cameras and its operator at the other end of a connection, for ``RolloutRunner``.

Open a station first; cameras and operator (``remote_operator``) share its connection::

    with RemoteStation("127.0.0.1:8790", keys="keys/client-trainer", token=token, run="run-7") as station:
        cameras = [RemoteCamera(station, name) for name in station.cameras]
        runner = RolloutRunner(policy, station, cameras, RemoteOperator(station))
        station.episode_begin({"task": "cup", "seed": 3})
        result = runner.run(episode=0, seed=3)
        station.episode_end(result.label, result.reason)
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np

from uva_lightning.robot.arm import ArmState, JointTrajectory, Receipt
from uva_lightning.robot.arm_model import arm_model
from uva_lightning.robot.camera import Camera, Frames, at_least_one
from uva_lightning.robot.chain import Array
from uva_lightning.robot.errors import CameraLost, LeaseLost, RobotConfigError, RobotError, ServerLost, WatchdogTripped
from uva_lightning.robot.limits import Limits
from uva_lightning.robot.operator import Label
from uva_lightning.robot.remote_link import Link
from uva_lightning.robot.server_session import geometry_digest
from uva_lightning.robot.station import Station
from uva_lightning.serving.wire import Message

STATE_AGE = 0.2
"""Age of the newest measurement at which nobody may go on, s."""
BEAT = 0.1
"""Between two heartbeats, s."""
THINKING = 3.0
"""Longest time without any call while an episode runs, s: after it heartbeats end, since whoever drives hangs."""
COMPARING = 5.0
"""Between two comparisons of clocks, s."""
FINISHING = 70.0
"""Longest wait for a recording to be on the server's disk, s."""
ASKING = 0.1
"""Between two questions whether a person has answered, s."""


class RemoteStation(Station):
    """Drive the arm of an arm server. Nothing but the server's own limits can widen what it does.

    Args:
        address: ``host:port`` of the server.
        keys: Folder with this client's keys; None where the server needs none.
        token: What the robot's console said when somebody typed ``arm``; empty looks on without moving.
        run: Name of the run, to which the token is bound.
        model: Name of the arm that is expected there.
        urdf: Its geometry where it differs from the model's.
        limits: What the server's limits have to be; None accepts them.
        clock: Ours, s; all times are on it.
        connect_timeout: For the first answer, s.
        call_timeout: For every further one, s.
        state_age: Age of the newest measurement at which an episode may not go on, s.
    """

    def __init__(
        self,
        address: str = "127.0.0.1:8790",
        keys: Path | str | None = None,
        token: str = "",
        run: str = "",
        model: str = "X5_umi",
        urdf: Path | str | None = None,
        limits: Limits | None = None,
        clock: Callable[[], float] = time.monotonic,
        connect_timeout: float = 2.0,
        call_timeout: float = 0.5,
        state_age: float = STATE_AGE,
    ) -> None:
        self.state_age = state_age
        self.link = Link(address, keys, clock, connect_timeout, call_timeout)
        self.token, self.run, self.clock = token, run, clock
        self.model, self._expected = arm_model(model, urdf), limits
        self.limits, self.patience = limits or Limits(), 0.0
        self.joint_margin, self.rate_hz = self.limits.joint_margin, self.limits.rate_hz
        self.cameras: Mapping[str, Mapping[str, Any]] = {}
        """Size in px and latency in s of each camera at the server, by name."""
        self._beats: threading.Thread | None = None
        self._over, self._called, self._compared = threading.Event(), 0.0, 0.0
        self._lost: RobotError | None = None

    def connect(self) -> None:
        """Connect, compare limits and clocks, and take the arm if there is a token.

        Raises:
            ConnectTimeout: The server does not answer.
            RobotConfigError: It has another arm, or other limits.
            NotArmed: The token is not valid.
            LeaseLost: Somebody else moves the arm.
        """
        expected = "" if self._expected is None else self._expected.digest()
        welcome = self.link.connect(self.run or "looking on", self.model.name, geometry_digest(self.model), expected)
        self._compared = time.monotonic()
        try:
            self.limits = Limits(**welcome["limits"])
            self.cameras, self.patience = dict(welcome["cameras"]), float(welcome["patience"])
        except (TypeError, KeyError, ValueError) as error:
            self.close()
            raise RobotConfigError(f"The server's limits cannot be read ({error}); update the older side.") from error
        self.joint_margin, self.rate_hz, self._lost = self.limits.joint_margin, self.limits.rate_hz, None
        if self.token:
            try:
                self._acquire()
            except RobotError:
                self.close()
                raise

    def begin(self) -> None:
        """Begin the episode that a person has allowed; heartbeats by a thread from now on."""
        self.call("begin")
        self._beat_on()

    def status(self) -> Message:
        """Give what the server says of the arm: ``mode``, ``reason``, ``over``, and so on."""
        return self.call("state")

    def state(self) -> ArmState:
        """Give the newest measurement.

        Raises:
            WatchdogTripped: It is too old.
            ServerLost: The server does not answer.
        """
        said = self.status()
        if not said["measured"]:
            raise WatchdogTripped(f"There is no measurement of the arm ({said['mode']}: {said['reason']}).")
        moment = float(said["time"]) - self.link.clocks.offset
        age = self.clock() - moment
        if age > self.state_age:
            raise WatchdogTripped(f"The newest measurement is {age:.2f} s old, expected at most {self.state_age:g} s.")
        q, velocity, torque = (_row(said[name], len(self.model.lower)) for name in ("q", "velocity", "torque"))
        return ArmState(moment, q, velocity, torque, float(said["opening"]), said["fault"])

    def send(self, trajectory: JointTrajectory) -> Receipt:
        """Follow it, if the server accepts it."""
        self.link.clocks.check()
        offset = self.link.clocks.offset
        said = self.call(
            "traj",
            time=np.asarray(trajectory.time, np.float64) + offset,
            q=np.asarray(trajectory.q, np.float64),
            opening=np.asarray(trajectory.opening, np.float64),
            valid_until=np.asarray(trajectory.valid_until, np.float64) + offset,
            obs_seq=self.link.observed,
        )
        return Receipt.read(trajectory, said)

    def pause(self, reason: str) -> None:
        """Have the arm brake and stand within the episode, until the next trajectory."""
        self.call("pause", reason=reason[:500])

    def heartbeat(self) -> None:
        """Show that whoever drives is there; the thread tells the server, and here is told what it has met.

        Raises:
            RobotError: What a heartbeat was answered.
        """
        self._called = time.monotonic()
        if self._lost is not None:
            raise self._lost
        if self._beats is None:
            self.call("heartbeat")

    def hold(self, reason: str) -> None:
        """Have the arm stop; needs no lease."""
        self._beat_off()
        self.link.call("hold", reason=reason[:500])

    def stop(self, reason: str) -> None:
        """Emergency stop by software, until a person resets it at the robot; needs no lease."""
        self._beat_off()
        self.link.call("stop", reason=reason[:500])

    def park(self, reason: str) -> None:
        """Have the arm go slowly to where it may go soft, whatever the clocks say."""
        self.link.call("park", reason=reason[:500])

    def damp(self, reason: str) -> None:
        """Have the arm go soft where it is, as the last resort: without brakes it may sink."""
        self.link.call("damp", reason=reason[:500])

    def episode_begin(self, meta: Mapping[str, Any]) -> str:
        """Begin a recording at the server; give its name.

        Whoever was silent for long, as while it loads weights, takes the arm again with its token first.

        Args:
            meta: What is known of the episode: text, numbers, lists and maps of them.

        Raises:
            RobotError: It cannot be recorded; nothing has moved yet.
        """
        if self.token:
            try:
                self.call("heartbeat")
            except LeaseLost:
                self._acquire()
        return str(self.call("episode_begin", meta=dict(meta))["episode"])

    def episode_end(self, label: Label, reason: str) -> str:
        """End the recording, wait until it is on the disk, and give its folder there, empty if nothing is recorded.

        Raises:
            RobotError: It could not be finished; what was written stays readable.
        """
        until = time.monotonic() + FINISHING
        while time.monotonic() < until:
            said = self.call("episode_end", label=str(label), reason=reason[:500])
            if said["done"]:
                return str(said["folder"])
            time.sleep(ASKING)
        raise ServerLost(f"The server has not finished the recording within {FINISHING:g} s; look after its disk.")

    def call(self, kind: str, **values: Any) -> Message:
        """Ask the server for something, as a sign of life."""
        self._called = time.monotonic()
        self._compare()
        return self.link.call(kind, **values)

    def close(self) -> None:
        """Give the arm back and disconnect; never raises."""
        self._beat_off()
        if self.link.lease:
            with contextlib.suppress(RobotError):
                self.link.call("release")
        self.link.close()

    def _acquire(self) -> None:
        self.link.lease = str(self.link.call("acquire", token=self.token, run=self.run)["lease"])

    def _compare(self) -> None:
        """Compare clocks if that is due: also while a person thinks, the server wants to know them."""
        if time.monotonic() - self._compared > COMPARING:
            self._compared = time.monotonic()
            self.link.compare()
            self.link.clocks.check()

    def _beat_on(self) -> None:
        self._beat_off()
        self._over = threading.Event()
        self._beats = threading.Thread(target=self._beat, args=(self._over,), name="uva-arm-beats", daemon=True)
        self._beats.start()

    def _beat_off(self) -> None:
        self._over.set()
        beats, self._beats = self._beats, None
        if beats is not None:
            beats.join(2 * self.link.call_timeout + BEAT)

    def _beat(self, over: threading.Event) -> None:
        """Beat until it is over, something is wrong, or nothing was called for long."""
        while not over.wait(BEAT):
            if time.monotonic() - self._called > THINKING:
                self._lost = WatchdogTripped(f"Nothing was called for {THINKING:g} s; heartbeats have ended.")
                return
            try:
                self.link.call("heartbeat")
                self._compare()
            except RobotError as error:
                self._lost = error
                return

    def __enter__(self) -> Self:
        if not self.link.session:
            self.connect()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class RemoteCamera(Camera):
    """A camera of an arm server.

    Args:
        station: Connected one.
        name: Of the camera at the server.

    Raises:
        RobotConfigError: The server has no such camera.
    """

    def __init__(self, station: RemoteStation, name: str) -> None:
        if name not in station.cameras:
            known = ", ".join(station.cameras) or "none; connect the station first"
            raise RobotConfigError(f"There is no camera '{name}' at {station.link.address}, expected one of: {known}.")
        said = station.cameras[name]
        self.name, self.width, self.height = name, int(said["width"]), int(said["height"])
        self.latency, self._station = float(said["latency"]), station

    def connect(self, timeout: float) -> None:
        """Take a first picture; the server has it open."""
        self.latest()

    def latest(self, count: int = 1) -> tuple[Frames, Array]:
        """Give the newest frames, with their times on the station's clock.

        Raises:
            CameraLost: There are none.
            ServerLost: The server does not answer.
        """
        said = self._station.call("observe", names=[self.name], count=at_least_one(count))["cameras"][self.name]
        frames, times = said["frames"], said["times"]
        if frames.dtype != np.uint8 or frames.shape != (len(times), self.height, self.width, 3):
            raise CameraLost(f"Camera '{self.name}' gives {frames.dtype} of {frames.shape} for {len(times)} times.")
        return frames, np.asarray(times, np.float64) - self._station.link.clocks.offset

    def close(self) -> None:
        """The server keeps it open."""


def _row(values: Any, count: int) -> Array:
    row: Array = np.asarray(values, np.float64)
    if row.shape != (count,):
        raise WatchdogTripped(f"A measurement has shape {row.shape}, expected ({count},); is it the same arm?")
    return row
