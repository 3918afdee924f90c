"""Block pushing: seeds, physics and goal classes, and the expert solves it in every way."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("gymnasium")
pytest.importorskip("pymunk")
pytest.importorskip("shapely")
pytest.importorskip("cv2")

from gymnasium.utils.env_checker import check_env

from uva_lightning import envs
from uva_lightning.envs.block_push import CLASSES, BlockPush
from uva_lightning.envs.block_push_expert import BlockPushExpert
from uva_lightning.envs.block_push_world import SQUARES, BlockPushWorld
from uva_lightning.envs.receding_horizon import RecedingHorizon

STATE = (256, 460, 176, 300, 0, 336, 300, 0)
"""The red block on the left, the green one on the right, both upright, the agent below."""


def play(name, seed):
    """Let the expert play an episode: rewards and the last info."""
    env = envs.make(name)
    _, info = env.reset(seed=seed)
    rewards = []
    for target in env.unwrapped.demonstrate(100, seed):
        _, reward, solved, out_of_time, info = env.step(np.array(target, dtype=np.float32))
        rewards.append(reward)
        if solved or out_of_time:
            return rewards, info


@pytest.mark.filterwarnings("ignore:.*not within.*unit.*|.*normalize.*|.*different from the unwrapped.*:UserWarning")
@pytest.mark.parametrize("goal", [None, "R-G"])
def test_gymnasium_accepts_it(goal):
    check_env(BlockPush(goal=goal), skip_render_check=True)


def test_the_start_follows_the_seed_whatever_the_goal():
    starts = [envs.make(name).reset(seed=seed)[1]["blocks"] for name, seed in (("block_push", 3), ("block_push_gr", 3))]
    np.testing.assert_array_equal(*starts)
    assert np.abs(starts[0] - envs.make("block_push").reset(seed=4)[1]["blocks"]).max() > 1
    blocks = np.array([BlockPush().reset(seed=seed)[1]["blocks"] for seed in range(50)])
    assert 10 < (blocks[:, 0, 0] < 256).sum() < 40  # the red block starts on either side
    assert np.abs(blocks[:, 0, 0] - blocks[:, 1, 0]).min() > 68  # the diagonal: they never overlap


def test_the_same_actions_do_the_same():
    runs = []
    for _ in range(2):
        env = BlockPush()
        env.reset(seed=7)
        rng = np.random.default_rng(0)
        runs.append([env.step(rng.uniform(100, 400, 2).astype(np.float32))[4]["blocks"] for _ in range(30)])
    np.testing.assert_array_equal(*runs)


def test_a_push_moves_the_block_in_front_and_no_other():
    env = BlockPush()
    _, info = env.reset(options={"state": STATE})
    np.testing.assert_allclose(info["blocks"].ravel(), STATE[2:], atol=1e-9)
    for target in [(176, 400)] * 8 + [(176, 250)] * 10:
        *_, info = env.step(np.float32(target))
    red, green = info["blocks"]
    assert red[:2] == pytest.approx((176, 250 - 39), abs=2)  # the agent touches it: 24 px and 15 px from its centre
    np.testing.assert_allclose(green, STATE[5:])
    for target in [(176, 100)] * 20:
        *_, info = env.step(np.float32(target))
    assert info["blocks"][0, 1] > 5  # the wall holds it


def test_a_snapshot_brings_back_all_that_moves():
    env = BlockPush()
    env.reset(options={"state": STATE})
    for _ in range(8):
        env.step(np.float32((176, 250)))
    memory, image = env.snapshot(), env.render()
    first = [env.step(np.float32((180, 220)))[4]["blocks"] for _ in range(5)][-1]
    env.restore(memory)
    np.testing.assert_array_equal(env.render(), image)
    again = [env.step(np.float32((180, 220)))[4]["blocks"] for _ in range(5)][-1]
    np.testing.assert_allclose(again, first, atol=0.5)


@pytest.mark.parametrize("goal", CLASSES)
def test_a_goal_class_is_met_by_its_block_in_its_square_alone(goal):
    block, square = CLASSES[goal]
    env = envs.make(f"block_push_{goal.replace('-', '').lower()}").unwrapped
    for which in range(2):
        for where in range(2):
            poses = np.array([(256.0, 300.0, 0.0), (256.0, 400.0, 0.0)])
            poses[which, :2] = SQUARES[where] + 25
            env.reset(options={"state": (256, 30, *poses.ravel())})
            _, reward, terminated, _, info = env.step(np.float32((256, 30)))
            met = (which, where) == (block, square)
            assert (reward == 1, terminated, info["success"]) == (met, met, met)
            np.testing.assert_array_equal(np.argwhere(info["reached"]), [[which, where]])
            np.testing.assert_array_equal(info["placed"], [met and block == 0, met and block == 1])


def test_without_a_class_both_blocks_count_and_each_needs_a_square_of_its_own():
    env = BlockPush()
    for where, expected in [((0, 1), 1.0), ((1, 0), 1.0), ((0, 0), 0.5), ((1, 1), 0.5)]:
        aside = np.array([(-24.0, 0.0), (24.0, 0.0)])  # so that two fit into one square
        poses = np.concatenate([SQUARES[list(where)] + aside, np.zeros((2, 1))], axis=1)
        env.reset(options={"state": (256, 400, *poses.ravel())})
        _, reward, terminated, _, info = env.step(np.float32((256, 400)))
        assert reward == pytest.approx(expected, abs=0.01)
        assert (terminated, info["placed"].all()) == (expected == 1, True)


def test_the_goal_of_one_episode_can_be_another():
    env = BlockPush(goal="R-R")
    poses = (*SQUARES[1], 0, 256, 400, 0)
    env.reset(options={"goal": "R-G", "state": (256, 300, *poses)})
    assert env.step(np.float32((256, 300)))[2]
    env.reset(options={"state": (256, 300, *poses)})
    assert not env.step(np.float32((256, 300)))[2]


def test_the_expert_solves_every_start_in_all_four_ways():
    ways = set()
    for seed in range(20):
        rewards, info = play("block_push", seed)
        assert rewards[-1] == 1
        assert len(rewards) < 120
        assert all(0 <= reward <= 1 for reward in rewards)
        expert = BlockPushExpert(seed)
        ways.add((expert.order[0], expert.squares[0]))
        assert all(info["reached"][pair] for pair in zip(expert.order, expert.squares, strict=True))
    assert len(ways) == 4


def test_scattered_episodes_start_anywhere_and_the_expert_solves_most_of_them():
    scattered, plain = BlockPush(scatter=1.0), BlockPush()
    blocks = np.array([scattered.reset(seed=seed)[1]["blocks"] for seed in range(50)])
    assert (blocks[..., 1] < 250).sum() > 20  # above where all others start
    assert np.linalg.norm(blocks[:, 0, :2] - blocks[:, 1, :2], axis=-1).min() > 75
    half = BlockPush(scatter=0.5)
    kept = [np.allclose(half.reset(seed=seed)[1]["blocks"], plain.reset(seed=seed)[1]["blocks"]) for seed in range(50)]
    assert 10 < sum(kept) < 40
    assert sum(play("block_push_scattered", seed)[1]["success"] for seed in range(6)) >= 5


def test_a_careless_expert_needs_longer_and_still_solves_most_starts():
    def steps(careless, seed):
        env = BlockPush(careless=careless)
        env.reset(seed=seed)
        for number, target in enumerate(env.demonstrate(100, seed), start=1):
            if env.step(np.array(target, dtype=np.float32))[2] or number == 200:
                return number

    careful, careless = ([steps(share, seed) for seed in range(10)] for share in (0.0, 1.0))
    assert sum(careless) > 1.05 * sum(careful)
    assert sum(number < 200 for number in careless) >= 8
    assert steps(1.0, 3) == careless[3]


def test_a_careless_expert_thinks_ahead_in_a_copy_and_plays_beside_what_it_meant():
    env = BlockPush()
    env.reset(seed=1)
    before = env.snapshot()
    played = next(BlockPushExpert(1, careless=1.0).targets(env.world))
    assert env.snapshot() == before
    meant = next(BlockPushExpert(1).targets(env.world))
    assert 0.5 < np.hypot(*np.subtract(played, meant)) < 4 * 5  # px: drift begins with 5 px, one standard deviation


def test_a_careless_expert_does_not_look_while_it_plays():
    chunks = []
    for moved in (False, True):
        world = BlockPushWorld()
        world.start(STATE[:2], (STATE[2:5], STATE[5:]))
        targets = BlockPushExpert(1, careless=1.0).targets(world)
        first = next(targets)
        if moved:
            world.start((100, 460), ((300, 200, 0), (420, 360, 0)))
        chunks.append([first, *(next(targets) for _ in range(7))])
    assert chunks[0] == chunks[1]


def test_the_expert_fetches_a_block_again_that_was_pushed_out_of_its_square():
    world, expert = BlockPushWorld(), BlockPushExpert(0)
    (first, second), (square, other) = expert.order, expert.squares
    targets, poses = expert.targets(world), np.zeros((2, 3))
    poses[first, :2], poses[second, :2] = SQUARES[square], SQUARES[other] + (0, 150)

    def fetched():
        """Tell which block the agent is sent to, from the middle of the plane."""
        world.start((256, 300), tuple(map(tuple, poses.tolist())))
        way = np.subtract(next(targets), (256, 300))
        return int(np.argmax((poses[:, :2] - (256, 300)) @ way))

    assert fetched() == second
    poses[first, :2] += (0, 20)  # still in it
    assert fetched() == second
    poses[first, :2] += (0, 60)
    assert fetched() == first


def test_a_target_beyond_the_plane_is_taken_at_its_edge():
    env = BlockPush()
    env.reset(options={"state": STATE})
    for _ in range(40):
        observation, *_ = env.step(np.float32((-300, 460)))
    assert observation["agent"] == pytest.approx((0, 460), abs=1)


def test_only_frames_of_the_history_are_drawn(monkeypatch):
    drawn = []
    monkeypatch.setattr(BlockPush, "render", lambda self: drawn.append(1) or np.zeros((96, 96, 3), np.uint8))
    env = RecedingHorizon(envs.make("block_push"), execute=8, frames=(-8, 0), chunk=16)
    env.reset(seed=0)
    env.step(np.full((16, 2), 256, np.float32))
    assert len(drawn) == 2


def test_errors_tell_the_fix():
    with pytest.raises(ValueError, match="goal is 'R-B', expected one of R-R, R-G, G-R, G-G"):
        BlockPush(goal="R-B")
    with pytest.raises(ValueError, match="scatter is 2, expected a share"):
        BlockPush(scatter=2)
    with pytest.raises(ValueError, match="careless is -1, expected a share"):
        BlockPush(careless=-1)
    with pytest.raises(ValueError, match="goal is 'red', expected one of"):
        BlockPush().reset(options={"goal": "red"})
    with pytest.raises(ValueError, match=r"options \['start'\], expected some of goal, state"):
        BlockPush().reset(options={"start": 0})
    with pytest.raises(ValueError, match="expected 8 finite numbers"):
        BlockPush().reset(options={"state": [1, 2, 3]})
    with pytest.raises(ValueError, match="did you mean 'block_push_rg'"):
        envs.make("block_push_r_g")
