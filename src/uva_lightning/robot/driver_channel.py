"""What server and driver process tell each other: msgpack over a socket pair, and ticks through shared memory."""

from __future__ import annotations

import mmap
import os
import socket
import struct
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from uva_lightning.robot.arm import ArmState
from uva_lightning.robot.arm_model import ArmModel
from uva_lightning.robot.chain import Chain, Link
from uva_lightning.robot.driver import Event, Status
from uva_lightning.robot.keeper import Mode
from uva_lightning.serving.wire import Limits, Message, decode, encode

LARGEST = 1 << 17
"""Bytes of a message; socket pairs of Linux take more."""
BOUNDS = Limits(message_bytes=LARGEST, array_bytes=LARGEST, text=LARGEST // 2)
TICKS = struct.Struct("<Q")


class Channel:
    """One end of a socket pair that keeps messages apart. Nothing here ever waits.

    Args:
        end: SOCK_SEQPACKET.
    """

    def __init__(self, end: socket.socket) -> None:
        self.end, self.closed = end, False
        end.setblocking(False)

    def send(self, message: Mapping[str, Any]) -> bool:
        """Send; False where the other end does not read, or is gone."""
        try:
            self.end.send(encode(dict(message)))
        except OSError:  # BlockingIOError, BrokenPipeError, ...
            return False
        return True

    def receive(self) -> list[Message]:
        """Give all that has come; ``closed`` once the other end is gone."""
        found: list[Message] = []
        while not self.closed:
            try:
                data = self.end.recv(LARGEST)
            except BlockingIOError:
                break
            except OSError:
                data = b""
            if not data:
                self.closed = True
                break
            found.append(decode(data, BOUNDS))
        return found


class Ticks:
    """A counter that another process sees, also while the one that counts hangs.

    Args:
        file: Descriptor of 8 bytes that both can map.
    """

    def __init__(self, file: int) -> None:
        self._memory = mmap.mmap(file, TICKS.size)

    @staticmethod
    def make() -> int:
        """Give a descriptor of shared memory."""
        file = os.memfd_create("uva-arm-ticks")
        os.ftruncate(file, TICKS.size)
        return file

    @property
    def count(self) -> int:
        """How often it was counted."""
        return int(TICKS.unpack_from(self._memory)[0])

    def beat(self) -> None:
        """Count."""
        TICKS.pack_into(self._memory, 0, self.count + 1)


class TickWatch:
    """Tell from a counter whether somebody still counts; pure.

    Args:
        now: s.
    """

    def __init__(self, now: float) -> None:
        self._count, self._changed = -1, now

    def silent(self, count: int, now: float) -> float:
        """Look at the counter; give for how long it stands still, s."""
        if count != self._count:
            self._count, self._changed = count, now
        return now - self._changed


def status_message(status: Status, events: Sequence[Event]) -> Message:
    """Write how an arm is, and what has happened to it."""
    state = None if status.state is None else vars(status.state)
    values = {"time": status.time, "mode": status.mode.value, "reason": status.reason, "state": state}
    return {**values, "set_point": status.set_point, "events": [list(vars(event).values()) for event in events]}


def read_status(message: Message) -> tuple[Status, list[Event]]:
    """Read it."""
    state = None if message["state"] is None else ArmState(**message["state"])
    events = [Event(*event) for event in message["events"]]
    set_point = None if message["set_point"] is None else np.array(message["set_point"])
    return Status(message["time"], Mode(message["mode"]), message["reason"], state, set_point), events


def model_message(model: ArmModel) -> Message:
    """Write what is known of an arm."""
    links = [asdict(link) for link in model.chain.links]
    limits = {name: getattr(model, name) for name in ("lower", "upper", "velocity", "torque")}
    return {"name": model.name, "links": links, **limits, "gripper_width": model.gripper_width}


def read_model(message: Message) -> ArmModel:
    """Read it."""
    limits = {name: np.array(message[name]) for name in ("lower", "upper", "velocity", "torque")}
    chain = Chain([Link(**link) for link in message["links"]])
    return ArmModel(message["name"], chain, **limits, gripper_width=message["gripper_width"])
