"""LIBERO itself: installed apart by the command, stepped and drawn with stand-in assets."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from libero_assets import write_assets

from uva_lightning import envs
from uva_lightning.cli import main
from uva_lightning.simulators.installed import place_of, ready

pytestmark = pytest.mark.libero


@pytest.fixture(scope="session")
def assets(tmp_path_factory) -> Path:
    """Stand-ins for one task."""
    return write_assets(tmp_path_factory.mktemp("libero") / "assets")


@pytest.fixture(scope="session")
def libero(assets, tmp_path_factory) -> Path:
    """The folder of environments, with LIBERO installed by the command; kept where LIBERO_TEST_ENVS names one."""
    folder = Path(os.environ.get("LIBERO_TEST_ENVS") or tmp_path_factory.mktemp("envs"))
    command = [sys.executable, "-m", "uva_lightning.cli", "env", "install", "libero", "--assets", str(assets)]
    command += ["--dir", str(folder), f"--pip_args={os.environ.get('PIP_ARGS', '')}"]
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stderr
    assert "has stepped an arm" in done.stdout
    return folder


@pytest.fixture
def env(libero, monkeypatch):
    """The first object task."""
    monkeypatch.setenv("UVA_ENVS", str(libero))
    made = envs.make("libero_object/0", 128)
    yield made
    made.close()


def test_it_is_installed_whole_and_once(libero, monkeypatch):
    monkeypatch.setenv("UVA_ENVS", str(libero))
    record = ready("libero").record
    assert record["checked"]["robosuite"] == "1.4.0"
    assert (record["states"], record["missing"]) == (130, 0)
    assert len(list((place_of("libero").folder / "init_states").glob("*/*.npy"))) == 130


def test_the_state_steps_without_any_drawing(env, monkeypatch):
    monkeypatch.setenv("MUJOCO_GL", "disabled")
    first, info = env.reset(seed=3)
    assert info["instruction"].lower() == "pick the alphabet soup and place it in the basket"
    target = first["target"] + np.array([0.04, 0, 0.03, *[0] * 7], np.float32)
    for _ in range(15):
        seen, reward, terminated, _, _ = env.step(target)
    np.testing.assert_allclose(seen["eef_pos"] - first["eef_pos"], [0.04, 0, 0.03], atol=0.01)
    np.testing.assert_allclose(seen["target"][3:9], first["target"][3:9], atol=0.05)
    assert (reward, terminated) == (0, False)
    again, _ = env.reset(seed=3)
    np.testing.assert_array_equal(again["eef_pos"], first["eef_pos"])


def test_a_picture_is_upright_and_a_fixed_start_is_taken(env):
    env.reset(seed=0, options={"start": 7, "settle": 1})
    picture = env.render()
    assert picture.shape == (128, 128, 3)
    white = np.argwhere(picture.min(axis=-1) > 150)  # the arm, which looks at the camera from the far side
    assert len(white) > 50
    assert white[:, 0].mean() < 64
    again, _ = env.reset(seed=1, options={"start": 7})
    other, _ = env.reset(seed=1, options={"start": 8})
    assert not np.allclose(again["eef_pos"], other["eef_pos"], atol=1e-4)


def test_a_missing_file_is_one_sentence_with_the_fix(env, assets):
    texture = assets / "stable_hope_objects" / "butter" / "texture.png"
    texture.rename(texture.with_suffix(".away"))
    try:
        with pytest.raises(
            ValueError, match=r"lack 1 files .*butter/texture.png.* run: uva env install libero --assets"
        ):
            env.reset(seed=0)
    finally:
        texture.with_suffix(".away").rename(texture)


def test_a_model_in_training_plays_a_task_that_it_is_told(libero, monkeypatch, tmp_path):
    monkeypatch.setenv("UVA_ENVS", str(libero))
    suite = "{class_path: short_suites.LiberoTask, init_args: {episodes: 2}}"
    callbacks = [{"class_path": "SuiteRollout", "init_args": {"suite": suite, "workers": 1}}]
    overlay = {"trainer": {"callbacks+": callbacks, "check_val_every_n_epoch": None, "val_check_interval": 2}}
    words = {"init_args": {"missing": {"class_path": "RandomInstructions"}}}
    overlay["data"] = {"init_args": {"text": words}}
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(overlay))
    files = ["libero10.yaml", "sizes/smoke.yaml", str(tmp_path / "own.yaml")]
    options = [f"--data.path={tmp_path / 'data'}", "--data.generate=RandomEpisodes", "--trainer.max_steps=2"]
    options += ["--trainer.limit_val_batches=1", "--trainer.accelerator=cpu"]
    options += [f"--trainer.logger.init_args.save_dir={tmp_path}"]
    assert main(["fit", *(word for name in files for word in ("--config", name)), *options]) == 0
    (film,) = tmp_path.glob("libero10/rollouts/step_00000002/*.mp4")
    assert film.name == "libero_object_0_100000.mp4"
    (checkpoint,) = tmp_path.glob("**/last.ckpt")
    prompt = "pick up the alphabet soup and place it in the basket"
    given = ["--ckpt", str(checkpoint), "--env", "libero_object/0", "--episodes", "1", "--videos", "0"]
    assert main(["rollout", *given, "--prompt", prompt, "--out", str(tmp_path / "played")]) == 0
    assert json.loads((tmp_path / "played/results.json").read_text())["env"] == "libero_object/0"
    assert main(["rollout", *given]) != 0
