"""Replaying demonstrations gives their own score, and finds what is flipped, turned, scaled or shifted."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("gymnasium")
pytest.importorskip("pymunk")
pytest.importorskip("shapely")
pytest.importorskip("cv2")
pytest.importorskip("zarr")

import played_demos
import torch
import untrained

from uva_lightning.action_space import ActionSpace
from uva_lightning.commands.errors import UserError
from uva_lightning.commands.replay import checked, opened, pipeline, summary
from uva_lightning.datamodules.pusht import PushT
from uva_lightning.datamodules.windows import Window
from uva_lightning.demos import write_demos
from uva_lightning.envs.vector import Workers
from uva_lightning.evaluation.replay import Demonstrations
from uva_lightning.normalize import Limits, Standard

SHARED = Path(os.environ.get("UVA_SHARED", Path(__file__).resolve().parents[2] / "shared"))
ZARR = SHARED / "data/pusht/pusht_cchi_v7_replay_u8.zarr.zip"
LEROBOT = SHARED / "data/lerobot_pusht_v30"


@pytest.fixture
def replayed(uva, tmp_path):
    """Give a function that replays a data set and returns status, numbers and what was said."""

    def run(path, *options):
        status, out, complaint = uva("replay", "--data", path, "--json", tmp_path / "r.json", "--workers", 1, *options)
        assert "error" not in complaint
        return status, json.loads((tmp_path / "r.json").read_text()), out

    return run


@pytest.fixture(scope="module")
def workers():
    with Workers(1) as pool:
        yield pool


def test_sound_demonstrations_reach_their_own_score(replayed, tmp_path):
    path = played_demos.replay_buffer(tmp_path / "set.zarr")
    status, result, out = replayed(path)
    best = [float(played_demos.play(number)["reward"].max()) for number in range(3)]
    assert status == 0
    assert [row["score"] for row in result["episodes"]] == pytest.approx(best, abs=1e-4)
    assert result["score"] == pytest.approx(np.mean(best), abs=1e-4)
    assert result["own_score"] == pytest.approx(np.mean(best), abs=1e-4)
    assert [row["steps"] for row in result["episodes"]] == [played_demos.STEPS] * 3
    assert result["states"]["agent"] < 1e-6
    assert result["pictures"]["top"] == {"as_recorded": 0.0, "look": "alike"}
    assert result["versions"]["pymunk"] != "not installed"
    assert "ok: a policy can be scored here" in out


WRONG = {
    "mirrored actions": (
        lambda a: {**a, "action": np.float32([512, 0]) + a["action"] * np.float32([-1, 1])},
        "flipped",
    ),
    "swapped actions": (lambda a: {**a, "action": a["action"][:, ::-1]}, "another rotation"),
    "actions in another unit": (lambda a: {**a, "action": a["action"] / 100}, "unit"),
    "actions of 16 steps ago": (lambda a: {**a, "action": np.roll(a["action"], 16, axis=0)}, "shifted in time"),
    "pictures upside down": (lambda a: {**a, "img": a["img"][:, ::-1]}, "of 'top' are upside down"),
    "mirrored pictures": (lambda a: {**a, "img": a["img"][:, :, ::-1]}, "of 'top' are mirrored"),
    "turned pictures": (lambda a: {**a, "img": a["img"].swapaxes(1, 2)[:, ::-1]}, "turned by 90 degrees|270"),
    "blue for red": (lambda a: {**a, "img": a["img"][..., ::-1]}, "red and blue swapped"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_found(workers, tmp_path, name):
    change, words = WRONG[name]
    recordings = opened("pusht", played_demos.replay_buffer(tmp_path / "set.zarr", 2, change))
    result = checked(workers, recordings, *pipeline(recordings, None, None), 0, 8)
    assert len(result.faults()) == 1
    assert re.search(words, result.faults()[0])
    assert f"WRONG: {result.faults()[0]}" in summary(result)


def test_demonstrations_of_uva_demos_begin_from_their_seeds(replayed, tmp_path):
    path = played_demos.demos(tmp_path / "demos")
    status, result, _ = replayed(path)
    best = [float(played_demos.play(seed=seed)["reward"].max()) for seed in (3, 4)]
    assert status == 0
    assert [row["own_score"] for row in result["episodes"]] == pytest.approx(best)
    assert [row["score"] for row in result["episodes"]] == pytest.approx(best, abs=1e-4)


@pytest.mark.slow
def test_demonstrations_of_block_pushing(replayed, tmp_path):
    write_demos("block_push", tmp_path / "demos", episodes=2, workers=1)
    status, result, _ = replayed(tmp_path / "demos", "--env", "block_push_rg")
    assert (status, result["own_score"], result["score"]) == (0, 1.0, 1.0)


def test_any_kind_of_block_pushing_is_replayed_in_the_one_that_was_recorded(tmp_path):
    path = played_demos.demos(tmp_path / "demos")
    meta = path / "meta.json"
    meta.write_text(meta.read_text().replace("pusht", "block_push_scattered"))
    recordings = opened("block_push_rg:picture_hue", path)
    assert (recordings.env, recordings.name) == ("block_push_scattered:picture_hue", "block_push_scattered")
    assert [one.start.seed for one in recordings.recorded] == [3, 4]
    with pytest.raises(UserError, match="demonstrations of 'block_push_scattered', not of 'pusht'; set --env block_"):
        opened("pusht", path).episodes()


def test_changes_of_the_look_are_replayed_too(replayed, tmp_path):
    status, result, _ = replayed(played_demos.demos(tmp_path / "demos"), "--env", "pusht:goal_color")
    assert (status, result["env"], result["score"]) == (0, "pusht:goal_color", pytest.approx(result["own_score"]))


def test_a_checkpoint_brings_its_own_reading_and_normaliser(replayed, uva, tmp_path, tiny_data):
    """A normaliser that was fitted to other actions is no fault: it goes there and back."""
    ckpt = untrained.checkpoint(tmp_path / "last.ckpt", tiny_data())
    path = played_demos.replay_buffer(tmp_path / "set.zarr")
    status, result, out = replayed(path, "--ckpt", ckpt, "--episodes", 2)
    assert (status, result["checkpoint"], result["n"]) == (0, str(ckpt), 2)
    assert result["score"] == pytest.approx(result["own_score"], abs=1e-3)
    broken = untrained.checkpoint(tmp_path / "broken.ckpt", tiny_data())
    content = torch.load(broken, weights_only=True)
    content["fitted"]["actions"]["normalizer.scale"][0] = float("inf")
    torch.save(content, broken)
    complaint = uva("replay", "--data", path, "--ckpt", broken)[2]
    assert "actions with NaN or infinity in the episode of seed 0" in complaint


@pytest.mark.parametrize(
    "space", [lambda: ActionSpace(Limits()), lambda: ActionSpace(Standard(), relative_to="agent", place=Limits())]
)
def test_chunks_are_cut_as_in_training(tmp_path, space):
    """The first action is that of the latest frame, the last one is repeated after the end, relative ones come back."""
    data = PushT(played_demos.replay_buffer(tmp_path / "set.zarr", 2), window=Window(frames=2))
    cut = Demonstrations(data, space())
    state = {"agent": torch.from_numpy(data.store.state["agent"][played_demos.STEPS + 8])[None, None]}
    action = data.store.action[played_demos.STEPS :]
    np.testing.assert_allclose(cut.chunk(1, 8, state), action[8:24], atol=1e-3)
    near_end = np.concatenate([action[32:], action[-1:].repeat(8, axis=0)])
    state = {"agent": torch.from_numpy(data.store.state["agent"][played_demos.STEPS + 32])[None, None]}
    np.testing.assert_allclose(cut.chunk(1, 32, state), near_end, atol=1e-3)


def test_errors_tell_the_fix(uva, tmp_path):
    assert "only block_push, block_push_careless, " in uva("replay", "--data", tmp_path, "--env", "hanoi")[2]
    assert f"There is no dataset at {tmp_path / 'nothing'}" in uva("replay", "--data", tmp_path / "nothing")[2]
    assert "holds no state of the block" in uva("replay", "--data", tmp_path)[2]
    path = played_demos.demos(tmp_path / "demos")
    assert "holds demonstrations of 'pusht', not of 'pusht_m'" in uva("replay", "--data", path, "--env", "pusht_m")[2]
    assert "episodes is -1, expected 0 or more" in uva("replay", "--data", path, "--episodes", -1)[2]


@pytest.mark.slow
@pytest.mark.real_data
@pytest.mark.skipif(not ZARR.exists(), reason=f"recorded Push-T data not at {ZARR}")
def test_the_206_demonstrations(replayed):
    status, result, _ = replayed(ZARR)
    assert status == 0
    assert result["n"] == 206
    assert result["score"] == pytest.approx(0.947, abs=0.002)
    assert result["pictures"]["top"]["as_recorded"] < 0.3


@pytest.mark.real_data
@pytest.mark.skipif(not LEROBOT.exists(), reason=f"recorded Push-T data not at {LEROBOT}")
def test_the_lerobot_copy_begins_from_the_seeds():
    """It holds the agent only: the seeds of Diffusion Policy give the block, and its reward the demonstrations' own."""
    recorded = opened("pusht", LEROBOT).episodes()
    assert [one.start.seed for one in recorded] == list(range(206))
    assert np.mean([one.score for one in recorded]) == pytest.approx(0.892, abs=0.001)
