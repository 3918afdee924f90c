"""Rollouts: who is asked when, what is measured, which environments are refused, and the command around it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
import untrained

pytest.importorskip("gymnasium")
pytest.importorskip("pymunk")
pytest.importorskip("shapely")
pytest.importorskip("cv2")
pytest.importorskip("av")

import av
from lightning.pytorch.utilities.seed import isolate_rng

from uva_lightning import envs
from uva_lightning.commands.errors import UserError
from uva_lightning.commands.rollout import rollout, summary
from uva_lightning.datamodules.pusht import PushT
from uva_lightning.envs.pusht_expert import PushTExpert
from uva_lightning.metrics.intervals import bootstrap_mean, wilson
from uva_lightning.results import write_json
from uva_lightning.rollouts import (
    FIRST_TEST_SEED,
    ConstantAction,
    Episode,
    HoldPosition,
    RolloutResult,
    frame_offsets,
    run_rollouts,
)
from uva_lightning.video_files import gif_bytes, side_by_side, write_mp4

SPEC = replace(PushT.facts, frames=2)
SEEDS = range(FIRST_TEST_SEED, FIRST_TEST_SEED + 3)


class Watcher(HoldPosition):
    """Hold the position and keep what was seen."""

    def __init__(self):
        super().__init__("agent", SPEC.horizon)
        self.seen, self.resets = [], []

    def reset(self, seed):
        self.resets.append(seed)

    def act(self, observation):
        self.seen.append(observation)
        return super().act(observation)


@pytest.mark.parametrize(("frames", "offsets"), [(1, (0,)), (2, (-8, 0)), (4, (-12, -8, -4, 0))])
def test_history_has_the_spacing_of_the_data(frames, offsets):
    assert frame_offsets(replace(SPEC, frames=frames)) == offsets


def test_all_environments_are_asked_at_once_and_in_order():
    actor = Watcher()
    result = run_rollouts(actor, "pusht", SPEC, SEEDS, max_steps=20, record=1, progress=False)
    assert actor.resets == [FIRST_TEST_SEED]
    assert [len(seen["video"]["top"]) for seen in actor.seen] == [3, 3, 3]  # 20 steps are chunks of 8, 8 and 4
    assert [(e.seed, e.steps, e.success) for e in result.episodes] == [(seed, 20, False) for seed in SEEDS]
    for row, seed in enumerate(SEEDS):
        env = envs.make("pusht")
        start, _ = env.reset(seed=seed)
        first = actor.seen[0]
        np.testing.assert_array_equal(first["state"]["agent"][row], [start["agent"]] * 2)
        np.testing.assert_array_equal(first["video"]["top"][row], [env.render()] * 2)
        rewards = [env.step(start["agent"])[1] for _ in range(8)]
        np.testing.assert_array_equal(actor.seen[1]["video"]["top"][row, -1], env.render())
        assert result.episodes[row].score >= max(rewards)
    assert {seed: frames.shape for seed, frames in result.frames.items()} == {SEEDS[0]: (21, 96, 96, 3)}


class Replay:
    """Play recorded targets in the first environment, as long as it is there, and go into a corner in the other."""

    def __init__(self, targets):
        self.targets, self.asked = targets, []

    def reset(self, seed):
        self.position = 0

    def act(self, observation):
        count = len(observation["state"]["agent"])
        self.asked.append(count)
        chunk = self.targets[self.position : self.position + SPEC.horizon]
        self.position += 8
        chunks = np.zeros((count, SPEC.horizon, 2), dtype=np.float32)
        if count == 2:
            chunks[0, : len(chunk)] = chunk
        return chunks


def solution(seed):
    env = envs.make("pusht")
    env.reset(seed=seed)
    targets = []
    for target in PushTExpert(100, seed).targets(env.unwrapped.world):
        targets.append(np.float32(target))
        _, _, solved, late, _ = env.step(targets[-1])
        if solved or late:
            return targets, solved


def test_a_solved_episode_ends_and_is_not_asked_again():
    targets, solved = solution(FIRST_TEST_SEED)
    assert solved
    actor = Replay(targets)
    result = run_rollouts(actor, "pusht", SPEC, [FIRST_TEST_SEED, FIRST_TEST_SEED + 1], progress=False)
    first, other = result.episodes
    assert (first.score, first.success, first.steps) == (1.0, True, len(targets))
    assert (other.success, other.steps) == (False, 300)
    together, calls = -(-len(targets) // 8), -(-300 // 8)
    assert actor.asked == [2] * together + [1] * (calls - together)
    assert (result.successes, result.success) == (1, 0.5)


def test_measures_and_their_intervals():
    scores = [0.2, 1.0, 0.7, 1.0]
    result = RolloutResult("pusht", 8, tuple(Episode(k, s, s >= 1, 10) for k, s in enumerate(scores)))
    assert result.score == pytest.approx(0.725)
    assert result.score_interval == bootstrap_mean(scores)
    assert (result.success, result.success_interval) == (0.5, wilson(2, 4))
    record = result.record()
    assert record["seeds"] == [0, 1, 2, 3]
    assert (record["jerk"], record["jerk_interval"]) == (None, None)
    assert record["episodes"][0] == {"seed": 0, "score": 0.2, "success": False, "steps": 10, "jerk": None}
    assert {"uva_lightning", "torch", "python", "gymnasium", "pymunk"} <= set(record["versions"])
    assert json.loads(json.dumps(record)) == record
    text = summary(result)
    assert text.splitlines()[0] == "pusht: score 0.725 over 4 episodes (seeds 0 to 3), 2 solved"
    assert "0.500   0.150 to 0.850" in text


def test_baselines_need_no_model():
    state = np.arange(8, dtype=np.float32).reshape(2, 2, 2)
    observation = {"video": {"top": np.zeros((2, 2, 96, 96, 3), np.uint8)}, "state": {"agent": state}}
    held = HoldPosition("agent", 16).act(observation)
    assert held.shape == (2, 16, 2)
    assert (held == state[:, -1:]).all()
    constant = ConstantAction.mean(torch.tensor([[[1.0, 2.0], [3.0, 6.0]]]), 16).act(observation)
    assert constant.dtype == np.float32
    assert (constant == np.float32([2, 4])).all()
    assert constant.shape == (2, 16, 2)


def test_the_result_follows_from_the_seeds_and_global_randomness_stays():
    class Noisy(HoldPosition):
        def act(self, observation):
            return super().act(observation) + 50 * torch.randn(1, 1, 2).numpy()

    with isolate_rng():
        torch.manual_seed(1)
        before = torch.get_rng_state()
        first = run_rollouts(Noisy("agent", 16), "pusht", SPEC, SEEDS, max_steps=40, progress=False)
        assert torch.equal(torch.get_rng_state(), before)
        torch.manual_seed(2)
        assert run_rollouts(Noisy("agent", 16), "pusht", SPEC, SEEDS, max_steps=40, progress=False) == first


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"cameras": ("wrist",)}, r"pusht has cameras \('top',\), the model was trained with \('wrist',\)"),
        ({"action_dim": 7}, "pusht has action width 2, the model was trained with 7"),
        ({"state_dims": {"gripper": 1}}, "pusht has width of state 'gripper' none, the model was trained with 1"),
        ({"state_dims": {"agent": 3}}, "pusht has width of state 'agent' 2, the model was trained with 3"),
    ],
)
def test_an_environment_that_differs_from_the_data_is_refused(change, words):
    with pytest.raises(ValueError, match=words):
        run_rollouts(Watcher(), "pusht", replace(SPEC, **change), SEEDS)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"execute": 17}, "execute is 17, expected 1 to 16"),
        ({"execute": 0}, "execute is 0, expected 1 to 16"),
        ({"max_steps": 0}, "max_steps is 0, expected at least 1"),
        ({"seeds": []}, r"seeds are \[\], expected at least one"),
        ({"seeds": [5, 5]}, r"seeds are \[5, 5\], expected .* each once"),
        ({"env": "pusht_n"}, "no environment 'pusht_n'.*did you mean 'pusht_m'"),
    ],
)
def test_impossible_numbers_are_refused(options, words):
    arguments = {"actor": Watcher(), "env": "pusht", "spec": SPEC, "seeds": SEEDS, **options}
    with pytest.raises(ValueError, match=words):
        run_rollouts(**arguments)


def test_films_play(tmp_path):
    frames = np.random.default_rng(0).integers(0, 256, (5, 8, 9, 3), dtype=np.uint8)
    write_mp4(tmp_path / "a/film.mp4", frames, 10)
    with av.open(str(tmp_path / "a/film.mp4")) as film:
        decoded = [frame.to_ndarray(format="rgb24") for frame in film.decode(video=0)]
        assert film.streams.video[0].average_rate == 10
    assert np.shape(decoded) == (5, 256, 288, 3)
    assert np.abs(decoded[0][16::32, 16::32].astype(int) - frames[0]).mean() < 40
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["film.mp4"]
    assert gif_bytes(frames, 10).startswith(b"GIF89a")
    joined = side_by_side([frames, frames[:2]])
    assert joined.shape == (5, 8, 18, 3)
    assert (joined[4, :, 9:] == frames[1]).all()


def test_no_half_file(tmp_path):
    path = tmp_path / "deep/results.json"
    write_json(path, {"a": 1})
    with pytest.raises(ValueError, match="nan|NaN|Out of range"):
        write_json(path, {"a": float("nan")})
    assert json.loads(path.read_text()) == {"a": 1}
    assert [entry.name for entry in path.parent.iterdir()] == ["results.json"]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory, tiny_data):
    """Write a checkpoint of an untrained model into a run folder."""
    return untrained.checkpoint(tmp_path_factory.mktemp("run") / "checkpoints/last.ckpt", tiny_data())


def test_command_writes_results_and_films(checkpoint, capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", ["uva", "rollout", "--ckpt", str(checkpoint)])
    rollout(checkpoint, episodes=2, videos=1)
    folder = checkpoint.parent.parent / "rollouts/last_pusht"
    assert {path.name for path in folder.iterdir()} == {"results.json", "pusht_100000.mp4"}
    results = json.loads((folder / "results.json").read_text())
    assert results["seeds"] == [100000, 100001]
    assert results["checkpoint"] == {
        "path": str(checkpoint),
        "sha256": hashlib.sha256(checkpoint.read_bytes()).hexdigest(),
    }
    assert results["command"] == f"uva rollout --ckpt {checkpoint}"
    text = capsys.readouterr().out
    assert text.startswith(f"pusht: score {results['score']:.3f} over 2 episodes (seeds 100000 to 100001)")
    assert str(folder) in text


def test_a_missing_checkpoint_is_told_with_the_newest_one(checkpoint):
    wrong = checkpoint.parent.parent / "checkpoint/lost.ckpt"
    with pytest.raises(UserError, match=f"no checkpoint {wrong}.*newest below .* is {checkpoint}"):
        rollout(wrong)


@pytest.mark.parametrize("wrong", [{"episodes": 0}, {"videos": -1}, {"seed": -1}, {"device": "tpu"}])
def test_command_refuses_impossible_numbers(checkpoint, wrong):
    with pytest.raises(UserError, match=next(iter(wrong))):
        rollout(checkpoint, **wrong)
