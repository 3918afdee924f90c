"""Reading off pictures where the block is, and how far from the goal."""

import numpy as np
import pytest

from uva_lightning.envs.pusht_draw import draw
from uva_lightning.envs.pusht_goal import PushTGoal
from uva_lightning.envs.pusht_pose import BlockPose
from uva_lightning.envs.pusht_world import GOAL, OUTLINE, place

AGENT = (60.0, 450.0)


def picture(pose, agent=AGENT, size=96):
    return draw(agent, pose, GOAL, size)


def distance(pose):
    return np.linalg.norm(place(OUTLINE, pose) - place(OUTLINE, GOAL), axis=-1).mean()


def score(start, futures, **options):
    past = picture(start, size=futures[0].shape[0])[None, None]
    return -PushTGoal(**options)({"top": past}, {"top": np.stack(futures)[:, None, None]})[:, 0]


@pytest.mark.parametrize("start", [(150.0, 300.0, 1.0), (330.0, 200.0, 4.0), (380.0, 330.0, 6.1)])
@pytest.mark.parametrize("size", [96, 128])
def test_the_score_is_the_distance_of_the_corners(start, size):
    x, y, angle = start
    poses = [start, (x + 30, y, angle), (x, y - 25, angle + 0.3), (x - 20, y + 20, angle - 0.2)]
    found = score(start, [picture(pose, size=size) for pose in poses], near=0.0)
    assert found == pytest.approx([distance(pose) for pose in poses], abs=6)


def test_the_wrong_way_round_is_far_though_it_covers_half_the_goal():
    turned = (GOAL[0] - 20, GOAL[1] + 20, GOAL[2] + np.pi / 2)
    assert score(turned, [picture(turned)])[0] == pytest.approx(distance(turned), abs=6)


def test_the_agent_moves_without_changing_the_distance():
    start = (150.0, 300.0, 1.0)
    found = score(start, [picture(start, agent) for agent in (AGENT, (400.0, 100.0), (256.0, 256.0))])
    assert np.ptp(found) < 1.0


def test_close_enough_is_all_the_same():
    start = (250.0, 250.0, GOAL[2] + 0.1)
    assert score(start, [picture(start), picture(GOAL)], near=60.0) == pytest.approx([60.0, 60.0], abs=0.5)
    near, there = score(start, [picture(start), picture(GOAL)], near=0.0)
    assert there < near


def test_a_blurred_future_lies_between_what_may_happen():
    start = (150.0, 300.0, 1.0)
    sharp = [picture((150.0 + 25 * side, 300.0, 1.0)) for side in (-1, 1)]
    far, near, blurred = score(start, [*sharp, np.mean(sharp, axis=0).astype(np.uint8)])
    assert near + 3 < blurred < far - 3


def test_frames_and_observations_are_kept_apart():
    goal = PushTGoal(near=0.0)
    starts = [(150.0, 300.0, 1.0), (330.0, 200.0, 4.0)]
    moved = [[(x + 10 * k, y, a) for x, y, a in starts] for k in range(3)]
    past = np.stack([[picture(pose)] for pose in starts])
    future = np.stack(
        [[[picture(pose), picture(start)] for pose, start in zip(row, starts, strict=True)] for row in moved]
    )
    together = goal({"top": past}, {"top": future})
    assert together.shape == (3, 2)
    for sample in range(2):
        alone = goal({"top": past[[sample]]}, {"top": future[:, [sample]]})
        assert alone[:, 0] == pytest.approx(together[:, sample], abs=1e-3)
    last = goal({"top": past}, {"top": future[:, :, :1]})
    still = goal({"top": past}, {"top": future[:, :, 1:]})
    assert together == pytest.approx((last + still) / 2, abs=1e-3)


def test_the_pose_is_found_to_within_a_cell():
    poses = [(150.0, 300.0, 1.0), (330.0, 200.0, 4.0), (256.0, 100.0, 0.2)]
    finder = BlockPose()
    turn, row, column = finder.find(np.stack([picture(pose) for pose in poses])).numpy()
    middles = np.array([place(np.array([[0.0, 45.0]]), pose)[0] for pose in poses])
    assert (column + 0.5) * finder.cell == pytest.approx(middles[:, 0], abs=finder.cell)
    assert (row + 0.5) * finder.cell == pytest.approx(middles[:, 1], abs=finder.cell)
    assert turn * 2 * np.pi / 48 == pytest.approx([pose[2] for pose in poses], abs=0.15)


def test_a_negative_distance_is_refused():
    with pytest.raises(ValueError, match="near is -1"):
        PushTGoal(near=-1.0)
