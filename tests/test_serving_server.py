"""A real server on a free port: many clients, clients that hang, send garbage or flood, tokens, TLS, the end."""

from __future__ import annotations

import http.client
import shutil
import socket
import ssl
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import msgpack
import numpy as np
import pytest
from small_policies import HORIZON, Follower, Fragile
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from uva_lightning.serving.client import PolicyClient, ServerError
from uva_lightning.serving.server import PolicyServer, ServerOptions, running
from uva_lightning.serving.wire import MIB, Limits, encode

CLIENTS, ROUNDS = 8, 12
SOON = 5.0


def url(server, scheme="ws"):
    return f"{scheme}://127.0.0.1:{server.port}"


def at(value, width=3):
    return {"state": np.full(width, value, np.float32)}


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


def limited(**options):
    return running(Follower(history=1), ServerOptions(port=0, **options))


def works(server):
    with PolicyClient(url(server)) as client:
        return client.infer(at(1.0))["actions"].shape == (HORIZON, 3)


def in_time(condition):
    until = time.monotonic() + SOON
    while time.monotonic() < until:
        if condition():
            return True
        time.sleep(0.01)
    return False


def test_reply_has_actions_and_times(server):
    with PolicyClient(url(server)) as client:
        assert client.metadata["width"] == 3
        first, second = client.infer(at(1.0)), client.infer(at(2.0))
    np.testing.assert_allclose(first["actions"][:, 0], [0.75, 0.5, 0.25, 0])
    np.testing.assert_allclose(second["actions"], 2 * first["actions"])
    assert set(first["server_timing"]) == {"infer_ms", "wait_ms", "prev_total_ms", "batch"}
    assert first["policy_timing"]["infer_ms"] >= 0
    assert first["server_timing"]["prev_total_ms"] == 0
    assert second["server_timing"]["prev_total_ms"] >= first["server_timing"]["infer_ms"]


def test_every_client_has_a_session_of_its_own():
    with running(Follower(history=2), ServerOptions(port=0)) as server:
        with PolicyClient(url(server)) as one, PolicyClient(url(server)) as other:
            one.infer(at(0.0))
            other.infer(at(4.0))
            assert one.infer(at(1.0))["actions"][0, 0] == 0.75 * 0.5
            assert other.infer(at(4.0))["actions"][0, 0] == 0.75 * 4
            one.reset()
            assert one.infer(at(1.0))["actions"][0, 0] == 0.75
        with PolicyClient(url(server)) as anew:
            assert anew.infer(at(8.0))["actions"][0, 0] == 0.75 * 8


def test_eight_clients_share_calls_and_lose_nothing():
    policy, ready = Follower(history=1, seconds=0.03), threading.Barrier(CLIENTS)

    def talk(number):
        with PolicyClient(url(server)) as client:
            ready.wait()
            return [float(client.infer(at(number + step))["actions"][0, 0]) for step in range(ROUNDS)]

    with running(policy, ServerOptions(port=0)) as server, ThreadPoolExecutor(CLIENTS) as pool:
        replies = list(pool.map(talk, range(CLIENTS)))
    assert replies == [[0.75 * (number + step) for step in range(ROUNDS)] for number in range(CLIENTS)]
    assert sum(policy.batches) == CLIENTS * ROUNDS
    assert max(policy.batches) <= CLIENTS
    assert len(policy.batches) < CLIENTS * ROUNDS / 3  # without batching as many calls as requests


def test_a_call_has_no_more_requests_than_allowed():
    policy = Follower(history=1, seconds=0.02)
    with running(policy, ServerOptions(port=0, most=3)) as server, ThreadPoolExecutor(CLIENTS) as pool:
        clients = [PolicyClient(url(server)) for _ in range(CLIENTS)]
        list(pool.map(lambda client: client.infer(at(1.0)), clients))
        for client in clients:
            client.close()
    assert sum(policy.batches) == CLIENTS
    assert max(policy.batches) <= 3


def test_clients_in_step_share_calls_however_long_they_think():
    policy, ready = Follower(history=1, seconds=0.2), threading.Barrier(3)

    def talk(_):
        with PolicyClient(url(server)) as client:
            for _ in range(4):
                ready.wait()
                time.sleep(0.2)
                client.infer(at(1.0))

    with running(policy, ServerOptions(port=0, wait_s=0.1)) as server, ThreadPoolExecutor(3) as pool:
        list(pool.map(talk, range(3)))
    assert policy.batches[-1] == 3


def test_what_cannot_be_answered_gets_a_sentence_and_the_session_goes_on(server):
    with PolicyClient(url(server)) as client:
        for bad, words in [
            ({"images": 1}, "has 'images', expected state"),
            (at(1.0, width=2), r"shape \(2,\), expected \(3,\)"),
        ]:
            with pytest.raises(ServerError, match=words):
                client.infer(bad)
        assert client.infer(at(1.0))["actions"].shape == (HORIZON, 3)


def test_one_bad_request_in_a_call_spoils_nothing_for_the_others(caplog):
    policy, outcomes = Fragile(history=1, seconds=0.02), {}

    def talk(value):
        with PolicyClient(url(server)) as client:
            ready.wait()
            for _ in range(3):
                try:
                    outcomes.setdefault(value, []).append(client.infer(at(value))["actions"].shape)
                except ServerError as error:
                    outcomes.setdefault(value, []).append(str(error))

    ready = threading.Barrier(3)
    with running(policy, ServerOptions(port=0)) as server, ThreadPoolExecutor(3) as pool:
        list(pool.map(talk, [0.5, 1.0, 2.0]))
    said = "The policy failed with RuntimeError; the log of the server says where."
    assert outcomes == {0.5: [(HORIZON, 3)] * 3, 1.0: [(HORIZON, 3)] * 3, 2.0: [said] * 3}
    assert "overflow" in caplog.text  # the traceback stays on the server


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


def test_health_needs_no_token():
    with limited(token="secret") as server:
        asking = http.client.HTTPConnection("127.0.0.1", server.port, timeout=SOON)
        asking.request("GET", "/healthz")
        reply = asking.getresponse()
        assert (reply.status, reply.read()) == (200, b"OK\n")


def test_other_paths_without_websocket_are_refused(server):
    asking = http.client.HTTPConnection("127.0.0.1", server.port, timeout=SOON)
    asking.request("GET", "/")
    assert asking.getresponse().status == 426


@pytest.mark.parametrize("given", ["", "Api-Key wrong", "Api-Key", "secret", "Basic secret", "Api-Key sécret"])
def test_without_the_token_nobody_comes_in(given):
    with limited(token="secret") as server:
        headers = {"Authorization": given} if given else {}
        with pytest.raises((InvalidStatus, ConnectionClosed, UnicodeError)) as caught:
            connect(url(server), additional_headers=headers)
        if isinstance(caught.value, InvalidStatus):
            assert caught.value.response.status_code == 401
        assert server.sessions == 0


def test_with_the_token_one_comes_in():
    with limited(token="secret") as server:
        with PolicyClient(url(server), token="secret") as client:
            assert client.infer(at(1.0))["actions"].shape == (HORIZON, 3)
        with pytest.raises(ConnectionError, match="401: This server needs a token"):
            PolicyClient(url(server), token="other")


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    if shutil.which("openssl") is None:
        pytest.skip("makes a certificate with openssl, which is not installed")
    folder = tmp_path_factory.mktemp("tls")
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost"]
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -keyout key -out cert"
    subprocess.run([*command.split(), *names], cwd=folder, check=True, capture_output=True)
    return folder / "cert", folder / "key"


def test_tls(certificate):
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*certificate)
    with limited(tls=context) as server:
        trusting = ssl.create_default_context(cafile=certificate[0])
        with PolicyClient(url(server, "wss"), tls=trusting) as client:
            assert client.infer(at(1.0))["actions"].shape == (HORIZON, 3)
        with pytest.raises(ConnectionError, match="certificate"):
            PolicyClient(url(server, "wss"))
        with pytest.raises(ConnectionError, match="no policy server"):
            PolicyClient(url(server))


def test_listens_on_this_machine_only_unless_told_otherwise(server):
    assert [name.getsockname()[0] for name in server.sockets] == ["127.0.0.1"]


def test_a_newer_protocol_is_refused():
    class Newer(Follower):
        def metadata(self):
            return {"uva_protocol": 2}

    with running(Newer(), ServerOptions(port=0)) as server, pytest.raises(ValueError, match="version 2 .* up to 1"):
        PolicyClient(url(server))


def test_no_server_is_told_with_the_fix():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"ws://127.0.0.1:{free.getsockname()[1]}"
    with pytest.raises(ConnectionError, match=f"no policy server at {address} .*uva serve"):
        PolicyClient(address)
    with pytest.raises(ValueError, match="'localhost:8000', expected ws://"):
        PolicyClient("localhost:8000")


def test_a_slow_reply_is_not_taken_for_the_next():
    with running(Follower(seconds=0.5), ServerOptions(port=0)) as server:
        client = PolicyClient(url(server), timeout_s=0.05)
        with pytest.raises(ConnectionError, match=r"no reply in 0.05 s"):
            client.infer(at(1.0))
        with pytest.raises(ConnectionError, match="closed the connection"):
            client.infer(at(1.0))


def test_stopping_answers_what_is_asked_already():
    policy = Follower(history=1, seconds=0.3)
    with ThreadPoolExecutor(3) as pool:
        with running(policy, ServerOptions(port=0)) as server:
            clients = [PolicyClient(url(server)) for _ in range(3)]
            idle = PolicyClient(url(server))
            replies = [pool.submit(client.infer, at(1.0)) for client in clients]
            assert in_time(lambda: len(policy.batches) >= 1)
        assert all(reply.result()["actions"].shape == (HORIZON, 3) for reply in replies)
    with pytest.raises(ConnectionError, match="1001 the server stops"):
        idle.infer(at(1.0))


def test_options_are_checked():
    for wrong, words in [
        ({"port": 70000}, "port is 70000, expected 0 to 65535"),
        ({"clients": 0}, "clients is 0, expected at least 1"),
        ({"idle_s": 0}, "idle_s is 0 s, expected more than 0"),
    ]:
        with pytest.raises(ValueError, match=words):
            ServerOptions(**wrong)
    with pytest.raises(ValueError, match="wait_s -1"):
        PolicyServer(Follower(), ServerOptions(wait_s=-1))


def test_a_policy_that_answers_too_few_is_a_defect():
    class Short(Follower):
        def infer(self, prepared):
            return []

    with (
        running(Short(), ServerOptions(port=0)) as server,
        PolicyClient(url(server)) as client,
        pytest.raises(ServerError, match="gave 0 replies to 1 requests"),
    ):
        client.infer(at(1.0))


def test_messages_in_pieces_are_put_together(server):
    whole = msgpack.packb({"state": {b"__ndarray__": True, b"data": b"\0" * 12, b"dtype": "<f4", b"shape": [3]}})
    with connect(url(server), compression=None) as client:
        client.recv()
        client.send([whole[:5], whole[5:9], whole[9:]])
        assert isinstance(client.recv(), bytes)
