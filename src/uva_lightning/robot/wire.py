"""Messages between an arm server and its clients: a fixed schema of msgpack maps, checked on both sides.

Every message has ``v``, ``type``, ``seq`` and ``t_send``. A request also has ``session`` and ``lease``, both empty
where it has none; a reply repeats ``seq``. Arrays are those of ``serving.wire``. Nothing is ever unpickled.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from uva_lightning.robot.errors import BadShape, RobotError, named
from uva_lightning.serving.wire import MIB, Limits, Message, WireError, decode, encode

VERSION = 2
"""Of this protocol; both sides need the same."""
REQUEST = Limits(message_bytes=MIB // 4, array_bytes=MIB // 8, dims=2, entries=4096, depth=12, text=4096)
"""Bounds on what a client sends."""
REPLY = Limits(message_bytes=8 * MIB, array_bytes=8 * MIB, dims=4, entries=1024, depth=4, text=4096)
"""Bounds on what a server sends."""
WAY_POINTS = 64
"""Most of a trajectory."""
NAME = 64
"""Longest name in characters."""
REASON = 500
"""Longest sentence in characters."""


@dataclass(frozen=True)
class Field:
    """What one entry of a message may be.

    Args:
        kind: Python's type of it; a float may come as a whole number.
        most: Longest text in characters, longest list, or most entries of a map.
        dims: Dimensions of an array of f8.
    """

    kind: type
    most: int = NAME
    dims: int = 0

    def check(self, name: str, value: Any) -> Any:
        """Give the value, a float where one is due.

        Raises:
            WireError: It is something else.
        """
        if self.kind is float and type(value) is int:
            value = float(value)
        if type(value) is not self.kind:
            raise WireError(f"'{name}' is a {type(value).__name__}, expected a {self.kind.__name__}.")
        if isinstance(value, np.ndarray) and (value.dtype != np.float64 or value.ndim != self.dims):
            raise WireError(f"'{name}' is {value.dtype} of shape {value.shape}, expected f8 of {self.dims} dimensions.")
        if isinstance(value, str | list | dict | np.ndarray) and len(value) > self.most:
            raise WireError(f"'{name}' has the length {len(value)}, expected at most {self.most}.")
        return value


TEXT, WHOLE, REAL, FLAG = Field(str), Field(int), Field(float), Field(bool)
SENTENCE = Field(str, REASON)
ROW, TABLE = Field(np.ndarray, WAY_POINTS, 1), Field(np.ndarray, WAY_POINTS, 2)
HEAD = {"v": WHOLE, "type": TEXT, "seq": WHOLE, "t_send": REAL, "session": TEXT, "lease": TEXT}
REQUESTS: dict[str, dict[str, Field]] = {
    "hello": {"client": TEXT, "model": TEXT, "geometry": TEXT, "limits": TEXT},
    "ping": {"t_client": REAL},
    "state": {},
    "observe": {"names": Field(list, 8), "count": WHOLE},
    "acquire": {"token": TEXT, "run": TEXT},
    "release": {},
    "heartbeat": {},
    "home": {},
    "begin": {},
    "traj": {"time": ROW, "q": TABLE, "opening": ROW, "valid_until": ROW, "obs_seq": WHOLE},
    "pause": {"reason": SENTENCE},
    "hold": {"reason": SENTENCE},
    "park": {"reason": SENTENCE},
    "damp": {"reason": SENTENCE},
    "stop": {"reason": SENTENCE},
    "confirm": {"episode": WHOLE},
    "label": {"episode": WHOLE},
    "episode_begin": {"meta": Field(dict, 64)},
    "episode_end": {"label": TEXT, "reason": SENTENCE},
}
"""Entries of each request, beside those of ``HEAD``; all of them are needed, and no others allowed."""


def request(kind: str, seq: int, t_send: float, session: str, lease: str, values: Mapping[str, Any]) -> bytes:
    """Write a request.

    Raises:
        BadShape: It does not fit the schema; nothing is sent.
    """
    head = {"v": VERSION, "type": kind, "seq": seq, "t_send": t_send, "session": session, "lease": lease}
    try:
        return encode(_checked({**head, **values}))
    except WireError as error:
        raise BadShape(str(error)) from None


def read_request(data: bytes) -> Message:
    """Read a request.

    Raises:
        WireError: It does not fit the schema.
    """
    return _checked(decode(data, REQUEST))


def reply(seq: int, now: float, values: Mapping[str, Any]) -> bytes:
    """Answer the request of this number."""
    return encode({"v": VERSION, "type": "ok", "seq": seq, "t_send": now, **values})


def refusal(seq: int, now: float, error: Exception) -> bytes:
    """Say what is wrong with the request of this number; 0 where it has none."""
    code = type(error).__name__ if isinstance(error, RobotError) else BadShape.__name__
    text = str(error)[:REASON]
    return encode({"v": VERSION, "type": "error", "seq": seq, "t_send": now, "code": code, "text": text})


def read_reply(data: bytes) -> tuple[int, Message | RobotError]:
    """Give the number of the request, and what was answered, or the error that was.

    Raises:
        WireError: It is no reply.
    """
    message = decode(data, REPLY)
    for name in ("v", "type", "seq", "t_send"):
        if name not in message:
            raise WireError(f"The reply lacks '{name}', expected v, type, seq and t_send.")
        HEAD[name].check(name, message[name])
    if message["type"] == "error":
        return message["seq"], named(str(message.get("code")), str(message.get("text")))
    if message["v"] != VERSION or message["type"] != "ok":
        raise WireError(f"The reply has v {message['v']} and type '{message['type']}', expected {VERSION} and 'ok'.")
    return message["seq"], message


def _checked(message: Message) -> Message:
    kind = message.get("type")
    if message.get("v") != VERSION:
        raise WireError(f"The message has version {message.get('v')!r:.20}, expected {VERSION}; update the older side.")
    if not isinstance(kind, str) or kind not in REQUESTS:
        raise WireError(f"The message has type {kind!r:.80}, expected one of {', '.join(REQUESTS)}.")
    fields = {**HEAD, **REQUESTS[kind]}
    if wrong := sorted(set(message) ^ set(fields)):
        what = "has" if wrong[0] in message else "lacks"
        raise WireError(f"A message of type {kind} {what} '{wrong[0]:.80}', expected {', '.join(fields)}.")
    checked = {name: field.check(name, message[name]) for name, field in fields.items()}
    if kind == "observe" and any(type(name) is not str for name in checked["names"]):
        raise WireError("'names' has something else than text, expected names of cameras.")
    if kind == "episode_begin":
        _check_plain(checked["meta"])
    return checked


def _check_plain(meta: Message) -> None:
    """Refuse what cannot be written as JSON; its depth is bounded already."""
    waiting: list[Any] = [meta]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict | list):
            waiting += value.values() if isinstance(value, dict) else value
        elif value is not None and type(value) not in (str, int, float, bool):
            raise WireError(f"'meta' has a {type(value).__name__}, expected text, numbers, lists and maps.")
