"""LIBERO's environment around a stand-in for LIBERO itself, in the real processes and messages."""

import json
import os
import sys
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest

from uva_lightning import envs
from uva_lightning.cli import main
from uva_lightning.commands.errors import UserError
from uva_lightning.envs.games import Recipe, Start
from uva_lightning.envs.manipulation import Manipulation
from uva_lightning.envs.receding_horizon import RecedingHorizon
from uva_lightning.envs.vector import Workers
from uva_lightning.evaluation.recordings import recordings_of
from uva_lightning.evaluation.robosuite_recordings import standing
from uva_lightning.rollouts import open_env
from uva_lightning.simulators.client import SimulatorDied
from uva_lightning.simulators.installed import MARKER, place_of
from uva_lightning.types import DataSpec

STAND_IN = Path(__file__).parent / "support" / "stand_in"
GOAL = np.array([0.2, 0, 0.3, 1, 0, 0, 0, 1, 0, 1], dtype=np.float32)
SCENE = """<mujoco><worldbody><body name="shelf" pos="1 2 3"/><body name="soup"><joint type="free"/></body></worldbody>
</mujoco>"""
SPEC = DataSpec(("agentview",), 16, 10, {"eef_pos": 3, "target": 10}, 20, horizon=16, frames=2)
RECIPE = Recipe("libero_object/0", 16, 8, (-8, 0), 16)


@pytest.fixture
def libero(tmp_path, monkeypatch):
    """An environment of LIBERO whose packages are the stand-in and those of this one."""
    place = place_of("libero", tmp_path)
    place.python.parent.mkdir(parents=True)
    place.python.symlink_to(sys.executable)
    (place.venv / "pyvenv.cfg").write_text(f"home = {Path(sys.base_prefix) / 'bin'}\n")
    packages = place.venv / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages"
    packages.mkdir(parents=True)
    (packages / "all.pth").write_text(f"{STAND_IN}\n{Path(np.__file__).parents[1]}\n")
    (place.venv / "filled").write_text(place.pinned)
    (place.folder / MARKER).write_text('{"pins": "' + place.pinned + '"}')
    (place.folder / "assets").mkdir()
    starts = place.folder / "init_states" / "libero_object"
    starts.mkdir(parents=True)
    np.save(starts / "pick_up_the_soup.npy", np.arange(8.0).reshape(2, 4))
    monkeypatch.setenv("UVA_ENVS", str(tmp_path))
    monkeypatch.setenv("MUJOCO_GL", "disabled")  # the stand-in draws without it
    return place


@pytest.fixture
def env(libero):
    """The first task."""
    made = envs.make("libero_object/0", 16)
    yield made
    made.close()


def test_an_episode_follows_its_seed_and_ends_when_the_task_is_done(env):
    first, info = env.reset(seed=3)
    assert info["instruction"] == "pick up"
    assert env.observation_space.contains(first)
    again, _ = env.reset(seed=3)
    other, _ = env.reset(seed=4)
    np.testing.assert_array_equal(first["eef_pos"], again["eef_pos"])
    assert not np.allclose(first["eef_pos"], other["eef_pos"])
    stayed, reward, *_ = env.step(other["target"])
    np.testing.assert_allclose(stayed["eef_pos"], other["eef_pos"], atol=1e-6)
    assert reward == 0
    for _ in range(7):
        _, reward, terminated, _, info = env.step(GOAL)
    assert (reward, terminated, info["success"]) == (1, True, True)


def test_a_start_without_room_is_drawn_again_from_the_same_stream(env):
    again = 0
    for seed in range(4):
        random = np.random.RandomState(seed)
        while (place := random.uniform(-0.1, 0.1, 3))[0] < 0:  # where the stand-in has no room
            again += 1
        np.testing.assert_allclose(env.reset(seed=seed)[0]["eef_pos"], place, atol=1e-6)
    assert again > 0


def test_pictures_are_upright_and_fixed_starts_are_the_files(env):
    env.reset(seed=0)
    picture = env.render()
    assert picture.shape == (16, 16, 3)
    assert picture[-1, 1:].min() == 255
    assert picture[:-1].max() == 0
    observation, _ = env.reset(seed=0, options={"start": 1, "settle": 2})
    np.testing.assert_allclose(observation["eef_pos"], [5, 6, 7])
    observation, _ = env.reset(seed=0, options={"state": (0, 1, 2, 3)})
    np.testing.assert_allclose(observation["eef_pos"], [1, 2, 3])
    with pytest.raises(ValueError, match=r"no initial state 2, only 0 to 1"):
        env.reset(seed=0, options={"start": 2})
    with pytest.raises(ValueError, match=r"has \[2\] numbers, expected \[4\]"):
        env.reset(seed=0, options={"state": (0, 1)})
    with pytest.raises(ValueError, match="reset got 'start' and state, expected one way to begin"):
        env.reset(seed=0, options={"start": 1, "state": (0, 1, 2, 3)})
    env.reset(seed=0)  # the simulator lives on
    with pytest.raises(ValueError, match="has no rotation"):
        env.step(np.zeros(10, np.float32))


def test_it_shows_what_a_policy_of_libero_was_trained_on(libero):
    env = open_env("libero_object/0", SPEC)
    try:
        observation, _ = env.reset(seed=0)
        assert observation["video"]["agentview"].shape == (2, 16, 16, 3)
        assert observation["state"]["target"].shape == (2, 10)
    finally:
        env.close()


def children() -> set[str]:
    return set(Path(f"/proc/self/task/{os.getpid()}/children").read_text().split())


def test_a_simulator_that_does_not_fit_is_ended(libero):
    before = children()
    with pytest.raises(ValueError, match="libero_object/0 has action width 10, the model was trained with 7") as caught:
        open_env("libero_object/0", replace(SPEC, action_dim=7))
    assert children() <= before
    assert caught.tb is not None, "the traceback still holds the environment"


def test_each_camera_has_a_history_of_its_own(libero):
    inner = Manipulation("libero", "libero_object/0", {"front": "agentview", "wrist": "hand"}, 16, "rgb_array")
    env = RecedingHorizon(inner, 2, (-1, 0), record_every=1)
    try:
        observation, info = env.reset(seed=0)
        assert env.observation_space.contains(observation)
        assert [video.shape for video in observation["video"].values()] == [(2, 16, 16, 3)] * 2
        assert observation["video"]["front"][:, :-1].max() == 0
        assert observation["video"]["wrist"][:, 0, 0].min() == 255  # the stand-in's mark of another camera
        assert info["frames"][0].shape == (16, 16, 3)
    finally:
        env.close()


def test_what_is_missing_is_one_sentence(libero):
    with pytest.raises(ValueError, match=r"expected one of libero_object/0 to libero_object/9"):
        envs.make("libero_object/10")
    with pytest.raises(ValueError, match=r"'pusht/0', expected 'pusht', which has no tasks"):
        envs.make("pusht/0")
    with pytest.raises(ValueError, match=r"are not all there; it stopped at: .*milk.obj"):
        envs.make("libero_object/1").reset()
    (libero.folder / "assets").rmdir()
    with pytest.raises(ValueError, match=r"run: uva env install libero --assets PATH"):
        envs.make("libero_object/0").reset()
    with pytest.raises(ImportError, match="run: uva env install toolhang"):
        envs.make("toolhang").reset()


def test_a_simulator_that_dies_is_started_again_by_the_next_reset(env):
    env.reset(seed=0)
    with pytest.raises(SimulatorDied, match="ended with status 3 at 'step'"):
        env.step(np.array([0, 0, -10, 1, 0, 0, 0, 1, 0, 0], np.float32))
    with pytest.raises(SimulatorDied, match="No simulator libero runs at 'step', expected a reset before"):
        env.step(GOAL)
    env.reset(seed=0)


def chunk(height: float) -> np.ndarray:
    """A chunk of one action."""
    return np.tile(np.array([0, 0, height, 1, 0, 0, 0, 1, 0, 0], np.float32), (16, 1))


@pytest.mark.slow
def test_a_dead_simulator_loses_no_episode_and_is_counted(libero, tmp_path, monkeypatch):
    def play():
        with Workers(1) as workers:
            workers.begin(RECIPE, [Start(7)])
            workers.step({0: chunk(0.1)})
            return workers.step({0: chunk(-8.5)})[0], workers.crashes

    undisturbed, crashes = play()
    assert crashes == 0
    monkeypatch.setenv("CRASH_ONCE", str(tmp_path / "crashed"))
    seen, crashes = play()
    assert crashes == 1
    np.testing.assert_array_equal(seen.observation["state"]["eef_pos"], undisturbed.observation["state"]["eef_pos"])


def record(file: Path, upside_down: bool = True) -> None:
    """Record one demonstration of the stand-in as LIBERO's files hold it."""
    env = envs.make("libero_object/0", 128)
    seen, _ = env.reset(seed=5)
    states, pictures, places = [], [], []
    for _ in range(8):
        states.append([0.0, *env.unwrapped._ask("state")[1]["state"][1:]])
        seen, *_ = env.step(GOAL)
        pictures.append(env.render()[:: -1 if upside_down else 1])
        places.append(seen["eef_pos"])
    env.close()
    file.parent.mkdir()
    with h5py.File(file, "w") as content:
        demo = content.create_group("data/demo_0")
        demo["actions"] = np.tile([0.2, 0, 0.3, 0, 0, 0, 1], (8, 1))
        demo["states"], demo["obs/agentview_rgb"], demo["obs/ee_pos"] = states, np.stack(pictures), places
        demo["rewards"] = np.uint8([0] * 7 + [1])
        demo.attrs["model_file"] = SCENE
        content["data"].attrs["actions_are"] = "absolute"


@pytest.mark.slow
def test_demonstrations_are_replayed_from_their_states(libero, tmp_path, capsys):
    (libero.folder / "tasks.json").write_text(json.dumps({"libero_object": [["pick_up_the_soup", "pick up"]]}))
    options = ["replay", "--env", "libero_object/0", "--workers", "1", "--data"]
    record(tmp_path / "as_stored" / "pick_up_the_soup_demo.hdf5")
    assert main([*options, str(tmp_path / "as_stored")]) == 0
    assert "1 demonstrations replayed, score 1.000" in capsys.readouterr().out
    record(tmp_path / "flipped" / "pick_up_the_soup_demo.hdf5", upside_down=False)
    assert main([*options, str(tmp_path / "flipped")]) == 1
    assert "upside down" in capsys.readouterr().out


def test_a_recorded_scene_tells_where_things_stand_and_the_task(libero, tmp_path):
    assert standing(SCENE) == {"shelf": (1.0, 2.0, 3.0, 1.0, 0.0, 0.0, 0.0)}
    (libero.folder / "tasks.json").write_text(json.dumps({"libero_object": [["a", ""], ["pick_up_the_soup", ""]]}))
    (tmp_path / "pick_up_the_soup_demo.hdf5").touch()
    with pytest.raises(UserError, match=r"no a_demo.hdf5.* it has libero_object/1: set --env"):
        recordings_of("libero_object/0", tmp_path)
    with pytest.raises(UserError, match="names no task, expected libero_object/0 to libero_object/1"):
        recordings_of("libero_object", tmp_path)
    assert recordings_of("libero_object/1", tmp_path).path.name == "pick_up_the_soup_demo.hdf5"
    with pytest.raises(UserError, match="does not tell how its demonstrations began"):
        recordings_of("libero_object/1", tmp_path).episodes()


def test_bodies_that_do_not_move_are_put_where_they_stood(env):
    pose = (1, 2, 3, 1, 0, 0, 0)
    env.reset(seed=0, options={"state": (0, 1, 2, 3), "bodies": {"shelf": pose}})
    with pytest.raises(ValueError, match="has the bodies stove, expected those of this task"):
        env.reset(seed=0, options={"state": (0, 1, 2, 3), "bodies": {"stove": pose}})
