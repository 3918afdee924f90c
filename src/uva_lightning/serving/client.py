"""Ask a policy server, ours or one of openpi."""

from __future__ import annotations

import ssl
import time
from contextlib import ExitStack, closing
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

from uva_lightning.serving.wire import MIB, Limits, Message, decode, encode

try:
    from websockets.exceptions import ConnectionClosed, InvalidMessage, InvalidStatus, WebSocketException
    from websockets.sync.client import ClientConnection, connect
except ImportError as error:  # pragma: no cover - depends on the installation
    raise ImportError(
        f"Asking a policy server needs websockets ({error}); install it with pip install 'uva_lightning[serve]'."
    ) from error

PROTOCOL = 1
"""Version of what our servers add to openpi's protocol; metadata hold it as ``uva_protocol``."""
TRUSTED = Limits(message_bytes=256 * MIB, array_bytes=256 * MIB, entries=1 << 20, depth=32, text=MIB)
"""A client chose its server, but a broken server must not eat its memory either."""
RETRY_S, PATIENT_S, PROBE_S = 0.5, 30.0, 2.0
BROKEN_OFF = (ssl.SSLError, InvalidMessage, ConnectionResetError)
"""How a connection ends where one side speaks TLS and the other does not."""


class ServerError(ValueError):
    """What the server answered instead of a reply: its sentence, or the traceback of an openpi server."""


class PolicyClient:
    """A connection to a policy server, which is one session there. Use it in a ``with`` block, or close it.

    Args:
        url: ``ws://host:port`` or ``wss://host:port``.
        token: Sent as ``Authorization: Api-Key TOKEN``; nothing if empty.
        tls: What ``wss://`` trusts; the system's certificates if not given.
        wait_s: How long to wait for a server that is not there yet, in s.
        timeout_s: How long to wait for a reply, in s.

    Attributes:
        metadata: What the server said of itself.

    Raises:
        ConnectionError: There is no server, or it refuses; with its reason.
        ValueError: The server speaks a newer protocol.
    """

    def __init__(
        self,
        url: str,
        token: str = "",
        tls: ssl.SSLContext | None = None,
        wait_s: float = 0.0,
        timeout_s: float = 600.0,
    ) -> None:
        if not url.startswith(("ws://", "wss://")):
            raise ValueError(f"The policy server is '{url}', expected ws://HOST:PORT or wss://HOST:PORT.")
        self.url, self.timeout_s = url, timeout_s
        self._open = ExitStack()
        self._connection = _connected(self._open, url, token, tls, wait_s)
        greeting = self._receive()
        if isinstance(greeting, str):
            self.close()
            raise ServerError(greeting)
        self.metadata = decode(greeting, TRUSTED)
        version = self.metadata.get("uva_protocol", 0)
        if not isinstance(version, int) or version > PROTOCOL:
            self.close()
            raise ValueError(
                f"{url} speaks version {version} of the protocol, this client up to {PROTOCOL}; update this side."
            )

    @property
    def functions(self) -> tuple[str, ...]:
        """What the server can be asked for; of a server that is not ours, ``policy`` is all one knows."""
        return tuple(self.metadata.get("functions", ("policy",)))

    def infer(self, observation: Message) -> Message:
        """Ask and wait for the reply.

        Raises:
            ServerError: The server cannot answer this; the session goes on.
            ConnectionError: The connection is lost, or the reply is not there in time; a new client begins anew.
        """
        self.send(observation)
        return self.receive()

    def send(self, observation: Message) -> None:
        """Ask without waiting; one ``receive`` belongs to it, before the next ``send``."""
        try:
            self._connection.send(encode(observation))
        except ConnectionClosed as error:
            raise self._lost(error) from None

    def receive(self) -> Message:
        """Wait for the reply to what was sent; errors as for ``infer``."""
        reply = self._receive()
        if isinstance(reply, str):
            raise ServerError(reply)
        return decode(reply, TRUSTED)

    def reset(self, **options: Any) -> None:
        """Begin an episode: the session forgets what it has seen. A server that is not ours has nothing to forget.

        Args:
            options: What the server lets one choose for an episode, such as ``prompt`` and ``seed``.
        """
        if "reset" in self.functions:
            self.infer({"function": "reset", **options})

    def close(self) -> None:
        """Say goodbye."""
        self._open.close()

    def __enter__(self) -> Self:
        """Give the client."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the connection."""
        self.close()

    def _receive(self) -> str | bytes:
        try:
            reply: str | bytes = self._connection.recv(timeout=self.timeout_s)
        except ConnectionClosed as error:
            raise self._lost(error) from None
        except TimeoutError:
            self.close()  # the reply, should it come, must not be taken for that to the next question
            raise ConnectionError(
                f"{self.url} gave no reply in {self.timeout_s:g} s; connect anew, or set timeout_s higher."
            ) from None
        return reply

    def _lost(self, error: ConnectionClosed) -> ConnectionError:
        said = f"{error.rcvd.code} {error.rcvd.reason}".strip() if error.rcvd is not None else "without a word"
        return ConnectionError(f"{self.url} closed the connection ({said}); a new client begins a new session.")


def _connected(keep: ExitStack, url: str, token: str, tls: ssl.SSLContext | None, wait_s: float) -> ClientConnection:
    """Connect, again and again for a while; ``keep`` closes the connection."""
    headers = {"Authorization": f"Api-Key {token}"} if token else None
    until = time.monotonic() + wait_s
    while True:
        try:
            return keep.enter_context(
                connect(
                    url,
                    ssl=tls,
                    compression=None,
                    additional_headers=headers,
                    max_size=TRUSTED.message_bytes,
                    open_timeout=PATIENT_S,
                    ping_timeout=None,  # the first call of a compiled model may hold a server's threads for long
                )
            )
        except InvalidStatus as error:
            body = (error.response.body or b"").decode(errors="replace").strip()
            raise ConnectionError(f"{url} refused with status {error.response.status_code}: {body}") from None
        except ssl.SSLCertVerificationError as error:
            raise ConnectionError(
                f"The certificate of {url} is not trusted ({error.verify_message}); to trust it set SSL_CERT_FILE to "
                "its file, or give tls=ssl.create_default_context(cafile=FILE)."
            ) from None
        except (OSError, WebSocketException) as error:
            if isinstance(error, BROKEN_OFF) and _is_other_scheme(url):
                raise ConnectionError(_other_scheme(url)) from None
            if time.monotonic() >= until:
                raise ConnectionError(f"There is no policy server at {url} ({error}); start one: uva serve.") from None
            time.sleep(RETRY_S)


def _is_other_scheme(url: str) -> bool:
    """Tell whether a server that broke off answers by the other of ws:// and wss://; it is shown no token."""
    secure, place = url.startswith("wss://"), urlsplit(url)
    host, port = place.hostname or "", place.port or (443 if secure else 80)
    anyone = ssl.create_default_context()
    anyone.check_hostname, anyone.verify_mode = False, ssl.CERT_NONE  # nothing is told, only TLS looked for
    plain = HTTPConnection(host, port, timeout=PROBE_S)
    with closing(plain if secure else HTTPSConnection(host, port, timeout=PROBE_S, context=anyone)) as asking:
        try:
            asking.request("GET", "/healthz")
            status = asking.getresponse().status
        except (OSError, HTTPException):
            return False
    return status == HTTPStatus.OK or not secure  # servers of TLS may refuse plain requests in plain words


def _other_scheme(url: str) -> str:
    scheme, _, place = url.partition("://")
    if scheme == "wss":
        return f"The server at {place} does not speak TLS, {url} expects it; use ws://{place}, or start it with TLS."
    return f"The server at {place} speaks TLS, {url} does not; use wss://{place}."
