"""Robots and cameras of LeRobot behind our interfaces: duck-typed ones everywhere, LeRobot's own where there are."""

import math
import time
from importlib.util import find_spec

import numpy as np
import pytest
import small_robot

from uva_lightning.robot.arm import JointTrajectory
from uva_lightning.robot.errors import BadShape, CameraLost, NonFinite, RobotConfigError, RobotUnavailable
from uva_lightning.robot.keeper import Keeper, Mode
from uva_lightning.robot.lerobot_bridge import Axis, LeRobotArm
from uva_lightning.robot.lerobot_camera import LeRobotCamera
from uva_lightning.robot.lerobot_making import make_camera, make_robot
from uva_lightning.robot.limits import Limits
from uva_lightning.robot.watchdogs import Watchdogs

REAL = find_spec("lerobot") is not None
needs_lerobot = [pytest.mark.lerobot, pytest.mark.skipif(not REAL, reason="needs LeRobot; run make test-lerobot")]
AXES = [Axis("pan.pos"), Axis("lift.pos", unit=-math.pi / 180, zero=-5.0)]
GRIPPER = Axis("gripper.pos", unit=0.08 / 100)


@pytest.fixture(params=["duck", pytest.param("lerobot", marks=needs_lerobot)])
def robot(request, tmp_path):
    if request.param == "duck":
        return small_robot.SmallRobot()
    return make_robot({"type": "small", "port": "none", "id": "left", "calibration_dir": str(tmp_path)})


@pytest.fixture
def urdf(tmp_path):
    path = tmp_path / "two.urdf"
    path.write_text(small_robot.URDF)
    return path


@pytest.fixture
def arm(robot, urdf):
    arm = LeRobotArm(robot, str(urdf), AXES, GRIPPER, 0.08, rate_hz=100)
    yield arm
    arm.close()
    assert not robot.is_connected


def eventually(is_true, seconds=10.0):
    end = time.monotonic() + seconds
    while not is_true():
        assert time.monotonic() < end, "never came true"
        time.sleep(0.005)


def test_numbers_are_translated_both_ways(arm, robot):
    arm.connect(10.0)
    arm.connect(10.0)
    state = arm.state()
    np.testing.assert_allclose(state.q, [math.radians(10), 0.0], atol=1e-9)
    assert state.opening == pytest.approx(0.04)
    assert arm.model.velocity.tolist() == [3, 3]
    arm.command(np.array([-0.2, 0.3]), 0.08)
    eventually(lambda: np.allclose(arm.state().q, [-0.2, 0.3], atol=1e-3))
    assert robot.said[-1] == pytest.approx(
        {"pan.pos": -math.degrees(0.2), "lift.pos": -5 - math.degrees(0.3), "gripper.pos": 100.0}
    )
    assert arm.state().opening == pytest.approx(0.08, abs=1e-3)
    assert arm.state().torque.tolist() == [0, 0]


class Simulated(LeRobotArm):
    """May be watched by slow watchdogs."""

    harmless = True


def test_a_keeper_drives_it_to_a_place(robot, urdf):
    """On a clock that ticks with the keeper: a busy machine does not make it late."""
    clock = [0.0]
    arm = Simulated(robot, str(urdf), AXES, GRIPPER, 0.08, rate_hz=500, clock=lambda: clock[0])
    wide = Limits(workspace_min=(-1, -1, -1), workspace_max=(1, 1, 1), singular=1e-3)
    keeper = Keeper(arm, wide, watchdogs=Watchdogs(state_age=1.0, tracking=1.0))
    keeper.connect(clock[0], 5.0)

    def keep(seconds, until):
        end = clock[0] + seconds
        while clock[0] < end and not until():
            clock[0] += keeper.period
            keeper.heartbeat(clock[0])
            keeper.tick(clock[0])
            time.sleep(0.005)

    keeper.home(clock[0])
    keep(5.0, lambda: keeper.mode is not Mode.HOMING)
    assert keeper.mode is Mode.HOMED, keeper.reason
    eventually(lambda: np.allclose(arm.state().q, 0.0, atol=5e-3))
    keeper.allow(clock[0])
    keeper.begin(clock[0])
    when = clock[0] + np.array([1.0, 1.5])  # the second way-point lets it catch up
    keeper.send(JointTrajectory(when, np.array([[0.15, 0.1]] * 2), np.full(2, 0.06), when + 1), clock[0])
    keep(1.5, lambda: keeper.mode is not Mode.RUNNING)
    assert keeper.mode is Mode.RUNNING, keeper.reason
    eventually(lambda: np.allclose(arm.state().q, [0.15, 0.1], atol=0.01))
    keeper.close()
    assert not robot.is_connected


def test_strength_comes_back_where_it_is(robot, urdf):
    arm = LeRobotArm(
        robot, str(urdf), AXES, GRIPPER, 0.08, rate_hz=100, relax="bus.disable_torque", stiffen="bus.enable_torque"
    )
    arm.connect(10.0)
    arm.damp()
    eventually(lambda: robot.said == ["soft"])
    arm.command(np.zeros(2), 0.04)
    eventually(lambda: len(robot.said) >= 4)
    assert robot.said[1] == pytest.approx({"pan.pos": 10.0, "lift.pos": -5.0, "gripper.pos": 50.0})
    assert robot.said[2] == "stiff"
    arm.close()


def test_a_broken_cable_is_a_fault_that_ends(arm, robot):
    arm.connect(10.0)
    robot.broken = True
    eventually(lambda: arm.state().fault is not None)
    assert arm.state().fault == "ConnectionError: no status packet"
    old = arm.state().time
    time.sleep(0.05)
    assert arm.state().time == old
    robot.broken = False
    eventually(lambda: arm.state().fault is None)


def test_what_cannot_be_reached_is_named(robot, urdf):
    arm = LeRobotArm(robot, str(urdf), AXES, GRIPPER, 0.08)
    with pytest.raises(RobotUnavailable, match="is not connected"):
        arm.state()
    robot.calibrated = False
    with pytest.raises(RobotUnavailable, match="it is not calibrated; run lerobot-calibrate"):
        arm.connect(10.0)
    robot.calibrated = True
    robot.hangs.clear()
    robot.connected = False
    eventually(lambda: not arm._thread.is_alive())
    with pytest.raises(RobotUnavailable, match=r"no answer within 0\.1 s"):
        arm.connect(0.1)
    with pytest.raises(RobotUnavailable, match="still hangs"):
        arm.connect(0.1)
    robot.hangs.set()
    arm.close()


def test_mistakes_are_named(robot, urdf, tmp_path):
    with pytest.raises(RobotConfigError, match=r"no elbow\.pos among what it observes, expected some of pan\.pos"):
        LeRobotArm(robot, str(urdf), [Axis("pan.pos"), Axis("elbow.pos")], GRIPPER, 0.08)
    with pytest.raises(RobotConfigError, match="1 axes are named and the URDF has 2 joints"):
        LeRobotArm(robot, str(urdf), AXES[:1], GRIPPER, 0.08)
    with pytest.raises(RobotConfigError, match=r"has no method 'bus\.faint'"):
        LeRobotArm(robot, str(urdf), AXES, GRIPPER, 0.08, relax="bus.faint")
    bare = tmp_path / "bare.urdf"
    bare.write_text(small_robot.URDF.replace(' velocity="3"', ""))
    with pytest.raises(RobotConfigError, match=r"Joint 'lift' of .* has the limits .* expected numbers"):
        LeRobotArm(robot, str(bare), AXES, GRIPPER, 0.08)
    arm = LeRobotArm(robot, str(urdf), AXES, GRIPPER, 0.08)
    with pytest.raises(BadShape):
        arm.command(np.zeros(3), 0.0)
    with pytest.raises(NonFinite):
        arm.command(np.array([0.0, np.nan]), 0.0)
    assert robot.said == []


@pytest.mark.parametrize("kind", ["duck", pytest.param("lerobot", marks=needs_lerobot)])
def test_a_camera_gives_its_newest_frames(kind):
    other = small_robot.SmallCamera() if kind == "duck" else make_camera({"type": "counting"})
    camera = LeRobotCamera(other, "scene", latency=0.1)
    with pytest.raises(CameraLost, match="connect it first"):
        camera.latest()
    camera.connect(10.0)
    eventually(lambda: len(camera._kept) > 3)
    frames, times = camera.latest(3)
    assert frames.shape == (3, 12, 16, 3)
    assert np.diff(frames[:, 0, 0, 0]).tolist() == [1, 1]
    assert (np.diff(times) > 0).all()
    assert 0.1 <= time.monotonic() - times[-1] < 5
    other.error = OSError("unplugged")
    eventually(lambda: camera._error is not None)
    with pytest.raises(CameraLost, match=r"stopped \(unplugged\)"):
        camera.latest()
    with pytest.raises(RobotUnavailable, match="cannot be opened: unplugged"):
        camera.connect(1.0)
    camera.close()
    other.width = None
    with pytest.raises(RobotConfigError, match="is None x 12 px"):
        LeRobotCamera(other)


@pytest.mark.skipif(REAL, reason="LeRobot is installed")
def test_without_lerobot_the_extra_and_the_python_are_named():
    with pytest.raises(ImportError, match=r"by Python 3\.\d+ .* for Python 3\.12 or newer .*uva_lightning\[lerobot\]'"):
        make_robot({"type": "so101_follower", "port": "/dev/ttyACM0"})


@pytest.mark.lerobot
@pytest.mark.skipif(not REAL, reason="needs LeRobot; run make test-lerobot")
def test_lerobots_own_robots_are_made_from_options(tmp_path):
    with pytest.raises(RobotConfigError, match="LeRobot makes nothing of"):
        make_robot({"type": "none_such"})
    with pytest.raises(RobotConfigError, match="port"):
        make_robot({"type": "small", "id": "left"})
