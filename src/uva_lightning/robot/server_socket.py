"""The socket of an arm server, and the loop around everything that it does."""

from __future__ import annotations

import ipaddress
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

from uva_lightning.robot.errors import RobotConfigError
from uva_lightning.robot.server import ArmService
from uva_lightning.robot.wire import REQUEST
from uva_lightning.robot.wire_keys import server_keys

try:
    import zmq
    from zmq.auth.thread import ThreadAuthenticator
except ImportError as error:  # pragma: no cover - depends on the installation
    raise ImportError(
        f"An arm server needs pyzmq ({error}); install it with pip install 'uva_lightning[arm]'."
    ) from error

PERIOD = 0.01
"""Between two looks at what happens, s."""
BURST = 32
"""Most messages that are answered before the next look."""
WAITING = 64
"""Most messages that wait for each client."""
PARTS = 2
"""Of a message: who sent it, and what."""


class ArmSocket:
    """Let clients in and answer them.

    Args:
        service: What answers.
        host: Address to listen at; others than this machine's own only with keys.
        port: 0 takes a free one.
        keys: The server's folder of keys; None lets everybody on this machine in.

    Raises:
        RobotConfigError: It would let in everybody, from everywhere.
        OSError: The port is taken.
    """

    def __init__(
        self, service: ArmService, host: str = "127.0.0.1", port: int = 8790, keys: Path | str | None = None
    ) -> None:
        if keys is None and not loopback(host):
            raise RobotConfigError(
                f"The server would listen at {host} without keys, expected 127.0.0.1, or keys made by 'uva arm keys'."
            )
        self.service = service
        self._context = zmq.Context()
        self._authenticator: Any = None
        self._refused = deque[str](maxlen=WAITING)
        self._socket: Any = self._context.socket(zmq.ROUTER)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.setsockopt(zmq.MAXMSGSIZE, 2 * REQUEST.message_bytes)  # it disconnects who sends more
        self._socket.setsockopt(zmq.RCVHWM, WAITING)
        self._socket.setsockopt(zmq.SNDHWM, WAITING)
        try:
            if keys is not None:
                self._secure(Path(keys))
            self._socket.bind(f"tcp://{host}:{port}")
        except zmq.ZMQError as error:
            self.close()
            why = zmq.strerror(error.errno or 0)
            raise OSError(f"Cannot listen at {host}:{port} ({why}); choose another --port or --host.") from error
        except RobotConfigError:
            self.close()
            raise
        self.port = int(self._socket.getsockopt_string(zmq.LAST_ENDPOINT).rpartition(":")[2])

    def run(self, over: Callable[[], bool]) -> None:
        """Answer until it is over."""
        due = time.monotonic()
        while not over():
            now = time.monotonic()
            if now >= due:
                self.service.floor.tick()
                due = max(due + PERIOD, now)
            self.step(max(0.0, due - time.monotonic()))

    def step(self, seconds: float) -> None:
        """Wait so long for messages, and answer those that came."""
        while self._refused:
            self.service.floor.note("unknown", f"A client with the unknown key {self._refused.popleft()} was refused")
        for _ in range(BURST):
            if not self._socket.poll(int(seconds * 1e3)):
                return
            parts, seconds = self._socket.recv_multipart(zmq.NOBLOCK), 0.0
            answer = self.service.answer(parts[1] if len(parts) == PARTS else b"")
            try:
                self._socket.send_multipart([parts[0], answer], zmq.NOBLOCK)
            except zmq.ZMQError as error:  # who asked does not read; it will see that nothing came
                self.service.floor.note("unread", f"An answer of {len(answer)} bytes was not taken ({error})")

    def close(self) -> None:
        """Stop listening."""
        if self._authenticator is not None:
            self._authenticator.stop()
        self._socket.close(linger=0)
        self._context.destroy(linger=0)

    def _secure(self, folder: Path) -> None:
        public, secret, known = server_keys(folder)
        self._socket.curve_server = True
        self._socket.curve_publickey, self._socket.curve_secretkey = public, secret
        self._socket.zap_domain = b"arm"
        self._authenticator = ThreadAuthenticator(self._context)
        self._authenticator.start()
        self._authenticator.configure_curve_callback("arm", _Known(known, self._refused))


class _Known:
    """Clients that are let in; asked by the authenticator's thread."""

    def __init__(self, keys: frozenset[bytes], refused: deque[str]) -> None:
        self._keys, self._refused = keys, refused

    def callback(self, domain: str, key: bytes) -> bool:
        known = key in self._keys
        if not known:
            self._refused.append(key.decode())
        return known


def loopback(host: str) -> bool:
    """Tell whether only this machine reaches an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
