"""Futures: imagined in batches of any size, or tried in the true simulator without a trace; and what judges them."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
from fitted_models import fitted
from PIL import Image

from uva_lightning import envs
from uva_lightning.envs.pusht_expert import PushTExpert
from uva_lightning.envs.receding_horizon import RecedingHorizon
from uva_lightning.envs.trials import try_out
from uva_lightning.policy.imagination import ForwardModel, Futures, Simulator
from uva_lightning.policy.planner import Planner
from uva_lightning.policy.proposals import FromPolicy
from uva_lightning.policy.rewards import PixelGoal, TrueReward
from uva_lightning.policy.windows import WindowPolicy
from uva_lightning.rollouts import FIRST_TEST_SEED, run_rollouts

SEED = FIRST_TEST_SEED


@pytest.fixture(scope="module")
def policy(tiny_data, tiny_module):
    return WindowPolicy(fitted(tiny_data(), tiny_module), 3)


@pytest.fixture
def game():
    env = RecedingHorizon(envs.make("pusht"), 8, (-8, 0), 16)
    env.reset(seed=SEED)
    yield env
    env.close()


def observation(samples=2):
    rng = np.random.default_rng(0)
    video = {"top": rng.integers(0, 256, (samples, 2, 96, 96, 3), dtype=np.uint8)}
    return {"video": video, "state": {"agent": rng.uniform(0, 512, (samples, 2, 2)).astype(np.float32)}}


def expert(env, steps=16):
    """The next actions of an expert that looks ahead, f32[h, 2]; the episode stays where it is."""
    inner = env.unwrapped
    before, targets = inner.snapshot(), []
    for target in PushTExpert(100, SEED).targets(inner.world):
        targets.append(np.float32(target))
        if len(targets) == steps:
            break
        inner.step(targets[-1])
    inner.restore(before)
    return np.stack(targets)


def test_all_futures_at_once_are_those_of_smaller_batches(policy):
    seen = policy.prepare(observation())
    actions = np.random.default_rng(1).uniform(0, 512, (5, 2, 16, 2)).astype(np.float32)
    whole = ForwardModel().futures(policy, seen, actions, True)["top"]
    assert whole.shape == (5, 2, 2, 96, 96, 3)
    parts = ForwardModel(batch=4).futures(policy, seen, actions, True)["top"]
    assert np.abs(whole.astype(int) - parts).max() <= 1
    alone = policy.predict_next(observation(), actions[3], 0.0)["top"]
    assert np.abs(whole[3].astype(int) - alone).max() <= 1
    assert not np.array_equal(whole[0], whole[1])


def test_a_trial_is_what_then_happens_and_leaves_no_trace(game):
    inner, chunk = game.unwrapped, expert(game)
    before = inner.snapshot()
    frames, rewards = try_out(game, chunk, 8)
    assert inner.snapshot() == before
    assert (frames.shape, rewards.shape) == ((2, 96, 96, 3), (16,))
    for number in range(2):
        history, reward, *_ = game.step(chunk[8 * number :])
        assert reward == pytest.approx(rewards[8 * number : 8 * number + 8].max(), abs=0.02)
        assert np.abs(history["video"]["top"][-1].astype(int) - frames[number]).mean() < 1
    none, same = try_out(game, chunk, 8, pictures=False)
    assert len(none) == 0
    assert len(same) == 16


def test_trials_do_not_count_as_steps_of_the_episode(game):
    chunk = np.full((16, 2), 256, np.float32)
    for _ in range(25):
        try_out(game, chunk, 8, pictures=False)  # 400 steps, an episode has 300
    assert game.step(chunk)[3] is False


class Forgetful(gym.Env):
    """An environment that cannot go back."""


def test_an_environment_that_cannot_go_back_is_named():
    env = gym.Wrapper(Forgetful())
    with pytest.raises(ValueError, match=r"Forgetful has no snapshot\(\) and restore\(\)"):
        try_out(env, np.zeros((16, 2), np.float32), 8)


class Once:
    """Proposes to stay, or what the expert would do."""

    def __init__(self, chunks):
        self.chunks, self.calls = chunks, 0

    def __call__(self, seen):
        self.calls += 1
        return self.chunks[self.calls % 2][None]


def test_the_simulator_finds_the_expert_among_proposals(policy, game):
    chunks = [np.full((16, 2), 20, np.float32), expert(game)]
    for env in (game,):
        planner = Planner(policy, None, FromPolicy(Once(chunks), 4), imagination=Simulator())
        planner.enter({7: env})
        assert planner.reward.margin == 6.0  # that of Push-T's goal
        planner.margin = 0.0
        seen = {kind: {n: x[None] for n, x in part.items()} for kind, part in game._history().items()}
        assert planner.act({**seen, "episode": {"seed": [7]}})[0] == pytest.approx(chunks[1])
        with pytest.raises(ValueError, match="Episode 8 runs in no simulator"):
            planner.act({**seen, "episode": {"seed": [8]}})


def test_the_true_reward_guides_a_rollout(policy):
    """With the environment's own reward the bound needs no pictures; starts where the block can be pushed."""
    planner = Planner(policy, TrueReward(), 2, imagination=Simulator())
    result = run_rollouts(planner, "pusht", policy.spec, [SEED, SEED + 1], max_steps=16, progress=False)
    assert [episode.steps for episode in result.episodes] == [16, 16]
    with pytest.raises(ValueError, match="TrueReward judges futures that are imagined"):
        Planner(policy, TrueReward(), 2).act(observation())


def test_a_planner_without_reward_is_refused(policy):
    with pytest.raises(ValueError, match="no reward, expected one that judges futures"):
        Planner(policy).act(observation())


def test_scores_of_another_shape_are_refused(policy):
    with pytest.raises(ValueError, match=r"gave \[2\] scores, 0 of them NaN, expected numbers \[3, 2\]"):
        Planner(policy, lambda past, future: np.zeros(2), 3).act(observation())
    with pytest.raises(ValueError, match="6 of them NaN"):
        Planner(policy, lambda past, future: np.full((3, 2), np.nan), 3).act(observation())


def goal_file(folder, pixels):
    path = folder / "goal.png"
    Image.fromarray(pixels).save(path)
    return path


def test_a_goal_picture_is_nearest_to_itself(tmp_path):
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, (4, 2, 3, 8, 8, 3), dtype=np.uint8)
    reward = PixelGoal(goal_file(tmp_path, frames[2, 1, -1]))
    scores = reward({}, Futures({"top": frames}))
    assert scores.shape == (4, 2)
    assert scores[2, 1] == 0
    expected = -np.sqrt(((frames[0, 0, -1].astype(float) - frames[2, 1, -1]) ** 2).mean())
    assert scores[0, 0] == pytest.approx(expected)
    with pytest.raises(ValueError, match="camera is 'wrist', the futures show top"):
        PixelGoal(tmp_path / "goal.png", "wrist")({}, Futures({"top": frames}))
    with pytest.raises(ValueError, match=r"\[8, 8\] \(height, width\), the frames are \[6, 8\]"):
        reward({}, Futures({"top": frames[..., :6, :, :]}))


def test_transparent_parts_of_a_goal_do_not_matter(tmp_path):
    pixels = np.zeros((8, 8, 4), np.uint8)
    pixels[:4] = 255
    frames = np.zeros((2, 1, 1, 8, 8, 3), np.uint8)
    frames[0, ..., :4, :, :] = 255
    frames[1, ..., 4:, :, :] = 255
    scores = PixelGoal(goal_file(tmp_path, pixels))({}, Futures({"top": frames}))
    assert scores[:, 0].tolist() == [0, -255]
    with pytest.raises(ValueError, match="transparent all over"):
        PixelGoal(goal_file(tmp_path, np.zeros((8, 8, 4), np.uint8)))
    with pytest.raises(ValueError, match=r"no picture .*lost\.png"):
        PixelGoal(tmp_path / "lost.png")
