"""A real server on a free port: many clients, tokens, TLS, the end."""

from __future__ import annotations

import http.client
import socket
import ssl
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from small_policies import HORIZON, Follower, Fragile
from small_servers import SOON, at, in_time, limited, self_signed, url, works
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from uva_lightning.serving.client import PolicyClient, ServerError
from uva_lightning.serving.server import PolicyServer, ServerOptions, running

CLIENTS, ROUNDS = 8, 12


@pytest.fixture
def server():
    with running(Follower(history=1), ServerOptions(port=0, wait_s=0.05)) as server:
        yield server


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
    return self_signed(tmp_path_factory.mktemp("tls"))


def test_tls(certificate):
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*certificate)
    with limited(tls=context) as server:
        trusting = ssl.create_default_context(cafile=certificate[0])
        with PolicyClient(url(server, "wss"), tls=trusting) as client:
            assert client.infer(at(1.0))["actions"].shape == (HORIZON, 3)
        with pytest.raises(ConnectionError, match="certificate of wss.* is not trusted .*SSL_CERT_FILE"):
            PolicyClient(url(server, "wss"))
        with pytest.raises(ConnectionError, match=f"speaks TLS, .*; use {url(server, 'wss')}"):
            PolicyClient(url(server), wait_s=60)


def test_tls_with_a_server_without_it(server):
    with pytest.raises(ConnectionError, match=f"does not speak TLS, .*; use {url(server)},"):
        PolicyClient(url(server, "wss"), wait_s=60)
    assert works(server)


def test_what_breaks_off_and_is_no_server_of_either_kind_is_told_as_before():
    def break_off():
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            connection.recv(16)
            connection.close()

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=break_off, daemon=True)
        thread.start()
        for scheme in ("ws", "wss"):
            with pytest.raises(ConnectionError, match="There is no policy server at"):
                PolicyClient(f"{scheme}://127.0.0.1:{listening.getsockname()[1]}")
        listening.shutdown(socket.SHUT_RDWR)
    thread.join(SOON)


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
