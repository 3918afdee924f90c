"""Geometry of arms against numbers of the SDK's URDFs, and what the solver refuses."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from uva_lightning.robot.arm_model import arm_model
from uva_lightning.robot.chain import Chain, axis_matrix, rpy_matrix
from uva_lightning.robot.errors import NonFinite, Unreachable
from uva_lightning.robot.inverse import rotation_vector

MODELS = json.loads((Path(__file__).parent / "fixtures" / "arx_x5_fk.json").read_text())["models"]
CASES = [(name, case) for name, model in MODELS.items() for case in model["cases"]]
ARMS = ("X5", "X5_umi", "X5_iphumi", "L5", "L5_umi", "L5_iphumi")


def pose_of(case):
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = case["rotmat"], case["xyz"]
    return pose


@pytest.mark.parametrize(("name", "case"), CASES)
def test_poses_and_gravity_torques_are_those_of_the_urdf(name, case):
    chain, q = arm_model(name).chain, np.array(case["q"])
    np.testing.assert_allclose(chain.forward(q), pose_of(case), atol=1e-12)
    np.testing.assert_allclose(chain.gravity_torque(q), case["gravity_torque"], atol=1e-9)


@pytest.mark.parametrize("name", MODELS)
def test_limits_are_those_of_the_sdk(name):
    arm, known = arm_model(name), MODELS[name]
    np.testing.assert_array_equal(arm.lower, known["joint_pos_min"])
    np.testing.assert_array_equal(arm.upper, known["joint_pos_max"])
    np.testing.assert_array_equal(arm.velocity, known["joint_vel_max"])
    np.testing.assert_array_equal(arm.torque, known["joint_torque_max"])
    assert arm.gripper_width == known["gripper_width_m"]


@pytest.mark.parametrize(
    ("name", "home"),
    [("L5", (0.2527, 0.0, 0.1635)), ("L5_umi", (0.3327, 0.0, 0.1635)), ("X5_iphumi", (0.3202, 0.0010, 0.1565))],
)
def test_other_arms_stand_where_the_sdk_says(name, home):
    np.testing.assert_allclose(arm_model(name).chain.forward(np.zeros(6))[:3, 3], home, atol=6e-5)


@pytest.mark.parametrize(("name", "case"), CASES)
def test_the_solver_finds_its_way_back(name, case):
    arm, q = arm_model(name), np.array(case["q"])
    start = q + np.random.default_rng(0).uniform(-0.1, 0.1, 6)
    found = arm.inverse()(pose_of(case), start)
    np.testing.assert_allclose(arm.chain.forward(found), pose_of(case), atol=1e-6)
    assert (found >= arm.lower).all()
    assert (found <= arm.upper).all()


@settings(max_examples=60)
@given(st.sampled_from(ARMS), st.lists(st.floats(0.02, 0.98), min_size=6, max_size=6), st.integers(0, 1000))
def test_nearby_poses_are_reached_and_no_limit_is_passed(name, place, seed):
    arm = arm_model(name)
    q = arm.lower + np.array(place) * (arm.upper - arm.lower)
    target = arm.chain.forward(q)
    start = q + np.random.default_rng(seed).uniform(-0.02, 0.02, 6)
    try:
        found = arm.inverse()(target, start)
    except Unreachable:
        pytest.fail(f"{name} did not find back to {q.tolist()}")
    reached = arm.chain.forward(found)
    assert np.linalg.norm(reached[:3, 3] - target[:3, 3]) <= 1e-6 + 1e-12  # m
    assert np.linalg.norm(rotation_vector(reached[:3, :3] @ target[:3, :3].T)) <= 1e-6 + 1e-12  # rad
    assert ((found >= arm.lower) & (found <= arm.upper)).all()


@pytest.mark.parametrize("name", ARMS)
def test_jacobian_is_the_derivative(name):
    chain, q, step = arm_model(name).chain, np.array([0.3, 1.1, 0.9, -0.4, 0.5, -0.7]), 1e-6
    for joint, column in enumerate(chain.jacobian(q).T):
        ahead, behind = (chain.forward(q + sign * step * np.eye(6)[joint]) for sign in (1, -1))
        turn = rotation_vector(ahead[:3, :3] @ behind[:3, :3].T)
        numeric = np.concatenate((ahead[:3, 3] - behind[:3, 3], turn)) / (2 * step)
        np.testing.assert_allclose(column, numeric, atol=1e-8)


@pytest.mark.parametrize(
    ("offset", "jump"), [((2.0, 0.0, 0.0), None), ((0.0, 0.0, 0.8), None), ((0.1, 0.0, 0.0), 0.01)]
)
def test_what_cannot_be_reached_is_refused_and_not_clipped(offset, jump):
    arm, q = arm_model("X5_umi"), np.array([0.0, 1.2, 1.1, 0.2, 0.0, 0.0])
    target = arm.chain.forward(q)
    target[:3, 3] += offset
    with pytest.raises(Unreachable, match=r"missed by .* mm|Joint \d would turn by"):
        arm.inverse()(target, q, jump)


@settings(max_examples=12)
@given(
    st.sampled_from(ARMS),
    st.lists(st.floats(-1, 1), min_size=3, max_size=3).filter(lambda way: np.linalg.norm(way) > 0.1),
    st.floats(0.01, 5.0),
    st.lists(st.floats(0, 1), min_size=6, max_size=6),
)
def test_places_beyond_the_stretched_arm_are_refused_from_everywhere(name, way, beyond, place):
    arm = arm_model(name)
    start = arm.lower + np.array(place) * (arm.upper - arm.lower)
    shoulder, reach = arm.chain.links[0].xyz, sum(np.linalg.norm(link.xyz) for link in arm.chain.links[1:])
    target = arm.chain.forward(start)
    target[:3, 3] = np.array(shoulder) + np.array(way) / np.linalg.norm(way) * (reach + beyond)
    with pytest.raises(Unreachable, match=r"is missed by .* mm"):
        arm.inverse()(target, start)


def test_poses_behind_a_joint_limit_are_refused():
    arm, q = arm_model("X5"), np.array([0.0, 1.2, 1.1, 0.2, 0.0, 0.0])
    beyond = q.copy()
    beyond[5] = arm.upper[5] + 0.3
    with pytest.raises(Unreachable, match="within the joint limits"):
        arm.inverse()(arm.chain.forward(beyond), q)
    beyond[5] = arm.upper[5] - 0.05
    with pytest.raises(Unreachable):
        arm.inverse(margin=0.1)(arm.chain.forward(beyond), q)
    arm.inverse()(arm.chain.forward(beyond), q)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_numbers_that_are_not_finite_are_refused(bad):
    arm, pose = arm_model("X5"), np.eye(4)
    pose[0, 3] = bad
    with pytest.raises(NonFinite):
        arm.inverse()(pose, np.zeros(6))
    with pytest.raises(NonFinite):
        arm.inverse()(np.eye(4), np.full(6, bad))


def test_mistakes_are_named(tmp_path):
    with pytest.raises(ValueError, match=r"no arm model 'X9', expected one of X5, X5_umi"):
        arm_model("X9")
    with pytest.raises(ValueError, match=r"q has shape \(5,\), expected \(6,\)"):
        arm_model("X5").chain.forward(np.zeros(5))
    with pytest.raises(ValueError, match="cannot be read as URDF"):
        arm_model("X5", tmp_path / "none.urdf")


URDF = """<robot name="two"><link name="base_link"/>
<link name="a"><inertial><origin xyz="0.5 0 0"/><mass value="2"/></inertial></link><link name="eef_link"/>
<joint name="j" type="KIND"><origin xyz="0 0 1" rpy="0 0 1.5707963267948966"/><parent link="base_link"/>
<child link="a"/><axis xyz="0 1 0"/></joint>
<joint name="f" type="fixed"><origin xyz="1 0 0"/><parent link="a"/><child link="eef_link"/></joint></robot>"""


def test_a_urdf_of_ones_own(tmp_path):
    path = tmp_path / "two.urdf"
    path.write_text(URDF.replace("KIND", "revolute"))
    chain = Chain.from_urdf(path)
    np.testing.assert_allclose(chain.forward(np.zeros(1))[:3, 3], (0, 1, 1), atol=1e-12)
    np.testing.assert_allclose(chain.forward(np.array([np.pi / 2]))[:3, 3], (0, 0, 0), atol=1e-12)
    np.testing.assert_allclose(chain.gravity_torque(np.zeros(1)), [-2 * 9.807 * 0.5], atol=1e-12)
    with pytest.raises(ValueError, match="has 1 joints, expected 6 as X5 has"):
        arm_model("X5", path)
    with pytest.raises(ValueError, match=r"no chain from 'base_link' to 'hand': nothing carries 'hand'"):
        Chain.from_urdf(path, tip="hand")
    path.write_text(URDF.replace("KIND", "prismatic"))
    with pytest.raises(ValueError, match="Joint 'j' of .* is 'prismatic'"):
        Chain.from_urdf(path)


@pytest.mark.parametrize("angle", [0.0, 1e-9, 0.4, np.pi - 1e-7, np.pi])
def test_rotation_vectors(angle):
    axis = np.array([0.6, 0.0, -0.8])
    found = rotation_vector(axis_matrix(axis, angle))
    np.testing.assert_allclose(
        axis_matrix(axis, angle), axis_matrix(found if angle else axis, np.linalg.norm(found)), atol=1e-8
    )


def test_rpy_turns_about_fixed_axes():
    np.testing.assert_allclose(rpy_matrix(np.array([0.0, 0.0, np.pi / 2])) @ [1, 0, 0], [0, 1, 0], atol=1e-12)
    np.testing.assert_allclose(rpy_matrix(np.array([np.pi / 2, 0.0, np.pi / 2])) @ [0, 1, 0], [0, 0, 1], atol=1e-12)
