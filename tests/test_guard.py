"""What of a trajectory is clipped and counted, and what is refused for its pace."""

from dataclasses import replace

import numpy as np
import pytest
from arm_bench import READY, WIDE, Bench
from hypothesis import given, settings
from hypothesis import strategies as st

from uva_lightning.robot.arm import JointTrajectory
from uva_lightning.robot.errors import OutOfLimits
from uva_lightning.robot.fake_arm import FakeArm
from uva_lightning.robot.guard import Guard


def test_a_gripper_in_a_hurry_is_slowed_and_counted():
    bench = Bench()
    chunk = bench.chunk(np.full((4, 6), 0.01), opening=[0.08, 0.04, -0.004, -0.004])
    receipt = bench.keeper.send(chunk, bench.now)
    np.testing.assert_array_equal(receipt.trajectory.q, chunk.q)
    np.testing.assert_allclose(receipt.trajectory.opening, [0.08, 0.06, 0.04, 0.02])
    assert receipt.clipped == (1, 2, 3)
    said = "gripper cut to 0 to 0.086 m at 2 of 4 way-points; gripper slowed to 0.1 m/s at 3 of 4 way-points"
    assert [text for _, kind, text in bench.events if kind == "clipped"] == [said]
    bench.run(1.0)
    assert bench.arm.opening == pytest.approx(0.02, abs=0.005)
    bench.check()


@settings(max_examples=60)
@given(st.lists(st.floats(-0.005, 0.091), min_size=1, max_size=8), st.sampled_from((0.05, 0.2)), st.floats(0, 0.086))
def test_what_is_clipped_keeps_the_limits_and_the_rest_is_as_asked(asked, spacing, begin):
    guard, count = Guard(FakeArm().model, WIDE), len(asked)
    time = spacing * np.arange(1, count + 1)
    chunk = JointTrajectory(time, np.tile(READY, (count, 1)), np.array(asked), time + 1)
    receipt = guard.check(chunk, 0.0, READY, begin)
    opening = receipt.trajectory.opening
    assert ((opening >= 0) & (opening <= 0.086)).all()
    assert np.abs(np.diff(opening, prepend=begin)).max() <= WIDE.gripper_speed * spacing + 1e-9
    changed = np.flatnonzero(np.abs(opening - chunk.opening) > 1e-6)
    assert receipt.clipped == tuple(changed)
    assert bool(receipt.reasons) == bool(len(changed))


def test_what_the_tools_speed_limit_slows_is_told_at_the_end_of_the_episode():
    bench = Bench()
    bench.keeper.send(bench.chunk(np.tile([0.0965, 0, 0, 0, 0, 0], (4, 1)), valid=1.0), bench.now)  # 95 % of eef_speed
    bench.run(1.0)
    bench.keeper.hold(bench.now, "test")
    (said,) = (text for _, kind, text in bench.events if kind == "slowed")
    assert 0.2 < float(said.split()[5]) < 1.0, said
    bench.check()
    other = Bench()
    other.keeper.send(other.chunk(np.full((4, 6), 0.005)), other.now)
    other.run(1.0)
    other.keeper.hold(other.now, "test")
    assert "slowed" not in [kind for _, kind, _ in other.events]


def test_another_pace_than_the_limits_is_refused():
    bench = Bench(replace(WIDE, rate_hz=5.0))
    for spacing, fits in ((0.2, True), (0.235, True), (0.1, False), (0.25, False)):
        chunk = bench.chunk(np.zeros((4, 6)), spacing)
        if fits:
            bench.keeper.send(chunk, bench.now)
        else:
            with pytest.raises(
                OutOfLimits, match=rf"{spacing:.3f} s apart, expected 0.200 s within 20%; let control.rate"
            ):
                bench.keeper.send(chunk, bench.now)
