"""Whatever a client says, or no longer says, the arm keeps its limits, and stands soon after."""

import msgpack
import numpy as np
import pytest
from arm_bench import WIDE
from arm_server_bench import Client, ServerBench
from hypothesis import given, settings
from hypothesis import strategies as st

from uva_lightning.robot.arm import JointTrajectory
from uva_lightning.robot.errors import (
    BadShape,
    CameraLost,
    ClockSkew,
    EStop,
    Fault,
    LeaseLost,
    NonFinite,
    NotArmed,
    OutOfLimits,
    OutOfOrder,
    RobotError,
    Stale,
)
from uva_lightning.robot.keeper import Mode
from uva_lightning.robot.limits import Limits
from uva_lightning.robot.wire import REQUEST

SOON = 0.3
"""Seconds within which the arm has to stand."""


def steady(bench, since, until):
    """Tell that set-points stood still from one time to another."""
    places = np.array([place for time, place, _ in bench.arm.sent if since <= time < until])
    return len(places) > 0 and not np.ptp(places, axis=0).any()


def test_an_episode_runs_as_in_one_process():
    bench = ServerBench()
    client = bench.running()
    chunk = bench.chunk(np.full((4, 6), 0.02))
    assert client.send(chunk)["accepted"] == 4
    bench.run(1.5, client)
    np.testing.assert_allclose(bench.arm.q, chunk.q[-1], atol=0.02)
    client.say("hold", reason="the episode is over")
    said = client.say("state")
    assert (said["mode"], said["over"], said["fault"]) == ("hold", False, None)
    np.testing.assert_allclose(said["q"], bench.arm.q)
    assert client.say("label", episode=0)["answer"] == "waiting"
    bench.floor.answered("success")
    assert client.say("label", episode=0)["answer"] == "success"
    bench.check()


def test_what_was_clipped_is_told_and_written_down():
    bench = ServerBench()
    client = bench.running()
    said = client.send(bench.chunk(np.full((4, 6), 0.01), opening=0.0))
    assert (said["accepted"], said["clipped"]) == (4, [0, 1, 2, 3])
    np.testing.assert_allclose(said["opening"], [0.066, 0.046, 0.026, 0.006])
    bench.run(1.5, client)
    assert said["reasons"] == bench.events("clipped") == ["gripper slowed to 0.1 m/s at 4 of 4 way-points"]
    assert bench.arm.opening == pytest.approx(0.006, abs=0.003)
    bench.check()


def test_the_first_picture_comes_with_its_time():
    bench = ServerBench()
    client = Client(bench).join()
    bench.run(0.5)
    taken = client.say("observe", names=["wrist"], count=3)["cameras"]["wrist"]
    assert taken["frames"].shape == (3, 48, 64, 3)
    assert taken["frames"].dtype == np.uint8
    assert taken["times"][-1] == pytest.approx(bench.now, abs=1 / 30)


def test_a_camera_that_sees_nothing_is_told():
    bench = ServerBench()
    client = Client(bench).join()
    with pytest.raises(CameraLost, match="no camera 'top', expected wrist"):
        client.say("observe", names=["top"], count=1)
    bench.service.cameras["wrist"].close()
    with pytest.raises(CameraLost, match="not connected"):
        client.say("observe", names=["wrist"], count=1)


def test_a_client_cannot_fill_the_disk_with_refusals():
    bench = ServerBench()
    for _ in range(100):
        with pytest.raises(NotArmed):
            Client(bench).say("state")
    assert len(bench.events("refused")) == 10
    bench.run(1.1)
    with pytest.raises(NotArmed):
        Client(bench).say("state")
    assert bench.events("refused")[-1].endswith("(and 90 more before)")


@pytest.mark.parametrize("how", ["killed", "late", "released"])
def test_an_arm_without_a_client_stands_parks_and_goes_soft(how):
    bench = ServerBench()
    client = bench.running()
    client.send(bench.chunk(np.full((16, 6), 0.03), valid=5))
    bench.run(0.5, client)
    begin = bench.now
    if how == "released":
        client.say("release")
    for _ in range(2 if how == "late" else 0):  # they were on the way when the connection froze
        bench.run(0.1)
        with pytest.raises(Stale):
            client.say("heartbeat", sent=begin - 0.2)
    bench.run(max(0.0, begin + SOON - bench.now))
    assert bench.keeper.mode == Mode.HOLD
    bench.run(begin + 2.5 - bench.now)
    assert steady(bench, begin + SOON + 0.1, bench.now)  # by then it has braked, too
    bench.run(10)
    assert bench.keeper.mode == Mode.IDLE
    assert bench.arm.soft
    assert bench.events("hold")
    with pytest.raises(LeaseLost):
        client.say("begin")
    bench.check()


def test_a_chunk_counts_as_a_sign_of_life_from_when_it_was_sent():
    bench = ServerBench()
    client = bench.running()
    bench.run(0.2)
    client.send(bench.chunk(np.full((4, 6), 0.02)), sent=bench.now - 0.2)
    bench.run(0.1)
    assert bench.keeper.mode == Mode.HOLD


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (lambda bench, chunk: {"q": chunk.q * np.nan}, NonFinite),
        (lambda bench, chunk: {"time": chunk.time * np.inf}, NonFinite),
        (lambda bench, chunk: {"q": chunk.q + 4}, OutOfLimits),
        (lambda bench, chunk: {"q": chunk.q + 0.5}, OutOfLimits),
        (lambda bench, chunk: {"opening": chunk.opening + 1}, OutOfLimits),
        (lambda bench, chunk: {"opening": chunk.opening[:1]}, BadShape),
        (lambda bench, chunk: {"q": chunk.q[:, :5]}, BadShape),
        (lambda bench, chunk: {"time": chunk.time - 1}, Stale),
        (lambda bench, chunk: {"time": chunk.time + 60, "valid_until": chunk.valid_until + 60}, Stale),
        (lambda bench, chunk: {"valid_until": chunk.time - 0.1}, Stale),
        (lambda bench, chunk: {"obs_seq": 0}, Stale),
        (lambda bench, chunk: {"sent": bench.now - 1}, Stale),
        (lambda bench, chunk: {"sent": bench.now + 0.03}, ClockSkew),
        (lambda bench, chunk: {"sent": float("nan")}, ClockSkew),
        (lambda bench, chunk: {"seq": 3}, OutOfOrder),
    ],
)
def test_what_is_wrong_is_refused_as_a_whole(change, error):
    bench = ServerBench()
    client = bench.running()
    bench.run(0.2, client)
    before, chunk = bench.arm.q.copy(), bench.chunk(np.full((2, 6), 0.01))
    with pytest.raises(error):
        client.send(chunk, **change(bench, chunk))
    bench.run(0.5, client)
    np.testing.assert_array_equal(bench.arm.q, before)
    assert any(error.__name__ in text for text in bench.events("refused"))
    assert bench.keeper.mode == Mode.RUNNING
    bench.check()


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "no msgpack"),
        (b"\x00" * (REQUEST.message_bytes + 1), "expected at most"),
        (msgpack.packb({"v": 2}), "has type None"),
        (msgpack.packb({"v": 1, "type": "state"}), "version 1, expected 2"),
        (msgpack.packb({"v": 2, "type": "state", "seq": 1}), "lacks"),
        (msgpack.packb({"v": 2, "type": "pickle", "seq": 1}), "has type 'pickle'"),
        (b"\x80\x04\x95", "no msgpack"),
    ],
)
def test_what_is_no_message_is_refused(data, said):
    bench = ServerBench()
    with pytest.raises(BadShape, match=said):
        Client(bench).raw(data)
    assert bench.events("refused")


@settings(max_examples=150)
@given(st.binary(max_size=200))
def test_no_bytes_break_the_server(data):
    bench = ServerBench()
    with pytest.raises(RobotError):
        Client(bench).raw(data)


def test_anybody_may_stop_it_and_only_a_person_resets_it():
    bench = ServerBench()
    client = bench.running()
    client.send(bench.chunk(np.full((8, 6), 0.03), valid=5))
    bench.run(0.5, client)
    Client(bench).say("stop", reason="I saw something")
    begin = bench.now
    bench.run(1.0, client)
    assert steady(bench, begin + SOON, bench.now)
    for kind, values in (("begin", {}), ("home", {}), ("confirm", {"episode": 1})):
        with pytest.raises(EStop, match="I saw something"):
            client.say(kind, **values)
    with pytest.raises(EStop):
        client.send(bench.chunk(np.full((2, 6), 0.01)))
    bench.run(5, client)
    assert bench.keeper.mode == Mode.ESTOP
    bench.driver.ask("reset", bench.now)
    assert bench.keeper.mode == Mode.HOLD
    bench.check()


def test_one_who_looks_on_does_not_outdate_what_another_has_seen():
    bench = ServerBench()
    client, other = bench.running(), Client(bench)
    other.hello()
    client.say("state")
    for _ in range(100):
        other.say("state")
    assert client.say("traj", **vars(bench.chunk(np.full((2, 6), 0.01))), obs_seq=client.observed)["accepted"] == 2


def test_it_goes_soft_for_whoever_moves_it_or_if_nobody_does():
    bench = ServerBench()
    client, other = bench.running(), Client(bench)
    other.hello()
    with pytest.raises(LeaseLost):
        other.say("damp", reason="test")
    client.say("damp", reason="it burns")
    sent = len(bench.arm.sent)
    bench.run(1.0, client)
    assert (bench.keeper.mode, bench.arm.soft, len(bench.arm.sent)) == (Mode.IDLE, True, sent)
    with pytest.raises(NotArmed):
        client.send(bench.chunk(np.full((2, 6), 0.01)))
    bench.run(4.0)
    other.say("damp", reason="nobody moves it")


def test_a_stopped_arm_that_goes_soft_stays_stopped():
    bench = ServerBench()
    client = bench.running()
    client.say("stop", reason="test")
    client.say("damp", reason="it burns")
    bench.run(0.5, client)
    assert (bench.keeper.mode, bench.arm.soft) == (Mode.ESTOP, True)
    bench.driver.ask("reset", bench.now)
    assert bench.keeper.mode == Mode.IDLE


def test_a_chunk_for_what_was_seen_long_ago_is_refused():
    bench = ServerBench()
    client = bench.running()
    client.say("state")
    bench.run(0.45, client)
    chunk = bench.chunk(np.full((2, 6), 0.01))
    client.say("traj", **vars(chunk), obs_seq=client.observed)
    bench.run(0.1, client)
    with pytest.raises(Stale, match=r"an observation 0.55 s old, expected at most 0.5 s"):
        client.say("traj", **vars(bench.chunk(np.full((2, 6), 0.01))), obs_seq=client.observed)


def test_a_fault_is_told():
    bench = ServerBench()
    client = bench.running()
    bench.arm.complaint = "over-current"
    bench.run(0.1, client)
    bench.arm.complaint = None
    with pytest.raises(Fault, match="over-current"):
        client.send(bench.chunk(np.full((2, 6), 0.01)))
    assert any("over-current" in text for text in bench.events("fault"))


def test_an_operator_who_is_silent_says_no_and_invalid():
    bench = ServerBench(patience=5.0)
    client = Client(bench).join()
    for kind, answer in (("confirm", "no"), ("label", "invalid")):
        assert client.say(kind, episode=3)["answer"] == "waiting"
        bench.run(4.9, client)
        assert client.say(kind, episode=3)["answer"] == "waiting"
        bench.run(0.2, client)
        assert client.say(kind, episode=3)["answer"] == answer
    assert len(bench.events("unanswered")) == 2
    assert bench.keeper.mode == Mode.IDLE
    assert not bench.arm.sent


def test_an_operator_says_no():
    bench = ServerBench()
    client = Client(bench).join()
    client.say("confirm", episode=0)
    assert "Expected no or yes" in bench.floor.answered("success")
    bench.floor.answered("no")
    assert client.say("confirm", episode=0)["answer"] == "no"
    with pytest.raises(NotArmed):
        client.say("begin")
    assert bench.floor.answered("yes") == "Nothing is asked."


def test_an_operator_ends_an_episode():
    bench = ServerBench()
    client = bench.running()
    bench.floor.over = True
    assert client.say("state")["over"]


ASKED = st.tuples(
    st.lists(st.lists(st.floats(-0.3, 0.3), min_size=6, max_size=6), min_size=1, max_size=4),
    st.sampled_from((0.05, 0.1, 0.2)),
    st.floats(-0.02, 0.1),
    st.floats(0.02, 0.8),
    st.sampled_from(("send", "send", "send", "silence", "hold", "stop", "late", "nan")),
)


@settings(max_examples=15)
@given(st.lists(ASKED, min_size=1, max_size=6), st.sampled_from((WIDE, Limits())))
def test_whatever_is_asked_for_no_limit_is_broken(asked, limits):
    bench = ServerBench(limits)
    client = bench.running()
    for steps, spacing, opening, wait, what in asked:
        chunk = bench.chunk(np.array(steps) * min(1.0, spacing * 1.2), spacing, opening, valid=0.1)
        try:
            if what in ("send", "late"):
                client.send(chunk, **({"sent": bench.now - 0.3} if what == "late" else {}))
            elif what == "nan":
                client.send(JointTrajectory(chunk.time, chunk.q * np.nan, chunk.opening, chunk.valid_until))
            elif what != "silence":
                client.say(what, reason="test")
        except RobotError:
            pass
        bench.run(wait)
    bench.check()
