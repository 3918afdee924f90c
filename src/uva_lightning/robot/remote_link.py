"""The client's end of a connection to an arm server: one socket that several threads may use."""

from __future__ import annotations

import itertools
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

from uva_lightning.robot.errors import ClockSkew, ConnectTimeout, RobotConfigError, RobotError, ServerLost
from uva_lightning.robot.server_session import SKEW
from uva_lightning.robot.wire import read_reply, request
from uva_lightning.robot.wire_keys import client_keys
from uva_lightning.serving.wire import Message, WireError

try:
    import zmq
except ImportError as error:  # pragma: no cover - depends on the installation
    raise ImportError(
        f"Talking to an arm server needs pyzmq ({error}); install it with pip install 'uva_lightning[arm]'."
    ) from error

OBSERVING = ("state", "observe")
PINGS = 8
"""Comparisons of clocks that are kept; the quickest one counts."""


class ClockComparison:
    """What the server's clock shows when ours shows something.

    Of the newest comparisons the one with the quickest answer counts: it errs by at most half of its way to and fro.
    """

    def __init__(self) -> None:
        self._compared = deque[tuple[float, float]](maxlen=PINGS)
        self.offset = 0.0
        """To be added to our time to get the server's, s."""
        self.moved = 0.0
        """How far the clocks have moved against each other, s; whoever sees that has to connect anew."""

    def add(self, asked: float, server: float, answered: float) -> None:
        """Compare: when we asked, what the server's clock showed, and when the answer was here, s.

        Raises:
            ClockSkew: One of the clocks was changed.
        """
        offset, error = server - 0.5 * (asked + answered), 0.5 * (answered - asked)
        if self._compared and abs(offset - self.offset) > SKEW + error + self.error:
            self.moved = offset - self.offset
        self._refuse_moved()
        self._compared.append((error, offset))
        self.offset = min(self._compared)[1]

    @property
    def error(self) -> float:
        """How far the offset may be off, s; infinite where clocks were not compared."""
        return min(self._compared)[0] if self._compared else float("inf")

    def check(self) -> None:
        """Refuse to move an arm by clocks that are not known well enough.

        Raises:
            ClockSkew: They are not.
        """
        self._refuse_moved()
        if not self.error <= SKEW:
            raise ClockSkew(
                f"The server's clock is known to {self.error * 1e3:.0f} ms, expected {SKEW * 1e3:.0f} ms; the network "
                "is slow, or clocks were not compared."
            )

    def _refuse_moved(self) -> None:
        if self.moved:
            raise ClockSkew(f"The clocks have moved against each other by {self.moved:+.3f} s; connect anew.")


class Link:
    """Talk to an arm server; every call waits for its answer, not without an end. Use it in a ``with`` block.

    Args:
        address: ``host:port``.
        keys: Folder with this client's secret key and the server's public one; None where the server needs none.
        clock: Ours, s.
        connect_timeout: For the first answer, s.
        call_timeout: For every further one, s.
    """

    def __init__(
        self,
        address: str,
        keys: Path | str | None = None,
        clock: Callable[[], float] = time.monotonic,
        connect_timeout: float = 2.0,
        call_timeout: float = 0.5,
    ) -> None:
        host, _, port = address.rpartition(":")
        if not host or not port.isdigit():
            raise RobotConfigError(f"The arm server is '{address}', expected HOST:PORT such as 127.0.0.1:8790.")
        self.address, self.clock = address, clock
        self.connect_timeout, self.call_timeout = connect_timeout, call_timeout
        self.clocks, self.session, self.lease = ClockComparison(), "", ""
        self.observed = 0
        """Number of the newest observation."""
        self._keys = client_keys(Path(keys)) if keys is not None else None
        self._lock, self._numbers = threading.Lock(), itertools.count(1)
        self._socket: Any = None

    def connect(self, client: str, model: str, geometry: str, limits: str) -> Message:
        """Begin a session and compare clocks; give what the server says of itself.

        Raises:
            ConnectTimeout: Nobody answers, or not to us.
            RobotConfigError: The server has another arm or other limits.
            ClockSkew: The clocks cannot be compared well enough.
        """
        self.close()
        self._socket = zmq.Context.instance().socket(zmq.DEALER)
        self._socket.setsockopt(zmq.LINGER, 0)
        if self._keys is not None:
            self._socket.curve_publickey, self._socket.curve_secretkey, self._socket.curve_serverkey = self._keys
        self._socket.connect(f"tcp://{self.address}")
        try:
            names = {"client": client, "model": model, "geometry": geometry, "limits": limits}
            try:
                welcome = self._call("hello", self.connect_timeout, names)
            except ServerLost as error:
                raise ConnectTimeout(
                    f"No arm server answers at {self.address} within {self.connect_timeout:g} s; does 'uva arm serve' "
                    "run there, does it know this client's key, and is the port open?"
                ) from error
            self.session = str(welcome["session"])
            for _ in range(PINGS):
                self.compare()
            self.clocks.check()
        except RobotError:
            self.close()
            raise
        return welcome

    def compare(self) -> None:
        """Compare clocks once more."""
        asked = self.clock()
        said = self.call("ping", t_client=asked)
        self.clocks.add(asked, said["t_server"], self.clock())

    def call(self, kind: str, **values: Any) -> Message:
        """Ask for something.

        Raises:
            ServerLost: No answer came in time.
            RobotError: What the server says to it.
        """
        return self._call(kind, self.call_timeout, values)

    def close(self) -> None:
        """Disconnect; never raises."""
        with self._lock:
            if self._socket is not None:
                self._socket.close(linger=0)
            self._socket, self.session, self.lease, self.clocks = None, "", "", ClockComparison()

    def _call(self, kind: str, timeout: float, values: dict[str, Any]) -> Message:
        with self._lock:
            if self._socket is None:
                raise ServerLost(f"There is no connection to {self.address}; connect first.")
            number = next(self._numbers)
            data = request(kind, number, self.clock() + self.clocks.offset, self.session, self.lease, values)
            try:
                self._socket.send(data, zmq.NOBLOCK)
                said = self._wait(number, time.monotonic() + timeout)
            except (zmq.ZMQError, WireError) as error:
                raise ServerLost(f"The arm server at {self.address} cannot be understood ({error}).") from error
        if said is None:
            raise ServerLost(
                f"The arm server at {self.address} has not answered '{kind}' within {timeout:g} s; without us its arm "
                "holds and parks."
            )
        if isinstance(said, RobotError):
            raise said
        if kind in OBSERVING:
            self.observed = number
        return said

    def _wait(self, number: int, until: float) -> Message | RobotError | None:
        """Give the answer of this number, None after that time; answers that came too late for others are dropped."""
        while (left := until - time.monotonic()) > 0 and self._socket.poll(int(left * 1e3) + 1):
            found, said = read_reply(self._socket.recv(zmq.NOBLOCK))
            if found == number or (found == 0 and isinstance(said, RobotError)):
                return said
        return None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
