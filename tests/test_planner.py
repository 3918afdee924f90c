"""Planning: the best proposal is the one whose imagined future scores highest."""

import numpy as np
import pytest

from uva_lightning.envs import goal_score
from uva_lightning.envs.pusht_draw import draw
from uva_lightning.envs.pusht_goal import PushTGoal
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
    module.states["agent"].fit(numbers.state["agent"].flatten(0, 1))
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
        return np.eye(proposals)[wanted].flatten()

    seen = observation(samples)
    planned = policy.plan(seen, score, proposals)
    policy.reset(1)
    repeated = {k: {n: np.repeat(v, proposals, axis=0) for n, v in e.items()} for k, e in seen.items()}
    chunks = policy.act(repeated).reshape(samples, proposals, 16, 2)
    assert planned == pytest.approx(chunks[np.arange(samples), wanted], abs=1e-3)


def test_ties_keep_the_policys_first_proposal(module):
    policy = UVAPolicy(module, seed=1)
    planner = Planner(policy, lambda frames: np.zeros(len(frames["top"])), proposals=4)
    planner.reset(1)
    seen = observation(2)
    planned = planner.act(seen)
    policy.reset(1)
    repeated = {k: {n: np.repeat(v, 4, axis=0) for n, v in e.items()} for k, e in seen.items()}
    assert planned == pytest.approx(policy.act(repeated)[::4], abs=1e-3)


def test_no_proposal_is_refused(module):
    with pytest.raises(ValueError, match="proposals is 0"):
        Planner(UVAPolicy(module), lambda frames: np.zeros(1), proposals=0)


def test_the_goal_score_follows_the_coverage():
    agent = (50.0, 50.0)
    poses = [(100.0, 100.0, 0.0), (270.0, 256.0, GOAL[2]), GOAL]
    frames = np.stack([draw(agent, pose, GOAL, 96) for pose in poses])[:, None]
    far, near, done = PushTGoal()({"top": frames})
    assert far < 0.1 < near < done
    assert done > 0.9


def test_the_agent_on_the_goal_is_no_block():
    frames = np.stack([draw((256.0, 256.0), (100.0, 100.0, 0.0), GOAL, 96)])[:, None]
    assert PushTGoal()({"top": frames})[0] < 0.1


def test_the_best_imagined_frame_counts():
    away, there = draw((50.0, 50.0), (100.0, 100.0, 0.0), GOAL, 96), draw((50.0, 50.0), GOAL, GOAL, 96)
    assert PushTGoal()({"top": np.stack([[there, away]])})[0] > 0.9


def test_an_environment_without_a_fixed_goal_has_no_score():
    with pytest.raises(ValueError, match="pusht_m"):
        goal_score("pusht_m")
