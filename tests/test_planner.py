"""Planning: the best proposal is the one whose imagined future scores highest."""

import numpy as np
import pytest

from uva_lightning.envs import goal_score
from uva_lightning.envs.pusht_draw import draw
from uva_lightning.envs.pusht_goal import POWER, PushTGoal
from uva_lightning.envs.pusht_world import GOAL
from uva_lightning.policy.planner import Planner
from uva_lightning.policy.policy import UVAPolicy


@pytest.fixture(scope="module")
def module(tiny_data, tiny_module):
    data = tiny_data()
    data.setup("fit")
    module, numbers = tiny_module(data.spec), data.training_numbers()
    module.tokenizer.fit(data.training_frames())
    module.actions.fit(numbers.action, numbers.state)
    module.proprioception.fit(numbers)
    return module.eval()


def observation(samples):
    rng = np.random.default_rng(0)
    video = {"top": rng.integers(0, 256, (samples, 2, 96, 96, 3), dtype=np.uint8)}
    return {"video": video, "state": {"agent": rng.uniform(0, 512, (samples, 2, 2)).astype(np.float32)}}


def test_the_best_proposal_is_taken(module):
    proposals, samples = 5, 3
    policy = UVAPolicy(module, seed=1)
    wanted = np.array([4, 0, 2])

    def score(frames):
        assert frames["top"].shape == (samples * proposals, 2, 96, 96, 3)
        return np.eye(proposals)[wanted].T.flatten()

    seen = observation(samples)
    planned = policy.plan(seen, score, proposals)
    policy.reset(1)
    first = policy.act(seen)
    assert planned[1] == pytest.approx(first[1], abs=1e-3)
    assert not np.allclose(planned[[0, 2]], first[[0, 2]], atol=1.0)


def test_a_lead_below_the_margin_keeps_the_policys_first_proposal(module):
    policy = UVAPolicy(module, seed=1)
    planner = Planner(policy, lambda frames: np.repeat([0.0, 0.05, 0.09, 0.07], 2), proposals=4)
    planner.reset(1)
    seen = observation(2)
    planned = planner.act(seen)
    policy.reset(1)
    assert planned == pytest.approx(policy.act(seen), abs=1e-3)


def test_no_proposal_is_refused(module):
    with pytest.raises(ValueError, match="proposals is 0"):
        Planner(UVAPolicy(module), lambda frames: np.zeros(1), proposals=0)


def test_the_goal_score_follows_the_coverage():
    agent = (50.0, 50.0)
    poses = [(100.0, 100.0, 0.0), (270.0, 256.0, GOAL[2]), GOAL]
    frames = np.stack([draw(agent, pose, GOAL, 96) for pose in poses])[:, None]
    far, near, done = PushTGoal()({"top": frames})
    assert far < 0.01 < near < done
    assert done > 0.9


def test_the_agent_on_the_goal_is_no_block():
    frames = np.stack([draw((256.0, 256.0), (100.0, 100.0, 0.0), GOAL, 96)])[:, None]
    assert PushTGoal()({"top": frames})[0] < 0.1


def test_imagined_frames_count_alike():
    away, there = draw((50.0, 50.0), (100.0, 100.0, 0.0), GOAL, 96), draw((50.0, 50.0), GOAL, GOAL, 96)
    assert PushTGoal()({"top": np.stack([[there, away]])})[0] == pytest.approx(0.5**POWER, abs=0.01)


def test_a_blurred_future_scores_the_mean_of_what_may_happen():
    sharp = [draw((50.0, 50.0), pose, GOAL, 96) for pose in ((200.0, 230.0, 0.3), (260.0, 250.0, GOAL[2]))]
    blurred = np.mean(sharp, axis=0).astype(np.uint8)
    covered = PushTGoal()({"top": np.stack([*sharp, blurred])[:, None]}) ** (1 / POWER)
    assert covered[2] == pytest.approx(covered[:2].mean(), abs=0.02)


def test_an_environment_without_a_fixed_goal_has_no_score():
    with pytest.raises(ValueError, match="pusht_m"):
        goal_score("pusht_m")
