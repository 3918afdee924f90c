"""A real server on a free port: clients that hang, send garbage, leave or flood."""

from __future__ import annotations

import socket
import time

import msgpack
import numpy as np
import pytest
from small_policies import HORIZON, Follower
from small_servers import SOON, at, in_time, limited, url, works
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from uva_lightning.serving.client import PolicyClient, ServerError
from uva_lightning.serving.server import ServerOptions, running
from uva_lightning.serving.wire import MIB, Limits, encode


def sent_until_refused(raw, data, most):
    """Send again and again, until the socket takes no more or is cut off; gives the bytes that went."""
    sent = 0
    while sent < most:
        try:
            sent += raw.send(data)
        except OSError:
            break
    return sent


@pytest.fixture
def server():
    with running(Follower(history=1), ServerOptions(port=0, wait_s=0.05)) as server:
        yield server


def test_garbage_is_answered_and_at_last_shown_the_door():
    with limited(errors=4) as server:
        with connect(url(server), compression=None) as bad:
            bad.recv()
            for data, words in [(b"\xc1", "no msgpack"), ("text", "expected a binary frame"), (b"\x90", "a list")]:
                bad.send(data)
                assert words in bad.recv()
            bad.send(encode(at(1.0)))  # a good one is forgiven
            assert isinstance(bad.recv(), bytes)
            for _ in range(4):
                bad.send(b"\xff" * 100)
                assert "msgpack" in bad.recv()
            with pytest.raises(ConnectionClosed, match="4 messages in a row"):
                bad.recv()
        assert works(server)


def test_raw_garbage_on_the_socket_disturbs_nobody(server):
    with PolicyClient(url(server)) as client:
        for data in (b"\0" * 1000, b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 1000, b"\x16\x03\x01" * 100):
            with socket.create_connection(("127.0.0.1", server.port)) as raw:
                raw.sendall(data)
            assert client.infer(at(1.0))["actions"].shape == (HORIZON, 3)


def test_too_large_messages_end_the_connection_unread():
    with limited(limits=Limits(message_bytes=1000)) as server:
        with connect(url(server), compression=None) as bad:
            bad.recv()
            bad.send(b"\0" * 2000)
            with pytest.raises(ConnectionClosed) as caught:
                bad.recv()
        assert caught.value.rcvd.code == 1009
        assert works(server)


def test_limits_on_arrays_are_told():
    with limited(limits=Limits(array_bytes=100)) as server, PolicyClient(url(server)) as client:
        with pytest.raises(ServerError, match="exceeds max_bin_len|limit of 100 bytes"):
            client.infer({"state": np.zeros(100)})
        assert client.infer(at(1.0))["actions"].shape == (HORIZON, 3)


def test_hanging_clients_stop_nobody_and_are_let_go():
    with limited(idle_s=0.3) as server:
        silent = [PolicyClient(url(server)) for _ in range(3)]
        halfway = socket.create_connection(("127.0.0.1", server.port))
        halfway.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n")
        with PolicyClient(url(server)) as client:
            took = []
            for _ in range(10):
                start = time.perf_counter()
                client.infer(at(1.0))
                took.append(time.perf_counter() - start)
            assert np.median(took) < 0.2
        assert in_time(lambda: server.sessions == 0)
        halfway.close()
        with pytest.raises(ConnectionError, match="too long"):
            silent[0].infer(at(1.0))


def test_a_client_that_leaves_while_it_waits_is_not_answered():
    policy = Follower(history=1, seconds=0.3)
    with running(policy, ServerOptions(port=0)) as server, PolicyClient(url(server)) as busy:
        leaves = PolicyClient(url(server))
        busy.send(at(1.0))
        assert in_time(lambda: policy.batches == [1])
        leaves.send(at(1.0))
        assert in_time(lambda: server.batcher.waiting == 1)
        leaves._connection.socket.shutdown(socket.SHUT_RDWR)
        busy.receive()
        assert in_time(lambda: server.sessions == 1)
        busy.infer(at(1.0))
    assert sum(policy.batches) == 2


def test_a_flood_of_requests_waits_in_the_network():
    """One request of a client is under way; what it sends beyond is not read, so that its sending blocks."""
    policy = Follower(history=1, seconds=0.02)
    message = encode({"state": np.zeros(3, np.float32), "prompt": "x" * 16000})
    frame = b"\x82\xfe" + len(message).to_bytes(2, "big") + b"\0\0\0\0" + message
    with (
        running(policy, ServerOptions(port=0)) as server,
        PolicyClient(url(server)) as good,
        connect(url(server), compression=None) as bad,
    ):
        bad.recv()
        bad.socket.settimeout(0.5)
        assert sent_until_refused(bad.socket, frame * 64, 400 * MIB) < 50 * MIB
        for _ in range(5):
            good.infer(at(1.0))
            assert server.batcher.waiting <= 2
        for connection in server.connections:
            assert len(connection.recv_messages.frames) <= 64  # of one read of 256 KiB
        bad.socket.close()


def test_a_flood_of_pings_is_bounded(monkeypatch):
    """Answers to pings pile up where the client does not read them; it is cut off before they are many."""
    monkeypatch.setattr("uva_lightning.serving.server.OUTPUT_BYTES", MIB)
    with limited() as server, PolicyClient(url(server)) as good:
        raw = socket.create_connection(("127.0.0.1", server.port))
        raw.sendall(
            b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )
        raw.settimeout(SOON)
        pings = (b"\x89\xfd\0\0\0\0" + b"x" * 125) * 8000
        assert sent_until_refused(raw, pings, 30 * MIB) < 30 * MIB
        raw.close()
        assert good.infer(at(1.0))["actions"].shape == (HORIZON, 3)


def test_no_more_clients_than_allowed():
    with limited(clients=2) as server:
        with PolicyClient(url(server)), PolicyClient(url(server)) as last:
            with pytest.raises(ConnectionError, match="503: This server has 2 clients, expected at most 2"):
                PolicyClient(url(server))
            assert last.infer(at(1.0))["actions"].shape == (HORIZON, 3)
        assert in_time(lambda: server.sessions == 0)
        assert works(server)


def test_messages_in_pieces_are_put_together(server):
    whole = msgpack.packb({"state": {b"__ndarray__": True, b"data": b"\0" * 12, b"dtype": "<f4", b"shape": [3]}})
    with connect(url(server), compression=None) as client:
        client.recv()
        client.send([whole[:5], whole[5:9], whole[9:]])
        assert isinstance(client.recv(), bytes)
