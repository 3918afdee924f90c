"""Messages count once, clients mean the same arm, and one of them at a time may move it."""

import numpy as np
import pytest
from arm_server_bench import Client, ServerBench

from uva_lightning.robot.errors import ClockSkew, LeaseLost, NotArmed, OutOfOrder, RobotConfigError
from uva_lightning.robot.keeper import Mode


def test_a_message_counts_once():
    bench = ServerBench()
    client = bench.running()
    client.send(bench.chunk(np.full((2, 6), 0.01)))
    copy = client.last
    with pytest.raises(OutOfOrder, match="is it a copy"):
        client.raw(copy)
    other = Client(bench)
    other.hello()
    with pytest.raises(OutOfOrder):  # nor within another session: it names its own
        other.raw(copy)


def test_a_later_message_outdates_an_earlier_one():
    bench = ServerBench()
    client = bench.running()
    earlier = client.message("heartbeat")
    client.say("heartbeat")
    with pytest.raises(OutOfOrder):
        client.raw(earlier)


def test_nobody_moves_an_arm_without_session_clock_or_lease():
    bench = ServerBench()
    stranger = Client(bench)
    with pytest.raises(NotArmed, match="no open session"):
        stranger.say("state")
    stranger.hello()
    with pytest.raises(ClockSkew, match="send a ping first"):
        stranger.say("begin")
    stranger.say("ping", t_client=0.0)
    with pytest.raises(LeaseLost, match="nobody has it"):
        stranger.say("begin")
    with pytest.raises(NotArmed, match="type 'arm' at the robot's console"):
        stranger.say("acquire", token="guess", run="run")
    client = bench.running()
    stranger.lease = client.lease[::-1]
    for kind, values in (("traj", vars(bench.chunk(np.zeros((2, 6)))) | {"obs_seq": 1}), ("begin", {}), ("home", {})):
        with pytest.raises(LeaseLost, match="'test' of run 'run' has it"):
            stranger.say(kind, **values)
    with pytest.raises(LeaseLost):
        stranger.say("park", reason="")
    assert bench.keeper.mode == Mode.RUNNING


def test_a_token_is_for_one_run_and_for_a_while():
    bench = ServerBench()
    client = Client(bench).join("first")
    token = bench.floor.lease._grant.token
    client.say("acquire", token=token, run="first")
    with pytest.raises(NotArmed, match="for run 'first', not for 'second'"):
        client.say("acquire", token=token, run="second")
    bench.now += 601
    bench.tick()
    client.hello()
    with pytest.raises(NotArmed, match="not valid"):
        client.say("acquire", token=token, run="first")


def test_only_one_run_moves_the_arm():
    bench = ServerBench()
    bench.running("first")
    other = Client(bench)
    with pytest.raises(LeaseLost, match="of run 'first' moves the arm"):
        other.join("second")
    bench.run(3.2)
    other.join("second")
    assert other.lease.startswith("2-")


def test_the_lease_of_a_lost_client_does_not_count_any_more():
    bench = ServerBench()
    first = bench.running("run")
    second = Client(bench).join("run")  # the same run came back, from another process
    with pytest.raises(LeaseLost, match="The lease '1' does not count"):
        first.say("heartbeat")
    second.say("heartbeat")


@pytest.mark.parametrize("what", ["model", "geometry", "limits"])
def test_another_arm_is_not_driven(what):
    with pytest.raises(RobotConfigError, match=f"has {what} 'other', expected"):
        Client(ServerBench()).hello(**{what: "other"})
