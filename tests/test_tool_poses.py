"""UMI's action space: to robot poses and back, and as the training data have it."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from uva_lightning.datamodules.umi_poses import RelativePoses
from uva_lightning.robot.chain import axis_matrix
from uva_lightning.robot.errors import ActionRejected, BadShape, NonFinite
from uva_lightning.robot.inverse import rotation_vector
from uva_lightning.robot.tool_poses import (
    actions,
    eef_pose,
    from_six,
    proprioception,
    targets,
    to_six,
    tool_pose,
)
from uva_lightning.types import Batch

MODELS = json.loads((Path(__file__).parent / "fixtures" / "arx_x5_fk.json").read_text())["models"]


def walk(seed, steps=8):
    """Tool poses of a wandering gripper, with openings."""
    rng = np.random.default_rng(seed)
    poses = np.tile(np.eye(4), (steps, 1, 1))
    for pose in poses:
        pose[:3, :3] = axis_matrix(rng.normal(size=3), rng.uniform(-3, 3))
        pose[:3, 3] = rng.uniform(-0.5, 0.5, 3)
    return poses, rng.uniform(0, 0.08, steps)


@pytest.mark.parametrize("model", MODELS)
def test_tool_frame_is_umis(model):
    for case in MODELS[model]["cases"]:
        eef = np.eye(4)
        eef[:3, :3], eef[:3, 3] = case["rotmat"], case["xyz"]
        np.testing.assert_allclose(tool_pose(eef)[:3, :3], case["umi_tcp_rotmat"], atol=1e-12)
        np.testing.assert_allclose(tool_pose(eef)[:3, 3], case["xyz"], atol=1e-12)
        np.testing.assert_allclose(eef_pose(tool_pose(eef)), eef, atol=1e-12)


@settings(max_examples=30)
@given(st.integers(0, 2**32))
def test_there_and_back(seed):
    poses, openings = walk(seed)
    chunk = actions(poses[1:], openings[1:], poses[0])
    there, widths = targets(chunk, poses[0])
    np.testing.assert_allclose(there, poses[1:], atol=1e-12)
    np.testing.assert_array_equal(widths, openings[1:])
    np.testing.assert_allclose(actions(there, widths, poses[0]), chunk, atol=1e-12)


def test_robot_and_training_data_speak_alike():
    poses, openings = walk(3)
    vectors = np.stack([rotation_vector(pose[:3, :3]) for pose in poses])
    past, later = slice(0, 4), slice(4, 8)
    seven = np.concatenate((poses[later, :3, 3], vectors[later], openings[later, None]), axis=1)
    start = np.concatenate((poses[0, :3, 3], vectors[0]))
    batch = Batch(
        future_state={
            "eef_pos": torch.tensor(poses[None, later, :3, 3]),
            "eef_axis_angle": torch.tensor(vectors[None, later]),
            "gripper_width": torch.tensor(openings[None, later, None]),
        },
        state={
            "eef_pos": torch.tensor(poses[None, past, :3, 3]),
            "eef_axis_angle": torch.tensor(vectors[None, past]),
            "gripper_width": torch.tensor(openings[None, past, None]),
            "start_pose": torch.tensor(start).expand(1, 4, 6),
        },
        action=torch.tensor(seven[None]),
    )
    trained = RelativePoses()(batch, None)
    ours = proprioception(poses[past], openings[past], poses[0])
    assert set(ours) == set(trained.state)
    for name, value in ours.items():
        np.testing.assert_allclose(value, trained.state[name][0], atol=1e-9)
    np.testing.assert_allclose(actions(poses[later], openings[later], poses[3]), trained.action[0], atol=1e-9)


def test_a_predicted_rotation_becomes_a_rotation():
    rotation = axis_matrix(np.array([1.0, 2.0, -1.0]), 1.1)
    six = to_six(rotation) * np.array([1.3, 1.3, 1.3, 0.8, 0.8, 0.8]) + 0.02
    found = from_six(six)
    np.testing.assert_allclose(found @ found.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(found) == pytest.approx(1)
    assert np.abs(found - rotation).max() < 0.06


@pytest.mark.parametrize(
    ("change", "error", "said"),
    [
        (lambda chunk: chunk[:, :9], BadShape, r"shape \(4, 9\), expected \(h, 10\)"),
        (lambda chunk: chunk[0], BadShape, "expected"),
        (lambda chunk: np.where(np.arange(10) == 9, np.nan, chunk), NonFinite, "4 of 40 numbers"),
        (lambda chunk: chunk * 0, ActionRejected, "lengths 0 to 0"),
        (lambda chunk: chunk * 3, ActionRejected, "expected 0.5 to 2"),
        (lambda chunk: np.concatenate((chunk[:, :6], chunk[:, 3:6], chunk[:, 9:]), axis=1), ActionRejected, "parallel"),
    ],
)
def test_what_is_no_chunk_of_poses_is_refused(change, error, said):
    poses, openings = walk(1, 5)
    chunk = actions(poses[1:], openings[1:], poses[0])
    with pytest.raises(error, match=said):
        targets(change(chunk), poses[0])
