"""Reading off pictures of block pushing where everything is, and how much is left of what is asked."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("pymunk")
pytest.importorskip("cv2")

from uva_lightning import envs
from uva_lightning.envs.block_push import BlockPush
from uva_lightning.envs.block_push_draw import draw
from uva_lightning.envs.block_push_goal import BlockPushGoal, places
from uva_lightning.envs.block_push_world import SQUARES

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
    assert ways[int(found.argmax())] == (block, square)
    assert found.max() - np.sort(found)[-2] > 100
    assert found.max() == pytest.approx(0, abs=3)


def test_nearer_is_better_and_so_is_an_agent_that_stands_right():
    halfway = (BLOCKS[0, :2] + SQUARES[0]) / 2
    assert np.diff(score("R-R", (AGENT, BLOCKS), (AGENT, moved(0, halfway))))[0] > 50
    way = (SQUARES[0] - BLOCKS[0, :2]) / np.linalg.norm(SQUARES[0] - BLOCKS[0, :2])
    behind, before = BLOCKS[0, :2] - 50 * way, BLOCKS[0, :2] + 50 * way
    assert np.diff(score("R-R", (tuple(before), BLOCKS), (tuple(behind), BLOCKS)))[0] > 20


def test_every_class_has_its_score_and_the_free_task_none():
    assert envs.goal_score("block_push_gr").block == 1
    with pytest.raises(ValueError, match="block_push.*no fixed goal"):
        envs.goal_score("block_push")
    with pytest.raises(ValueError, match="goal is 'G', expected one of R-R"):
        BlockPushGoal("G")
