"""Planning: the best proposal is the one whose imagined future scores highest."""

import numpy as np
import pytest

from uva_lightning.envs import goal_score
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
    wanted = np.array([4, 0, 1])

    def score(past, frames):
        assert past["top"].shape == (samples, 2, 96, 96, 3)
        assert frames["top"].shape == (proposals, samples, 2, 96, 96, 3)
        return 9 * np.eye(proposals)[:, wanted]

    seen = observation(samples)
    planned = policy.plan(seen, score, proposals)
    policy.reset(1)
    guess = policy.act(seen, temperature=0.0)
    policy.reset(1)
    drawn = policy.act(seen)
    assert planned[1] == pytest.approx(guess[1], abs=1e-3)
    assert planned[2] == pytest.approx(drawn[2], abs=1e-3)  # the second proposal is what the policy would do
    assert not np.allclose(planned[0], guess[0], atol=1.0)


@pytest.mark.parametrize(("options", "temperature"), [({}, 0.0), ({"temperature": None, "margin": 6.5}, None)])
def test_a_lead_below_the_margin_keeps_the_first_proposal(module, options, temperature):
    policy = UVAPolicy(module, seed=1)
    planner = Planner(policy, lambda past, frames: np.array([[0.0, 0.5, 5.9, 0.7]] * 2).T, 4, **options)
    planner.reset(1)
    seen = observation(2)
    planned = planner.act(seen)
    policy.reset(1)
    assert planned == pytest.approx(policy.act(seen, temperature), abs=1e-3)


def test_one_proposal_is_the_policys_best_guess(module):
    policy = UVAPolicy(module, seed=1)
    seen = observation(2)
    planned = policy.plan(seen, lambda past, frames: np.zeros((1, 2)), proposals=1)
    assert planned == pytest.approx(policy.act(seen, 0.0), abs=1e-3)


def test_no_proposal_is_refused(module):
    with pytest.raises(ValueError, match="proposals is 0"):
        Planner(UVAPolicy(module), lambda past, frames: np.zeros((1, 1)), proposals=0)


def test_an_environment_without_a_fixed_goal_has_no_score():
    with pytest.raises(ValueError, match="pusht_m"):
        goal_score("pusht_m")
