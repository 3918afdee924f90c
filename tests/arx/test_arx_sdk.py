"""Why the driver does what it does: the SDK's emergency stop as it is; and its kinematics against ours."""

from __future__ import annotations

import signal
import time

import numpy as np
import pytest

from uva_lightning.robot.arm_model import arm_model
from uva_lightning.robot.chain import rpy_matrix

MODELS = ("X5", "X5_umi", "X5_iphumi", "L5", "L5_umi", "L5_iphumi")
pytestmark = pytest.mark.arx

ALONE = """
import arx5_interface as sdk
place()
arm = sdk.Arx5JointController("X5_umi", "can0")
arm.reset_to_home()
tell(home=1)
FAULT
while True:
    time.sleep(0.01)
    arm.get_joint_state(), arm.get_joint_cmd()
"""


@pytest.mark.parametrize(
    "fault",
    ["can.fake_current(2, 100.0)", "can.fake_angle(8, -0.6)", "can.fake_wild(1)"],
    ids=["torque", "gripper", "joint"],
)
def test_the_emergency_stop_of_the_sdk_hangs_at_full_stiffness(bus, fault):
    process = bus.start(ALONE.replace("FAULT", fault))
    bus.wait_for("home")
    time.sleep(0.8)
    before = len(bus.frames())
    process.send_signal(signal.SIGINT)
    time.sleep(0.4)
    assert len(bus.frames()) == before  # no frame any more
    assert (bus.frames(bus.joints)["kp"][-6:] > 0).all()  # and the last ones were not damping
    assert "Emergency state entered" in bus.output.read_text()
    assert process.poll() is None  # Python hangs as well: Ctrl-C is not heard


@pytest.mark.parametrize("name", MODELS)
def test_our_geometry_is_that_of_the_sdk(name):
    from uva_lightning.robot.arx_sdk import load_sdk, quiet

    arm, draws = arm_model(name), np.random.default_rng(7)
    with quiet():
        sdk = load_sdk()
        config = sdk.RobotConfigFactory.get_instance().get_config(name)
        solver = sdk.Arx5Solver(
            config.urdf_path,
            6,
            arm.lower,
            arm.upper,
            config.base_link_name,
            config.eef_link_name,
            config.gravity_vector,
        )
    still = np.zeros(6)
    for q in (still, *draws.uniform(arm.lower, arm.upper, (60, 6))):
        pose = np.array(solver.forward_kinematics(q))
        ours = arm.chain.forward(q)
        np.testing.assert_allclose(ours[:3, 3], pose[:3], atol=1e-9)
        np.testing.assert_allclose(ours[:3, :3], rpy_matrix(pose[3:]), atol=1e-9)
        # the SDK leaves the tip of UMI grippers out, 0.1 g
        np.testing.assert_allclose(
            arm.chain.gravity_torque(q), np.array(solver.inverse_dynamics(q, still, still)), atol=1e-3
        )
    assert config.gripper_width == arm.gripper_width
    np.testing.assert_array_equal(config.joint_vel_max, arm.velocity)


@pytest.mark.parametrize("name", MODELS)
def test_both_solvers_find_poses_of_the_other(name):
    from uva_lightning.robot.arx_sdk import load_sdk, quiet

    arm, draws = arm_model(name), np.random.default_rng(11)
    with quiet():
        sdk = load_sdk()
        config = sdk.RobotConfigFactory.get_instance().get_config(name)
        solver = sdk.Arx5Solver(config.urdf_path, 6, arm.lower, arm.upper)
    inverse, met = arm.inverse(), 0
    for q in draws.uniform(arm.lower + 0.2, arm.upper - 0.2, (25, 6)):
        start = q + draws.uniform(-0.05, 0.05, 6)
        if np.linalg.svd(arm.chain.jacobian(q), compute_uv=False)[-1] < 0.05:
            continue
        target = arm.chain.forward(q)
        np.testing.assert_allclose(solver.forward_kinematics(inverse(target, start))[:3], target[:3, 3], atol=1e-6)
        status, theirs = solver.inverse_kinematics(solver.forward_kinematics(q), start)
        assert status == 0
        np.testing.assert_allclose(arm.chain.forward(np.array(theirs))[:3, 3], target[:3, 3], atol=2e-4)
        met += 1
    assert met > 5
