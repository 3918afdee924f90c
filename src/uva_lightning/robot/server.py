"""What an arm server answers, and what it does by itself. Pure: no socket, no thread, and the clock is given.

Something calls ``answer`` with every message and ``tick`` at least every 20 ms. What keeps the arm safe is not in here
but in the keeper, which the driver ticks: if all of this hangs, the arm holds, parks and goes soft.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from uva_lightning.robot.arm import JointTrajectory, Receipt
from uva_lightning.robot.camera import Camera
from uva_lightning.robot.errors import BadShape, CameraLost, RobotError, Stale
from uva_lightning.robot.operator import Label
from uva_lightning.robot.server_floor import Floor
from uva_lightning.robot.server_session import Session, Sessions, geometry_digest
from uva_lightning.robot.wire import read_request, refusal, reply
from uva_lightning.serving.wire import Message, WireError

MOST_FRAMES = 16
"""Of one camera in a reply."""
UNLEASED = frozenset({"ping", "state", "observe", "acquire", "park", "damp"})
"""Needs a session, but no lease."""
ALWAYS = frozenset({"hold", "stop"})
"""Anybody who is let in may ask for it, at any time, twice too."""
TOLD = 10
"""Most refusals that are written down per second."""
SEEN = 64
"""Newest observations of a client of which it is known when they were made."""


class ArmService:
    """Answer clients of one arm.

    Args:
        floor: What the robot's own side does.
        cameras: Connected ones, whose times are on its clock.
        patience: Age of an observation at which it is too old to act on, s; the policy thinks meanwhile.
    """

    def __init__(self, floor: Floor, cameras: Sequence[Camera] = (), patience: float = 0.5) -> None:
        self.floor, self.driver, self.clock, self.patience = floor, floor.driver, floor.clock, patience
        self.cameras = {camera.name: camera for camera in cameras}
        model = self.driver.model
        self.sessions = Sessions(model.name, geometry_digest(model), self.driver.limits.digest())
        self._refusals, self._untold = deque[float](maxlen=TOLD), 0
        self._answers: dict[str, Callable[[Message, Session, float], Mapping[str, Any]]] = {
            "ping": self._ping,
            "state": self._state,
            "observe": self._observe,
            "acquire": self._acquire,
            "release": self._release,
            "heartbeat": self._heartbeat,
            "home": self._home,
            "begin": self._begin,
            "traj": self._traj,
            "pause": self._pause,
            "park": self._rest,
            "damp": self._rest,
            "confirm": self._confirm,
            "label": self._label,
            "episode_begin": self._episode_begin,
            "episode_end": self._episode_end,
        }

    def answer(self, data: bytes) -> bytes:
        """Answer one message; never raises what a client has done wrong."""
        now, seq = self.clock(), 0
        try:
            message = read_request(data)
            seq = message["seq"]
            return reply(seq, self.clock(), self._handle(message, now))
        except (WireError, RobotError) as error:
            self._refused(f"{type(error).__name__}: {error}", now)
            return refusal(seq, now, error)

    def _handle(self, message: Message, now: float) -> Mapping[str, Any]:
        kind = message["type"]
        if kind in ALWAYS:
            self.driver.ask(kind, now, reason=f"asked for by a client: {message['reason']}")
            self.floor.note(kind, message["reason"])
            return {}
        if kind == "hello":
            return self._hello(message, now)
        session = self.sessions.take(message, now)
        if kind not in UNLEASED:
            heard = self.sessions.fresh(session, message["t_send"], now)
            self.floor.lease.check(message["lease"], now)
            self.floor.lease.beat(heard)
            self.driver.beat(heard)
        return self._answers[kind](message, session, now)

    def _hello(self, message: Message, now: float) -> Mapping[str, Any]:
        session = self.sessions.hello(message, now)
        self.floor.note("hello", f"'{message['client']}' is connected")
        limits = {name: list(v) if isinstance(v, tuple | list) else v for name, v in asdict(self.driver.limits).items()}
        cameras = {
            name: {"width": camera.width, "height": camera.height, "latency": float(camera.latency)}
            for name, camera in self.cameras.items()
        }
        return {"session": session, "limits": limits, "cameras": cameras, "patience": self.floor.desk.patience}

    def _ping(self, message: Message, session: Session, now: float) -> Mapping[str, Any]:
        session.compared = now
        return {"t_client": message["t_client"], "t_server": self.clock()}

    def _state(self, message: Message, session: Session, now: float) -> Mapping[str, Any]:
        status = self.driver.status()
        self._remember(message, session, now)
        values: Message = {
            "mode": status.mode.value,
            "reason": status.reason,
            "tick": status.time,
            "over": self.floor.over,
            "holder": self.floor.lease.holder if self.floor.lease.alive(now) else "",
            "measured": status.state is not None,
        }
        if (state := status.state) is not None:
            values |= {"time": state.time, "q": state.q, "velocity": state.velocity, "torque": state.torque}
            values |= {"opening": float(state.opening), "fault": state.fault}
        return values

    def _observe(self, message: Message, session: Session, now: float) -> Mapping[str, Any]:
        if not 1 <= message["count"] <= MOST_FRAMES:
            raise BadShape(f"{message['count']} frames are asked for, expected 1 to {MOST_FRAMES}.")
        if unknown := [name for name in message["names"] if name not in self.cameras]:
            raise CameraLost(
                f"There is no camera '{unknown[0]}', expected {' or '.join(self.cameras) or 'none at all'}."
            )
        self._remember(message, session, now)
        found = {}
        for name in message["names"]:
            frames, times = self.cameras[name].latest(message["count"])
            found[name] = {"frames": np.ascontiguousarray(frames), "times": np.asarray(times, np.float64)}
        return {"cameras": found}

    def _acquire(self, message: Message, session: Session, now: float) -> Mapping[str, Any]:
        lease = self.floor.lease.acquire(message["token"], message["run"], session.client, now)
        self.floor.desk.forget()
        self.floor.note("acquire", f"'{session.client}' may move the arm for run '{message['run']}'")
        return {"lease": lease, "ttl": self.floor.lease.ttl}

    def _release(self, message: Message, session: Session, now: float) -> Mapping[str, Any]:
        self.floor.stand("the client has released the arm")
        self.floor.lease.release()
        self.floor.note("release", f"'{session.client}' gives the arm back")
        return {}

    def _heartbeat(self, message: Message, session: Session, now: float) -> Mapping[str, Any]:
        return {"mode": self.driver.status().mode.value, "over": self.floor.over}

    def _home(self, message: Message, session: Session, now: float) -> Mapping[str, Any]:
        self.floor.ready()
        self.driver.ask("home", now)
        return {}

    def _begin(self, message: Message, session: Session, now: float) -> Mapping[str, Any]:
        self.floor.ready()
        if self.floor.episodes.recorder is not None and self.floor.episodes.recording is None:
            self._episode_begin({"meta": {}}, session, now)
        self.floor.over = False
        self.driver.ask("begin", now)
        return {}

    def _traj(self, message: Message, session: Session, now: float) -> Mapping[str, Any]:
        self.floor.ready()
        seen = session.seen.get(message["obs_seq"])
        if seen is None or now - seen > self.patience:
            age = "of unknown age" if seen is None else f"{now - seen:.2f} s old"
            raise Stale(
                f"The trajectory answers an observation {age}, expected at most {self.patience:g} s; plan faster."
            )
        trajectory = JointTrajectory(*(message[name] for name in ("time", "q", "opening", "valid_until")))
        rejected, receipt = None, Receipt(trajectory)
        try:
            receipt = self.driver.ask("send", now, **vars(trajectory)) or receipt
        except RobotError as error:
            rejected = f"{type(error).__name__}: {error}"
            raise
        finally:
            self.floor.recorded(lambda: self.floor.episodes.asked(trajectory, now, rejected, receipt.clipped))
        return {"accepted": len(trajectory.time), **receipt.message()}

    def _pause(self, message: Message, session: Session, now: float) -> Mapping[str, Any]:
        self.driver.ask("pause", now, reason=message["reason"])
        return {}

    def _rest(self, message: Message, session: Session, now: float) -> Mapping[str, Any]:
        if self.floor.lease.alive(now):
            self.floor.lease.check(message["lease"], now)
        self.driver.ask(message["type"], now, reason=f"asked for by '{session.client}': {message['reason']}")
        return {}

    def _confirm(self, message: Message, session: Session, now: float) -> Mapping[str, Any]:
        self.floor.ready()
        return {"answer": self.floor.asked("confirm", message["episode"], now)}

    def _label(self, message: Message, session: Session, now: float) -> Mapping[str, Any]:
        return {"answer": self.floor.asked("label", message["episode"], now)}

    def _episode_begin(self, message: Message, session: Session, now: float) -> Mapping[str, Any]:
        meta = {**message["meta"], "client": session.client, "run": self.floor.lease.run}
        return {"episode": self.floor.episodes.begin(meta, now)}

    def _episode_end(self, message: Message, session: Session, now: float) -> Mapping[str, Any]:
        if message["label"] not in tuple(Label):
            raise BadShape(f"The label is '{message['label']}', expected {', '.join(Label)}.")
        if self.floor.episodes.recording is not None:
            self.floor.stand("the episode is over")
            self.floor.hear()
            self.floor.episodes.end(Label(message["label"]), message["reason"])
        done, folder = self.floor.episodes.finished()
        return {"done": done, "folder": folder}

    def _refused(self, text: str, now: float) -> None:
        """Write a refusal down, but do not let a client fill the disk with them."""
        if len(self._refusals) == TOLD and now - self._refusals[0] < 1.0:
            self._untold += 1
            return
        self._refusals.append(now)
        self.floor.note("refused", text + (f" (and {self._untold} more before)" if self._untold else ""))
        self._untold = 0

    @staticmethod
    def _remember(message: Message, session: Session, now: float) -> None:
        session.seen[message["seq"]] = now
        while len(session.seen) > SEEN:
            del session.seen[next(iter(session.seen))]
