"""A client that waits for a person, or loads its weights, keeps or takes back what it needs to go on."""

import time

import pytest
from arm_socket_bench import Server, station

from uva_lightning.robot.errors import ClockSkew, NotArmed
from uva_lightning.robot.keeper import Mode
from uva_lightning.robot.remote_operator import RemoteOperator


def test_clocks_are_compared_while_a_person_thinks(monkeypatch):
    monkeypatch.setattr("uva_lightning.robot.remote.COMPARING", 0.1)
    with Server(answers=()) as server, station(server) as connected:
        (session,) = server.socket.service.sessions._open.values()
        before, asked = session.compared, []

        def think(seconds):
            asked.append(time.sleep(0.2))
            if len(asked) == 3:
                server.answers = ("no", "invalid")

        assert not RemoteOperator(connected, think).confirm(0)
        assert session.compared > before + 0.3


def test_who_was_silent_while_loading_takes_the_arm_again():
    with Server() as server, station(server) as connected:
        server.floor.lease.ttl = 0.1
        time.sleep(0.4)
        server.floor.lease.ttl = 5.0
        assert connected.episode_begin({}) == ""
        assert server.floor.lease.epoch == 2
        assert RemoteOperator(connected).confirm(0)
        connected.hold("test")
        server.floor.lease.disarm()
        with pytest.raises(NotArmed, match="arming token is not valid"):
            connected.episode_begin({})


def test_an_arm_is_parked_whatever_the_clocks_say(monkeypatch):
    late = [0.0]
    with Server() as server, station(server, clock=lambda: time.monotonic() - late[0]) as connected:
        connected.call("home")
        end = time.monotonic() + 5
        while server.driver.status().mode != Mode.HOMED:
            assert time.monotonic() < end
            time.sleep(0.01)
        monkeypatch.setattr("uva_lightning.robot.remote.COMPARING", 0.0)
        late[0] = 1.0  # somebody has set our clock back
        connected.park("enough")
        while server.driver.status().mode != Mode.IDLE:
            assert time.monotonic() < end
            time.sleep(0.01)
        with pytest.raises(ClockSkew, match="have moved against each other"):
            connected.call("heartbeat")
