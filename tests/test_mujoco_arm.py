"""The simulated arm is the arm of the kinematics, follows its keeper, and can take a cube."""

import sys
from importlib.util import find_spec

import numpy as np
import pytest

from uva_lightning.robot.arm import JointTrajectory
from uva_lightning.robot.arm_model import arm_model
from uva_lightning.robot.camera import FreshCamera
from uva_lightning.robot.chain import rpy_matrix
from uva_lightning.robot.errors import RobotConfigError, RobotUnavailable
from uva_lightning.robot.keeper import Keeper, Mode
from uva_lightning.robot.limits import Limits
from uva_lightning.robot.mjcf import arm_mjcf
from uva_lightning.robot.mujoco_arm import MujocoArm, MujocoCamera
from uva_lightning.robot.mujoco_world import FINGER_FORCE, MujocoWorld

# not importorskip: the world chooses a way to draw before it imports MuJoCo
pytestmark = pytest.mark.skipif(find_spec("mujoco") is None, reason="needs MuJoCo, extra [sim]")

PERIOD = 0.01
READY = np.array([0.0, 1.49, 1.7, -1.2, 0.0, 0.0])
WIDE = Limits(workspace_min=(-1, -1, -1), workspace_max=(1, 1, 1))


@pytest.fixture
def world():
    return MujocoWorld()


@pytest.fixture
def seen(world):
    try:
        world.render("wrist", 32, 32)
    except RobotUnavailable as error:
        pytest.skip(str(error))
    yield world
    world.close()


def downwards(x, z, pitch=1.0):
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = rpy_matrix(np.array([0.0, pitch, 0.0])), (x, 0.0, z)
    return pose


@pytest.mark.parametrize("name", ["X5", "X5_umi", "X5_iphumi", "L5", "L5_umi", "L5_iphumi"])
def test_poses_are_those_of_the_chain(name):
    world, draws = MujocoWorld(name), np.random.default_rng(0)
    for _ in range(10):
        q = draws.uniform(world.model.lower, world.model.upper)
        world.reset(q)
        np.testing.assert_allclose(world.hand(), world.model.chain.forward(q), atol=1e-9, rtol=0)


@pytest.mark.parametrize("name", ["X5", "L5_umi"])
def test_mujoco_weighs_as_the_chain_does(name):
    import mujoco

    arm, draws = arm_model(name), np.random.default_rng(1)
    model = mujoco.MjModel.from_xml_string(arm_mjcf(arm))
    data = mujoco.MjData(model)  # the cube comes first: 7 coordinates, 6 velocities
    for _ in range(5):
        q = draws.uniform(arm.lower, arm.upper)
        data.qpos[7:13] = q
        mujoco.mj_forward(model, data)
        weight = data.qfrc_bias[6:12] - data.qfrc_gravcomp[6:12]  # fingers carry themselves
        np.testing.assert_allclose(weight, arm.chain.gravity_torque(q), atol=1e-6)


def test_soft_it_stays_where_it_is_and_can_be_pushed(world):
    world.reset(READY)
    world.advance(2.0)
    np.testing.assert_allclose(world.measure()[1][:6], READY, atol=1e-6)
    assert world.soft
    assert world.time == pytest.approx(2.0)


def keep(arm, world, seconds, keeper):
    """Tick and simulate; gives how far joints were from their set-points at each period."""
    errors = []
    for _ in range(round(seconds / PERIOD)):
        world.advance(PERIOD)
        keeper.heartbeat(world.time)
        keeper.tick(world.time)
        errors.append(np.abs(arm.state().q - keeper._tracker.place[:-1]).max())
    return np.array(errors)


def test_it_follows_a_trajectory_of_its_keeper(world):
    arm = MujocoArm(world)
    world.reset(READY + 0.1)
    keeper = Keeper(arm, WIDE, PERIOD, READY)
    keeper.connect(world.time)
    keeper.home(world.time)
    keep(arm, world, 2.0, keeper)
    assert keeper.mode == Mode.HOMED
    keeper.allow(world.time)
    keeper.begin(world.time)
    q = READY + np.cumsum(np.full((8, 6), 0.03), axis=0)
    time = world.time + 0.2 * np.arange(1, 9)
    keeper.send(JointTrajectory(time, q, np.full(8, 0.08), time + 1.0), world.time)
    errors = keep(arm, world, 2.5, keeper)
    assert keeper.mode == Mode.RUNNING, keeper.reason
    assert errors.max() < 0.02  # damping drags: kd / kp times 0.15 rad/s
    assert errors[-1] < 1e-3
    np.testing.assert_allclose(arm.state().q, q[-1], atol=0.005)
    keeper.park(world.time, "done")
    keep(arm, world, 3.0, keeper)
    assert keeper.mode == Mode.IDLE
    assert world.soft


def test_no_motor_pulls_harder_than_its_limit(world):
    arm = MujocoArm(world)
    arm.command(np.array([2.6, 3.5, 3.2, 1.5, 1.5, 2.0]), 0.0)
    most = np.zeros(8)
    for _ in range(50):
        world.advance(0.004)
        most = np.maximum(most, np.abs(world.measure()[3]))
    assert (most[:6] <= arm.model.torque).all()
    assert most[1] == arm.model.torque[1]
    assert (most[6:] <= FINGER_FORCE).all()


def test_it_lifts_the_cube(world):
    arm, solve = MujocoArm(world), world.model.inverse(0.05)
    above = solve(downwards(0.4, 0.15), READY)
    at = solve(downwards(0.4, 0.02), above)
    world.reset(above, cube=(0.4, 0.005))
    wide = world.model.gripper_width
    ways = ((above, at, wide, wide, 150), (at, at, wide, 0.0, 80), (at, above, 0.0, 0.0, 150))
    for begin, end, opened, closed, steps in ways:
        for share in np.linspace(0, 1, steps):
            arm.command(begin + share * (end - begin), opened + share * (closed - opened))
            world.advance(PERIOD)
    assert world.cube()[2] > 0.13
    assert 0.03 < arm.state().opening < 0.04  # the side of the cube, squeezed a little
    arm.command(above, wide)
    world.advance(1.0)
    assert world.cube()[2] < 0.03


def test_time_follows_the_clock_and_loses_long_pauses():
    now = [5.0]
    world = MujocoWorld(clock=lambda: now[0])
    arm = MujocoArm(world)
    assert arm.state().time == 5.0
    now[0] += 0.1
    assert arm.state().time == pytest.approx(5.1)
    assert world._data.time == pytest.approx(0.1)
    now[0] += 60.0
    assert arm.state().time == pytest.approx(65.1)
    assert world._data.time == pytest.approx(0.3)


def test_cameras_see_the_cube_and_that_it_moves(seen):
    seen.reset(READY, cube=(0.42, 0.0))
    for name in ("wrist", "scene"):
        camera = FreshCamera(MujocoCamera(seen, name, 160, 120), clock=lambda: seen.time)
        camera.connect(1.0)
        frames, times = camera.latest(2)
        assert frames.shape == (1, 120, 160, 3)  # no time has passed since it was connected
        assert times[0] == seen.time
        red = frames[0, ..., 0].astype(int) - frames[0, ..., 1] > 80
        assert red.sum() > 20
        seen.reset(READY, cube=(0.42, 0.2))
        seen.advance(0.1)
        frames, times = camera.latest(2)
        np.testing.assert_allclose(np.diff(times), 0.1)
        assert (frames[0] != frames[1]).any()
        seen.reset(READY, cube=(0.42, 0.0))


def test_what_cannot_be_simulated_is_refused(world, monkeypatch):
    with pytest.raises(RobotConfigError, match="no camera 'top' in the world, expected wrist or scene"):
        MujocoCamera(world, "top")
    monkeypatch.setitem(sys.modules, "mujoco", None)
    with pytest.raises(ImportError, match=r"uva_lightning\[sim\]"):
        MujocoWorld()
