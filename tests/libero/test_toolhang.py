"""Tool Hang itself: installed apart by the command, stepped and drawn."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from uva_lightning.rollouts import open_env
from uva_lightning.types import DataSpec

pytestmark = pytest.mark.libero
SPEC = DataSpec(("sideview", "wrist"), 64, 10, {"eef_pos": 3, "eef_quat": 4}, 20, horizon=16, frames=2)


@pytest.fixture
def env(tmp_path_factory, monkeypatch):
    """Tool Hang as a policy sees it; its environment is kept where LIBERO_TEST_ENVS names a folder."""
    folder = Path(os.environ.get("LIBERO_TEST_ENVS") or tmp_path_factory.mktemp("envs"))
    command = [sys.executable, "-m", "uva_lightning.cli", "env", "install", "toolhang", "--dir", str(folder)]
    command.append(f"--pip_args={os.environ.get('PIP_ARGS', '')}")
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stderr
    monkeypatch.setenv("UVA_ENVS", str(folder))
    made = open_env("toolhang", SPEC)
    yield made
    made.close()


def test_two_cameras_and_absolute_targets(env):
    first, _ = env.reset(seed=3)
    side, wrist = first["video"]["sideview"], first["video"]["wrist"]
    assert side.shape == wrist.shape == (2, 64, 64, 3)
    assert np.abs(side.astype(int) - wrist).mean() > 10
    target = first["state"]["target"][-1] + np.array([0.04, 0, 0.03, *[0] * 7], np.float32)
    for _ in range(2):
        seen, reward, over, _, _ = env.step(np.tile(target, (16, 1)))
    moved = seen["state"]["eef_pos"][-1] - first["state"]["eef_pos"][-1]
    np.testing.assert_allclose(moved, [0.04, 0, 0.03], atol=0.01)
    np.testing.assert_allclose(seen["state"]["target"][-1, 3:9], first["state"]["target"][-1, 3:9], atol=0.05)
    assert (reward, over) == (0, False)
    again, _ = env.reset(seed=3)
    np.testing.assert_array_equal(again["state"]["eef_pos"], first["state"]["eef_pos"])
