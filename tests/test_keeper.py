"""Nothing beyond a limit ever reaches the arm, whatever is asked for and whoever falls silent."""

import numpy as np
import pytest
from arm_bench import READY, WIDE, Bench
from hypothesis import given, settings
from hypothesis import strategies as st

from uva_lightning.robot.arm import JointTrajectory
from uva_lightning.robot.errors import (
    ActionRejected,
    BadShape,
    Fault,
    NonFinite,
    NotArmed,
    OutOfLimits,
    RobotConfigError,
    RobotUnavailable,
    Stale,
)
from uva_lightning.robot.fake_arm import FakeArm
from uva_lightning.robot.guard import Guard
from uva_lightning.robot.keeper import Keeper, Mode
from uva_lightning.robot.limits import Limits


def test_a_chunk_is_followed_and_then_it_stands():
    bench = Bench()
    chunk = bench.chunk(np.full((4, 6), 0.02), opening=0.05)
    chunk = JointTrajectory(chunk.time, chunk.q, np.linspace(0.08, 0.05, 4), chunk.valid_until)
    bench.keeper.send(chunk, bench.now)
    bench.run(2.0)
    np.testing.assert_allclose(bench.arm.q, chunk.q[-1], atol=0.02)
    assert bench.arm.opening == pytest.approx(0.05, abs=0.005)
    assert bench.keeper.mode == Mode.RUNNING
    assert np.abs(bench.keeper._tracker.velocity).max() == 0
    bench.check()


ASKED = st.tuples(
    st.lists(st.lists(st.floats(-0.3, 0.3), min_size=6, max_size=6), min_size=1, max_size=5),
    st.sampled_from((0.05, 0.1, 0.2, 0.5)),
    st.floats(-0.005, 0.091),
    st.floats(0.02, 1.0),
    st.sampled_from(("send", "send", "send", "silence", "hold", "stop", "park")),
)


@settings(max_examples=25)
@given(
    st.lists(ASKED, min_size=1, max_size=8),
    st.sampled_from((WIDE, Limits(), Limits(eef_speed=0.05, joint_velocity=0.5))),
)
def test_no_set_point_ever_breaks_a_limit(asked, limits):
    bench = Bench(limits)
    for steps, spacing, opening, wait, what in asked:
        try:
            if what == "send":
                scale = min(1.0, spacing * 1.2)
                bench.keeper.send(bench.chunk(np.array(steps) * scale, spacing, opening, valid=0.1), bench.now)
            elif what != "silence":
                getattr(bench.keeper, what)(bench.now, "test")
        except (ActionRejected, NotArmed):
            pass
        bench.run(wait, alive=what != "silence")
    bench.check()


def test_random_chunks_are_not_all_refused():
    bench, rng, taken = Bench(), np.random.default_rng(0), 0
    for _ in range(30):
        try:
            bench.keeper.send(bench.chunk(rng.uniform(-0.03, 0.03, (4, 6))), bench.now)
            taken += 1
        except ActionRejected:
            pass
        bench.run(0.4)
    assert taken > 15
    bench.check()


@pytest.mark.parametrize(
    ("change", "error", "said"),
    [
        (lambda c: (c.time, c.q * np.nan, c.opening, c.valid_until), NonFinite, "12 numbers of the trajectory"),
        (lambda c: (c.time - 1, c.q, c.opening, c.valid_until), Stale, r"was due 0\.\d+ s ago"),
        (lambda c: (c.time[::-1], c.q, c.opening, c.valid_until), Stale, "expected ascending times"),
        (lambda c: (c.time + 60, c.q, c.opening, c.valid_until + 60), Stale, "do the clocks agree"),
        (lambda c: (c.time, c.q, c.opening, c.time - 0.1), Stale, "no longer valid when it is due"),
        (lambda c: (c.time, c.q[:, :5], c.opening, c.valid_until), BadShape, "5 joints, expected 6"),
        (lambda c: (c.time, c.q + 4, c.opening, c.valid_until), OutOfLimits, "joint 1 at 4.000 rad, expected -3.090"),
        (lambda c: (c.time, c.q + 0.5, c.opening, c.valid_until), OutOfLimits, "joint velocity would be"),
        (lambda c: (c.time, c.q, c.opening + 0.1, c.valid_until), OutOfLimits, "gripper would open"),
        (
            lambda c: (c.time, c.q + [[0.15] + [0] * 5, [-0.02] + [0] * 5], c.opening, c.valid_until),
            OutOfLimits,
            "acceleration",
        ),
        (
            lambda c: (c.time, c.q + [[0, 0.15, 0, 0, 0, 0], [0, 0.3, 0, 0, 0, 0]], c.opening, c.valid_until),
            OutOfLimits,
            "tool speed",
        ),
        (
            lambda c: (c.time, c.q + [[0, 0, 0, 0, 0, 0.15], [0, 0, 0, 0, 0, 0.3]], c.opening, c.valid_until),
            OutOfLimits,
            "tool turning",
        ),
    ],
)
def test_a_bad_chunk_is_refused_as_a_whole(change, error, said):
    bench = Bench()
    bench.run(0.2)
    sent = bench.arm.q.copy()
    with pytest.raises(error, match=said):
        bench.keeper.send(JointTrajectory(*change(bench.chunk(np.zeros((2, 6))))), bench.now)
    bench.run(1.0)
    np.testing.assert_array_equal(bench.arm.q, sent)
    assert bench.keeper.mode == Mode.RUNNING


def test_uneven_times_are_refused():
    bench = Bench()
    chunk = bench.chunk(np.zeros((4, 6)))
    for share, even in ((0.15, True), (0.3, False)):
        time = chunk.time + np.array([0, 0, share * 0.2, 0])
        changed = JointTrajectory(time, chunk.q, chunk.opening, chunk.valid_until)
        if even:
            bench.keeper.send(changed, bench.now)
        else:
            with pytest.raises(Stale, match=r"0.140 to 0.260 s apart, expected 0.200 s within 20%"):
                bench.keeper.send(changed, bench.now)


def test_the_workspace_is_kept_by_the_fingers():
    bench = Bench(Limits())
    down = np.array([0, 0.02, 0, 0, 0, 0])

    def descend():
        for _ in range(100):
            bench.keeper.send(bench.chunk(down[None], 0.2), bench.now)
            bench.run(0.2)

    with pytest.raises(OutOfLimits, match=r"The fingers would be at .* the workspace less 0.03 m"):
        descend()
    bench.run(0.5)
    bench.check()


def test_a_singularity_is_refused():
    bench = Bench(Limits(workspace_min=(-1, -1, -1), workspace_max=(1, 1, 1), singular=0.2))
    with pytest.raises(OutOfLimits, match="near a singularity"):
        bench.keeper.send(bench.chunk(np.full((1, 6), 0.01)), bench.now)


def test_silence_makes_it_hold_then_park_then_go_soft():
    bench = Bench()
    bench.keeper.send(bench.chunk(np.full((8, 6), 0.02), valid=5), bench.now)
    bench.run(0.5)
    begin = bench.now
    bench.run(0.31, alive=False)
    assert bench.keeper.mode == Mode.HOLD
    bench.run(0.25, alive=False)
    assert np.abs(bench.keeper._tracker.velocity).max() == 0
    assert bench.now - begin < 0.6
    bench.run(2.6, alive=False)
    assert bench.keeper.mode == Mode.PARKING
    bench.run(5.0, alive=False)
    assert bench.keeper.mode == Mode.IDLE
    assert bench.arm.soft
    np.testing.assert_allclose(bench.arm.q, READY, atol=2e-3)
    assert [event for _, event, _ in bench.events[-3:]] == ["hold", "parking", "idle"]
    bench.check()


def test_points_that_are_no_longer_valid_are_not_headed_for():
    bench = Bench()
    chunk = bench.chunk(np.full((4, 6), 0.02))
    bench.keeper.send(JointTrajectory(chunk.time, chunk.q, chunk.opening, chunk.time + [0, 9, 9, 9]), bench.now)
    bench.run(0.1)
    bench.keeper._plan = JointTrajectory(chunk.time, chunk.q, chunk.opening, np.full(4, bench.now))
    bench.run(1.0)
    assert np.abs(bench.arm.q - READY).max() < 0.02


def test_stop_is_sticky_and_anybody_may():
    bench = Bench()
    bench.keeper.send(bench.chunk(np.full((4, 6), 0.02)), bench.now)
    bench.run(0.2)
    bench.keeper.stop(bench.now, "a client's stop")
    bench.run(1.0, alive=False)
    place = bench.arm.q.copy()
    for refused in (bench.keeper.home, bench.keeper.allow, bench.keeper.begin):
        with pytest.raises(NotArmed, match="state 'estop' .a client's stop., expected"):
            refused(bench.now)
    bench.keeper.hold(bench.now, "no")
    bench.keeper.park(bench.now, "no")
    bench.run(5.0, alive=False)
    assert bench.keeper.mode == Mode.ESTOP
    np.testing.assert_array_equal(bench.arm.q, place)
    bench.keeper.reset(bench.now)
    assert bench.keeper.mode == Mode.HOLD
    bench.check()


@pytest.mark.parametrize("what", ["lost", "frozen", "nan", "complaint", "blocked", "refusing"])
def test_a_sick_arm_is_stopped_and_stays_so(what):
    bench = Bench()
    chunk = bench.chunk(np.tile([0.05, 0.01, 0.01, 0, 0, 0], (10, 1)), valid=9)
    bench.keeper.send(chunk, bench.now)
    bench.run(0.3)
    if what == "lost":
        bench.arm.broken = RobotUnavailable("the cable is out")
    elif what == "frozen":
        frozen = bench.now
        bench.arm.clock = lambda: frozen
    elif what == "nan":
        bench.arm.stuck = np.full(6, np.nan)
    elif what == "complaint":
        bench.arm.complaint = "motor 3 is hot"
    elif what == "refusing":
        bench.arm.refusal = RobotUnavailable("the bus is off")
    else:
        bench.arm.stuck = bench.arm.q.copy()
    bench.run(1.5)
    assert bench.keeper.mode == Mode.FAULT
    said = {"lost": "cable", "frozen": "frozen for 0.2", "nan": "not finite", "complaint": "hot", "blocked": "rad off"}
    assert {**said, "refusing": "refuses a set-point: the bus is off"}[what] in bench.keeper.reason
    if what == "complaint":
        with pytest.raises(Fault, match="still complains: motor 3 is hot"):
            bench.keeper.reset(bench.now)
    if what == "blocked":  # it stops pushing
        bench.run(2.0)
        np.testing.assert_allclose(bench.keeper._tracker.place[:-1], bench.arm.stuck, atol=2e-3)
    if what != "frozen":
        bench.check()


def test_an_arm_that_does_not_go_soft_is_told():
    bench = Bench()
    bench.arm.rigid = RobotUnavailable("the bus is off")
    bench.keeper.park(bench.now, "test")
    bench.run(2.0)
    assert (bench.keeper.mode, bench.keeper.reason) == (Mode.FAULT, "The arm does not go soft: the bus is off")
    bench.keeper.close()  # it is left all the same
    assert bench.keeper.mode == Mode.DISCONNECTED


def test_a_fault_of_a_soft_arm_leaves_it_soft():
    bench = Bench(running=False)
    bench.arm.q = READY + 0.3
    bench.arm.complaint = "motor 1 is asleep"
    bench.run(1.0)
    assert bench.keeper.mode == Mode.FAULT
    assert not bench.arm.sent
    bench.arm.complaint = None
    bench.keeper.reset(bench.now)
    assert bench.keeper.mode == Mode.IDLE
    bench.keeper.home(bench.now)
    bench.run(3.0)
    assert bench.keeper.mode == Mode.HOMED
    np.testing.assert_allclose(bench.arm.sent[0][1][:-1], READY + 0.3, atol=0.001)
    bench.check()


def test_motion_needs_a_person():
    bench = Bench(running=False)
    chunk = bench.chunk(np.full((2, 6), 0.01))
    for call in (lambda: bench.keeper.send(chunk, bench.now), lambda: bench.keeper.begin(bench.now)):
        with pytest.raises(NotArmed, match="state 'idle' .connected., expected"):
            call()
    bench.run(1.0)
    assert not bench.arm.sent
    bench.keeper.close()
    assert bench.keeper.mode == Mode.DISCONNECTED
    assert bench.keeper.tick(bench.now) is None


def test_from_beyond_a_limit_the_only_way_is_back():
    bench = Bench(running=False)
    bench.arm.q = READY.copy()
    bench.arm.q[4] = 1.56  # the soft limit is 1.52
    bench.keeper.home(bench.now)
    bench.run(5.0)
    assert bench.keeper.mode == Mode.HOMED
    assert max(place[4] for _, place, _ in bench.arm.sent) <= 1.56


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"joint_velocity": 9.0}, "expected at most 5, which X5_umi can do"),
        ({"joint_velocity": -1.0}, "limits.joint_velocity is -1.0, expected a positive number"),
        ({"eef_speed": float("nan")}, "expected a positive number"),
        ({"joint_margin": 2.0}, "leaves a joint no room"),
        ({"torque_fraction": 1.5}, "expected at most 1"),
        ({"workspace_min": (1, 1, 1)}, "the first below the second"),
        ({"workspace_min": (1, 1)}, "expected 3 numbers each"),
    ],
)
def test_limits_that_make_no_sense_are_refused(options, said):
    with pytest.raises(RobotConfigError, match=said):
        Guard(FakeArm().model, Limits(**options))
    assert Limits().digest() != Limits(eef_speed=0.2).digest()


@pytest.mark.parametrize("rest", [[0.0, 1.49], [0.0, 9.49, 1.7, -1.2, 0.0, 0.0], [0.0, np.nan, 1.7, -1.2, 0.0, 0.0]])
def test_a_rest_that_the_arm_cannot_reach_is_refused(rest):
    with pytest.raises(RobotConfigError, match=r"rest is \[0.0, .*\], expected one angle in rad for each joint"):
        Keeper(FakeArm("X5_umi"), rest=np.array(rest))
