"""Chunks become trajectories: in time, within reach, and joined to the one before."""

import numpy as np
import pytest

from uva_lightning.robot.arm_model import arm_model
from uva_lightning.robot.control import ChunkPlanner, Control
from uva_lightning.robot.errors import ActionRejected, BadShape, NonFinite, RobotConfigError, Stale, Unreachable
from uva_lightning.robot.tool_poses import actions, tool_pose

READY = np.array([0.0, 1.49, 1.7, -1.2, 0.0, 0.0])
MODEL = arm_model("X5_umi")


def way(step=0.01, start=READY):
    """Angles f64[16, 6] of a way and the chunk that says it."""
    q = start + step * np.arange(16)[:, None]
    poses = np.stack([tool_pose(MODEL.chain.forward(angles)) for angles in q])
    return q, actions(poses, np.linspace(0.08, 0.05, 16), poses[0]), poses[0]


def test_a_chunk_becomes_the_angles_that_it_was_made_of():
    q, chunk, newest = way()
    found = ChunkPlanner(MODEL, Control(shift=0), 0.05).trajectory(chunk, newest, 10.0, 10.3, READY + 0.02)
    np.testing.assert_allclose(found.time, 10.0 + 0.2 * np.arange(3, 11))  # 10.4 is due too soon: lead is 0.1 s
    np.testing.assert_allclose(found.q, q[3:11], atol=1e-5)
    np.testing.assert_allclose(found.opening, np.linspace(0.08, 0.05, 16)[3:11])
    np.testing.assert_allclose(found.valid_until, found.time + 0.2)
    shifted = ChunkPlanner(MODEL, Control(), 0.05).trajectory(chunk, newest, 10.0, 10.3, READY)
    np.testing.assert_allclose(shifted.time, found.time)
    np.testing.assert_allclose(shifted.q, q[2:10], atol=1e-5)


def test_a_chunk_joins_the_one_before():
    control = Control(lead=0.0, shift=0)
    planner = ChunkPlanner(MODEL, control, 0.05)
    old, chunk, newest = way(0.01)
    before = planner.trajectory(chunk, newest, 0.0, 0.0, READY)
    planner.accepted(before)
    new, chunk, newest = way(0.01, READY + 0.04)  # the same times, all angles 0.04 rad on
    found = planner.trajectory(chunk, newest, 0.0, 0.001, READY)
    lead = (found.q - old[1:9]).mean(axis=1)
    np.testing.assert_allclose(lead, [0.02, 0.04, 0.04, 0.04, 0.04, 0.04, 0.04, 0.04], atol=2e-4)
    planner.accepted(None)
    found = planner.trajectory(chunk, newest, 0.0, 0.001, READY)
    np.testing.assert_allclose(found.q, new[1:9], atol=1e-5)
    before = planner.trajectory(chunk, newest, -5.0, -5.0, READY)  # all over by now
    planner.accepted(before)
    np.testing.assert_allclose(planner.trajectory(chunk, newest, 0.0, 0.001, READY).q, new[1:9], atol=1e-5)


def test_what_cannot_be_carried_out_is_refused():
    planner = ChunkPlanner(MODEL, Control(shift=0), 0.05)
    _, chunk, newest = way()
    with pytest.raises(BadShape, match=r"shape \(15, 10\), expected \(16, 10\)"):
        planner.trajectory(chunk[:-1], newest, 0.0, 0.0, READY)
    with pytest.raises(NonFinite, match="1 of 160"):
        planner.trajectory(np.where(np.arange(160).reshape(16, 10) == 3, np.nan, chunk), newest, 0.0, 0.0, READY)
    planner.trajectory(chunk, newest, 0.0, 2.2, READY)
    with pytest.raises(Stale, match="leaves 3 way-points, expected at least 4; plan faster"):
        planner.trajectory(chunk, newest, 0.0, 2.4, READY)
    with pytest.raises(Unreachable):
        planner.trajectory(chunk + np.eye(10)[0], newest, 0.0, 0.0, READY)
    with pytest.raises(Unreachable, match="expected at most 0.5 from where it is"):
        planner.trajectory(chunk, newest, 0.0, 0.0, READY - (0, 0.7, 0, 0, 0, 0))
    with pytest.raises(ActionRejected, match="no poses"):
        planner.trajectory(chunk * 0, newest, 0.0, 0.0, READY)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"rate_hz": 0.0}, "control.rate_hz is 0.0, expected a finite number, more than zero"),
        ({"blend": -0.1}, "control.blend is -0.1, expected a finite number, zero or more"),
        ({"max_steps": 0}, "control.max_steps is 0"),
        ({"observation_age": float("nan")}, "control.observation_age is nan"),
        ({"execute": 13}, "control.execute 13 and spare 4 are more than predict 16"),
    ],
)
def test_a_pace_that_makes_no_sense_is_refused(wrong, said):
    with pytest.raises(RobotConfigError, match=said):
        Control(**wrong)


def test_an_arm_of_another_pace_is_refused():
    Control(rate_hz=5.0).check_rate(None)
    Control(rate_hz=5.0).check_rate(5.9)
    with pytest.raises(RobotConfigError, match=r"control.rate_hz is 10, expected 5 within 20%"):
        Control(rate_hz=10.0).check_rate(5.0)
