"""Push-T equals Diffusion Policy's on its 206 recorded episodes, and the wrapper shows the right history."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("gymnasium")
pytest.importorskip("pymunk")
pytest.importorskip("shapely")
pytest.importorskip("cv2")

from gymnasium.utils.env_checker import check_env

from uva_lightning import envs
from uva_lightning.envs.pusht import PushT
from uva_lightning.envs.pusht_draw import mark_target
from uva_lightning.envs.pusht_expert import PushTExpert
from uva_lightning.envs.receding_horizon import RecedingHorizon

SHARED = Path(os.environ.get("UVA_SHARED", Path(__file__).resolve().parents[2] / "shared"))
ZARR = SHARED / "data/pusht/pusht_cchi_v7_replay_u8.zarr.zip"
recorded = pytest.mark.skipif(not ZARR.exists(), reason=f"recorded Push-T data not at {ZARR}")


@pytest.fixture(scope="module")
def replay():
    zarr = pytest.importorskip("zarr")
    group = zarr.open_group(zarr.storage.ZipStore(ZARR, mode="r"), mode="r")
    return group, group["data/state"][:], group["data/action"][:], group["meta/episode_ends"][:]


@pytest.mark.parametrize("random_goal", [False, True])
@pytest.mark.filterwarnings("ignore:.*not within.*unit.*|.*normalize.*|.*different from the unwrapped.*:UserWarning")
def test_gymnasium_accepts_it(random_goal):
    check_env(PushT(random_goal=random_goal), skip_render_check=True)


@recorded
@pytest.mark.real_data
def test_recorded_episodes_replay(replay):
    _, state, action, ends = replay
    env, close = PushT(), 0
    for seed, (begin, end) in enumerate(zip([0, *ends[:-1]], ends, strict=True)):
        observation, info = env.reset(seed=seed)
        np.testing.assert_allclose(observation["agent"], state[begin, :2], atol=1e-3)
        np.testing.assert_allclose(info["block"], state[begin, 2:], atol=1e-3)
        for target in action[begin : end - 1]:
            env.world.advance(float(target[0]), float(target[1]))
        close += bool(np.abs(env.world.block_pose - state[end - 1, 2:]).max() < 0.01)
    assert close >= 205


@recorded
@pytest.mark.real_data
def test_pictures_match(replay):
    group, state, _, _ = replay
    env = PushT()
    error, differing = [], []
    for first in range(0, 25650, 161 * 20):
        images = group["data/img"][first : first + 161 : 8].astype(int)
        for stored, row in zip(images, state[first : first + 161 : 8], strict=True):
            env.reset(options={"state": row})
            difference = np.abs(env.render().astype(int) - stored)
            error.append(difference.mean())
            differing.append((difference.max(-1) > 0).sum())
    assert np.mean(error) < 0.3
    assert np.mean(differing) < 60


def test_goal_follows_the_seed():
    env = envs.make("pusht_m")
    goals = [env.reset(seed=seed)[1]["goal"] for seed in (5, 6, 5)]
    np.testing.assert_array_equal(goals[0], goals[2])
    assert np.abs(goals[0] - goals[1]).max() > 1
    assert np.abs(np.array(goals)[:, :2] - 256).max() <= 100
    fixed = envs.make("pusht").reset(seed=5)[1]
    np.testing.assert_allclose(fixed["goal"], [256, 256, np.pi / 4])
    np.testing.assert_array_equal(fixed["block"], env.reset(seed=5)[1]["block"])


def test_recorded_state_and_snapshot_restore():
    env = PushT()
    state = np.array([100, 120, 300, 310, 1.25])
    observation, info = env.reset(options={"state": state, "goal": (200, 220, 0.5)})
    np.testing.assert_allclose(observation["agent"], state[:2])
    np.testing.assert_allclose(info["block"], state[2:], atol=1e-9)
    np.testing.assert_allclose(info["goal"], (200, 220, 0.5))
    for _ in range(5):
        env.step(np.float32([290, 300]))
    memory, image = env.snapshot(), env.render()
    first = [env.step(np.float32([310, 330]))[4]["block"] for _ in range(5)][-1]
    env.restore(memory)
    np.testing.assert_array_equal(env.render(), image)
    again = [env.step(np.float32([310, 330]))[4]["block"] for _ in range(5)][-1]
    np.testing.assert_allclose(again, first, atol=0.5)


def test_time_limit_and_reward():
    env = envs.make("pusht")
    env.reset(seed=0)
    ended = [env.step(np.float32([10, 10]))[2:4] for _ in range(envs.MAX_STEPS)]
    assert ended[-1] == (False, True)
    assert not any(any(flags) for flags in ended[:-1])
    env.reset(options={"state": (50, 50, 256, 256, np.pi / 4)})
    _, reward, terminated, _, info = env.step(np.float32([50, 50]))
    assert (reward, terminated) == (1.0, True)
    assert info["coverage"] > 0.99


@pytest.mark.parametrize("name", ["pusht", "pusht_m"])
def test_expert_solves(name):
    env = envs.make(name)
    env.reset(seed=3)
    for target in PushTExpert(60, seed=3).targets(env.unwrapped.world):
        *_, solved, out_of_time, _ = env.step(np.array(target, dtype=np.float32))
        if solved or out_of_time:
            break
    assert solved


def test_errors_tell_the_fix():
    with pytest.raises(ValueError, match="only pusht, pusht_m, .*; did you mean 'pusht'"):
        envs.make("pushtt")
    with pytest.raises(ValueError, match=r"options \['reset_to_state'\], expected some of state, goal"):
        PushT().reset(options={"reset_to_state": 0})
    with pytest.raises(ValueError, match="expected 5 finite numbers"):
        PushT().reset(options={"state": [1, 2, 3]})
    with pytest.raises(ValueError, match="rising steps that end with 0"):
        RecedingHorizon(PushT(), frames=(0, -8))
    wrapped = RecedingHorizon(PushT())
    wrapped.reset(seed=0)
    with pytest.raises(ValueError, match="at least execute=8"):
        wrapped.step(np.zeros((4, 2), np.float32))


@pytest.mark.parametrize("frames", [(-8, 0), (-12, -8, -4, 0), (0,), (-5, 0)])
def test_wrapper_shows_the_history(frames):
    """The same as stepping by hand and rendering each frame."""
    rng = np.random.default_rng(0)
    chunks = rng.uniform(100, 400, (4, 16, 2)).astype(np.float32)
    plain = PushT()
    observation, _ = plain.reset(seed=1)
    images, states = [plain.render()], [observation["agent"]]
    wrapped = RecedingHorizon(PushT(), execute=8, frames=frames, chunk=16)
    seen, _ = wrapped.reset(seed=1)
    assert wrapped.observation_space.contains(seen)
    for chunk in chunks:
        rewards = []
        for target in chunk[:8]:
            observation, reward, *_ = plain.step(target)
            rewards.append(reward)
            images.append(plain.render())
            states.append(observation["agent"])
        seen, reward, _, _, info = wrapped.step(chunk)
        steps = [max(0, len(images) - 1 + offset) for offset in frames]
        np.testing.assert_array_equal(seen["video"]["top"], np.stack([images[step] for step in steps]))
        np.testing.assert_array_equal(seen["state"]["agent"], np.stack([states[step] for step in steps]))
        assert (reward, info["rewards"]) == (max(rewards), rewards)


def test_wrapper_renders_only_what_is_needed_and_records():
    class Counting(PushT):
        renders = 0

        def render(self):
            self.renders += 1
            return super().render()

    env = Counting()
    wrapped = RecedingHorizon(env, frames=(-8, 0))
    wrapped.reset(seed=0)
    wrapped.step(np.full((8, 2), 200, np.float32))
    assert env.renders == 2
    recording = RecedingHorizon(PushT(), record_every=2, mark=mark_target)
    recording.reset(seed=0)
    seen, *_, info = recording.step(np.full((8, 2), 200, np.float32))
    assert len(info["frames"]) == 4
    assert (info["frames"][-1] != seen["video"]["top"][-1]).any()


def test_wrapper_stops_at_the_end():
    wrapped = RecedingHorizon(envs.make("pusht"))
    wrapped.reset(options={"state": (50, 50, 256, 256, np.pi / 4)})
    _, reward, terminated, truncated, info = wrapped.step(np.full((8, 2), 50, np.float32))
    assert (reward, terminated, truncated, len(info["rewards"])) == (1.0, True, False, 1)
