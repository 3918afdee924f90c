"""Reading off pictures of block pushing where everything is, and how much is left of what is asked."""

from __future__ import annotations

from itertools import islice

import numpy as np
import pytest

pytest.importorskip("pymunk")
pytest.importorskip("cv2")

from uva_lightning import envs
from uva_lightning.envs.block_push import CLASSES, BlockPush
from uva_lightning.envs.block_push_draw import draw
from uva_lightning.envs.block_push_expert import BlockPushExpert
from uva_lightning.envs.block_push_goal import BlockPushGoal, places
from uva_lightning.envs.block_push_world import SQUARES
from uva_lightning.policy.imagination import Futures

BLOCKS = np.array([(176.0, 300.0, 0.2), (336.0, 310.0, 1.0)])
AGENT = (256.0, 440.0)


def score(goal, *scenes):
    """Score future scenes, each an agent's place and two poses, after the scene above."""
    past = draw(AGENT, BLOCKS, 96)[None, None]
    future = np.stack([draw(agent, blocks, 96) for agent, blocks in scenes])[:, None, None]
    return BlockPushGoal(goal)({"top": past}, {"top": future})[:, 0]


def moved(block, to):
    poses = BLOCKS.copy()
    poses[block, :2] = to
    return poses


@pytest.mark.parametrize("size", [96, 128])
def test_everything_is_found_in_a_picture(size):
    env = BlockPush(size)
    for seed in range(5):
        observation, info = env.reset(seed=seed)
        found = places(env.render()[None])[0]
        assert found[:2] == pytest.approx(info["blocks"][:, :2], abs=2)
        assert found[2] == pytest.approx(observation["agent"], abs=2)


def test_a_block_on_a_square_is_found_too():
    on_squares = np.concatenate([SQUARES[::-1], np.zeros((2, 1))], axis=1)
    assert places(draw(AGENT, on_squares, 96)[None])[0, :2] == pytest.approx(SQUARES[::-1], abs=2)


def test_a_blurred_picture_shows_the_mean_place():
    two = [draw(AGENT, moved(0, (x, 250)), 96) for x in (150, 190)]
    assert places(np.mean(two, axis=0).astype(np.uint8)[None])[0, 0] == pytest.approx((170, 250), abs=2)


def test_what_is_not_seen_is_where_it_was():
    empty = np.full((1, 96, 96, 3), 255, np.uint8)
    around = np.array([[(100.0, 300.0), (300.0, 300.0), (256.0, 440.0)]])
    np.testing.assert_array_equal(places(empty, around), around)


@pytest.mark.parametrize(("goal", "block", "square"), [("R-R", 0, 0), ("R-G", 0, 1), ("G-R", 1, 0), ("G-G", 1, 1)])
def test_the_asked_block_in_the_asked_square_scores_highest(goal, block, square):
    ways = [(which, where) for which in range(2) for where in range(2)]
    scenes = [(AGENT, moved(which, SQUARES[where])) for which, where in ways]
    found = score(goal, *scenes)
    order = [ways[number] for number in found.argsort()[::-1]]
    assert order[:2] == [
        (block, square),
        (1 - block, 1 - square),
    ]  # then the other block where it leaves the square free
    assert found.max() - np.sort(found)[-2] > 50


def test_the_score_is_the_way_that_is_left():
    near = moved(0, SQUARES[1] + (30, 40))
    left = np.linalg.norm(BLOCKS[1, :2] - SQUARES[0])
    assert score("R-G", (AGENT, near))[0] == pytest.approx(-50 - left / 2, abs=4)
    assert score("R-G", ((400.0, 200.0), near))[0] == pytest.approx(-50 - left / 2, abs=4)  # wherever the agent is


def test_frames_and_observations_are_kept_apart():
    goal, other = BlockPushGoal("G-G"), BLOCKS + (20, 10, 0)
    past = np.stack([draw(AGENT, blocks, 96)[None] for blocks in (BLOCKS, other)])
    future = np.stack([[[draw(AGENT, blocks - (0, 15 * k, 0), 96)] for blocks in (BLOCKS, other)] for k in range(3)])
    together = goal({"top": past}, {"top": future})
    assert together.shape == (3, 2)
    for sample in range(2):
        alone = goal({"top": past[[sample]]}, {"top": future[:, [sample]]})
        assert alone[:, 0] == pytest.approx(together[:, sample])
    assert (np.diff(together, axis=0) > 5).all()


@pytest.mark.parametrize("goal", CLASSES)
def test_of_true_futures_the_one_that_does_what_is_asked_wins(goal):
    """The expert goes on for 45 steps in each of its four ways; the reward must prefer the asked one."""
    env = BlockPush()
    env.reset(seed=11)
    start, past, shown, ways = env.snapshot(), env.render(), [], []
    for seed in range(40):
        expert = BlockPushExpert(seed)
        if (way := (expert.order[0], expert.squares[0])) not in ways:
            env.restore(start)
            for target in islice(expert.targets(env.world), 45):
                env.step(np.float32(target))
            ways.append(way)
            shown.append(env.render())
    found = BlockPushGoal(goal)({"top": past[None, None]}, Futures({"top": np.stack(shown)[:, None, None]}))
    assert len(ways) == 4
    assert ways[int(found[:, 0].argmax())] == CLASSES[goal]


def test_every_class_has_its_score_and_the_free_task_none():
    assert envs.goal_score("block_push_gr").weights.argmax() == 1
    with pytest.raises(ValueError, match="block_push.*no fixed goal"):
        envs.goal_score("block_push")
    with pytest.raises(ValueError, match="goal is 'G', expected one of R-R"):
        BlockPushGoal("G")
