"""Serve a policy to robots: websocket and msgpack, as openpi's clients speak it.

A client connects, gets the server's metadata, and then sends one observation and gets one reply, again and again. A
reply is a binary frame; what cannot be answered gets a text frame with one sentence, and the session goes on.
"""

from __future__ import annotations

import asyncio
import hmac
import http
import logging
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from uva_lightning.serving.batching import Answer, Batcher, PolicyError
from uva_lightning.serving.served import Served, Session
from uva_lightning.serving.wire import Limits, Message, WireError, decode, encode

try:
    from websockets.asyncio.server import Server, ServerConnection, serve
    from websockets.exceptions import ConnectionClosed
    from websockets.http11 import Request, Response
except ImportError as error:  # pragma: no cover - depends on the installation
    raise ImportError(
        f"Serving policies needs websockets ({error}); install it with pip install 'uva_lightning[serve]'."
    ) from error

GOING_AWAY, POLICY_VIOLATION, TRY_LATER = 1001, 1008, 1013
HEALTH, SCHEMES = "/healthz", ("api-key", "bearer")
OUTPUT_BYTES = 32 << 20
"""What may wait for a client to read it; the largest reply must fit."""
DRAIN_S, SOON_S, POLL_S = 10.0, 2.0, 0.01

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ServerOptions:
    """How a server listens, and what it bears.

    Args:
        host: Address to listen at; the default is reached from this machine only.
        port: Port; 0 takes a free one.
        token: What clients must show in the header ``Authorization: Api-Key TOKEN``; none if empty.
        tls: Certificate and key, for ``wss://``.
        limits: Bounds on a message.
        clients: Most connections; further ones are refused with status 503.
        most: Requests that one call of the policy answers.
        wait_s: Longest wait for other requests before a call, in s.
        idle_s: A client that sends nothing for so long is let go.
        send_s: A client that does not take a reply for so long is let go.
        ping_s: Interval of the pings that find dead connections, and the time they have for an answer.
        errors: Messages in a row that cannot be answered before a client is let go.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    token: str = ""
    tls: ssl.SSLContext | None = None
    limits: Limits = field(default_factory=Limits)
    clients: int = 64
    most: int = 32
    wait_s: float = 0.005
    idle_s: float = 3600.0
    send_s: float = 30.0
    ping_s: float = 20.0
    errors: int = 16

    def __post_init__(self) -> None:
        for name in ("clients", "most", "errors"):
            if (value := getattr(self, name)) < 1:
                raise ValueError(f"{name} is {value}, expected at least 1.")
        for name in ("idle_s", "send_s", "ping_s"):
            if (value := getattr(self, name)) <= 0:
                raise ValueError(f"{name} is {value} s, expected more than 0.")
        if not 0 <= self.port <= 65535:
            raise ValueError(f"port is {self.port}, expected 0 to 65535.")


class PolicyServer:
    """Serve one policy to many clients.

    Each client has a session of its own and one request under way; the next message is not even read before the reply
    has been taken, so that what a client sends too much waits in its own network buffers.

    Args:
        served: Policy.
        options: How.
    """

    def __init__(self, served: Served, options: ServerOptions | None = None) -> None:
        self.served, self.options = served, options or ServerOptions()
        self.port = self.options.port
        self.sessions = 0
        self.batcher = Batcher(served, self.options.most, self.options.wait_s)
        self._busy, self._stopping = 0, False
        self._server: Server | None = None
        self._greeting = b""

    @property
    def sockets(self) -> tuple[socket.socket, ...]:
        """What it listens at."""
        return () if self._server is None else tuple(self._server.sockets)

    @property
    def connections(self) -> set[ServerConnection]:
        """Clients that are connected."""
        return set() if self._server is None else set(self._server.connections)

    async def start(self) -> None:
        """Listen; ``port`` then holds the port."""
        options, batcher = self.options, self.batcher
        batcher.start()
        self._greeting = encode(await batcher.metadata())
        self._server = await serve(
            self._client,
            options.host,
            options.port,
            process_request=self._admit,
            ssl=options.tls,
            compression=None,  # a few bytes could unpack to the whole limit, again and again
            max_size=options.limits.message_bytes,
            max_queue=1,
            ping_interval=options.ping_s,
            ping_timeout=options.ping_s,
            close_timeout=SOON_S,
            create_connection=_Bounded,
            logger=_quiet(),
        )
        self.port = self.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Take no more connections, answer what is asked already, and say goodbye to every client."""
        self._stopping = True
        if self._server is not None:
            self._server.close(close_connections=False)
            until = time.monotonic() + DRAIN_S
            while self._busy and time.monotonic() < until:
                await asyncio.sleep(POLL_S)
            if self._busy:
                _log.warning("%s requests are not answered %s s after the server was stopped.", self._busy, DRAIN_S)
            open_now = self.connections
            await asyncio.gather(*(one.close(GOING_AWAY, "the server stops") for one in open_now))
            await self._server.wait_closed()
        await self.batcher.stop()

    def _admit(self, connection: ServerConnection, request: Request) -> Response | None:
        """Answer what is no websocket, and refuse who may not come in."""
        if request.path == HEALTH:
            return connection.respond(http.HTTPStatus.OK, "OK\n")
        if self.options.token and not self._authorized(request.headers.get_all("Authorization")):
            response = connection.respond(
                http.HTTPStatus.UNAUTHORIZED,
                "This server needs a token, expected the header 'Authorization: Api-Key TOKEN' with the right one.\n",
            )
            response.headers["WWW-Authenticate"] = "Api-Key"
            return response
        if self.sessions >= self.options.clients:
            text = f"This server has {self.sessions} clients, expected at most {self.options.clients}; try later.\n"
            return connection.respond(http.HTTPStatus.SERVICE_UNAVAILABLE, text)
        return None

    def _authorized(self, given: list[str]) -> bool:
        scheme, _, token = given[0].partition(" ") if len(given) == 1 else ("", "", "")
        same = hmac.compare_digest(token.strip().encode(errors="replace"), self.options.token.encode())
        return same and scheme.lower() in SCHEMES

    async def _client(self, connection: ServerConnection) -> None:
        """Serve one client from its first to its last message."""
        if self.sessions >= self.options.clients:  # several may have been let in at once
            return await connection.close(TRY_LATER, "too many clients")
        self.sessions += 1
        session, gone = await self.batcher.open(), asyncio.create_task(connection.wait_closed())
        try:
            await asyncio.wait_for(connection.send(self._greeting), self.options.send_s)
            await self._talk(connection, session, gone)
        except (ConnectionClosed, _Gone):
            pass
        except TimeoutError:
            await connection.close(POLICY_VIOLATION, "nothing was sent, or a reply was not taken, for too long")
        finally:
            self.sessions -= 1
            gone.cancel()
            await self.batcher.close(session)

    async def _talk(self, connection: ServerConnection, session: Session, gone: asyncio.Task[None]) -> None:
        wrong, total_ms = 0, 0.0
        while wrong < self.options.errors and not self._stopping:
            data = await asyncio.wait_for(connection.recv(), self.options.idle_s)
            start = time.perf_counter()
            self._busy += 1
            try:
                reply = await self._reply(session, data, gone, total_ms)
                await asyncio.wait_for(connection.send(reply), self.options.send_s)
            finally:
                self._busy -= 1
            wrong = wrong + 1 if isinstance(reply, str) else 0
            total_ms = 1000 * (time.perf_counter() - start)
        if not self._stopping:
            await connection.close(POLICY_VIOLATION, f"{wrong} messages in a row that cannot be answered")

    async def _reply(
        self, session: Session, data: str | bytes, gone: asyncio.Task[None], previous_ms: float
    ) -> str | bytes:
        """Give a reply, or the sentence that says why there is none."""
        try:
            if isinstance(data, str):
                raise WireError("The message is text, expected a binary frame with msgpack.")
            answer = await self._answer(session, decode(data, self.options.limits), gone)
            return encode(_timed(answer, previous_ms))
        except (ValueError, PolicyError) as error:
            return str(error)

    async def _answer(self, session: Session, message: Message, gone: asyncio.Task[None]) -> Answer:
        """Ask the policy, unless the client goes meanwhile."""
        asked = asyncio.create_task(self.batcher.ask(session, message))
        await asyncio.wait((asked, gone), return_when=asyncio.FIRST_COMPLETED)
        if not asked.done():
            asked.cancel()
            raise _Gone
        return asked.result()


class _Gone(Exception):
    """The client left while it was waiting."""


class _Bounded(ServerConnection):
    """A connection whose output is bounded: who floods it with pings must also read the answers."""

    def data_received(self, data: bytes) -> None:
        """Take what came; websockets answers pings itself, whether or not there is room for more answers."""
        super().data_received(data)
        if self.transport.get_write_buffer_size() > OUTPUT_BYTES:
            self.transport.abort()


def _timed(answer: Answer, previous_ms: float) -> Message:
    """Add the times in ms; ``prev_total_ms`` is of the request before, up to its reply's leaving."""
    server = {
        "infer_ms": answer.infer_ms,
        "wait_ms": answer.wait_ms,
        "prev_total_ms": previous_ms,
        "batch": answer.batch,
    }
    timing = {"policy_timing": {"infer_ms": answer.infer_ms}, "server_timing": server}
    return {**timing, **answer.reply, "server_timing": server}


def _quiet() -> logging.Logger:
    """Give websockets a logger that keeps silent about clients that break off; they are everyday."""
    logger = logging.getLogger(f"{__name__}.websockets")
    logger.setLevel(logging.CRITICAL)
    return logger


@contextmanager
def running(served: Served, options: ServerOptions | None = None) -> Iterator[PolicyServer]:
    """Run a server in a thread of its own, for as long as the block lasts.

    Yields:
        The server, which listens; ``port`` is its port.
    """
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="policy-server", daemon=True)
    thread.start()

    async def begin() -> PolicyServer:
        server = PolicyServer(served, options)
        await server.start()
        return server

    try:
        server = asyncio.run_coroutine_threadsafe(begin(), loop).result()
        try:
            yield server
        finally:
            asyncio.run_coroutine_threadsafe(server.stop(), loop).result()
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
