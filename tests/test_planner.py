"""Planning: the best proposal is the one whose imagined future scores highest."""

import math

import numpy as np
import pytest
import torch

from uva_lightning.envs import goal_score
from uva_lightning.model.fitted import fit_together
from uva_lightning.policy.planner import Planner
from uva_lightning.policy.windows import WindowPolicy


@pytest.fixture(scope="module")
def module(tiny_data, tiny_module):
    data = tiny_data()
    data.setup("fit")
    module = tiny_module(data.spec)
    module.tokenizer.fit(data.training_frames())
    fit_together([module.actions, module.proprioception], data.training_numbers())
    return module.eval()


def observation(samples):
    rng = np.random.default_rng(0)
    video = {"top": rng.integers(0, 256, (samples, 2, 96, 96, 3), dtype=np.uint8)}
    return {"video": video, "state": {"agent": rng.uniform(0, 512, (samples, 2, 2)).astype(np.float32)}}


def proposals_of(policy, seen, count):
    """All proposals of one decision, f32[k, b, h, a]: each is taken when it alone is promising."""
    made = []
    for number in range(count):
        planner = Planner(policy, lambda _, f, k=number: 99.0 * np.eye(count)[:, [k] * f["top"].shape[1]], count)
        planner.reset(1)
        made.append(planner.act(seen))
    return np.stack(made)


def test_the_best_proposal_is_taken(module):
    proposals, samples = 5, 3
    policy, seen = WindowPolicy(module, seed=1), observation(3)
    every = proposals_of(policy, seen, proposals)
    wanted = np.array([4, 0, 1])

    def score(past, frames):
        assert past["top"].shape == (samples, 2, 96, 96, 3)
        assert frames["top"].shape == (proposals, samples, 2, 96, 96, 3)
        return 9 * np.eye(proposals)[:, wanted]

    planner = Planner(policy, score, proposals)
    planner.reset(1)
    assert planner.act(seen) == pytest.approx(every[wanted, range(samples)], abs=1e-3)
    assert len({tuple(np.round(chunk[0], 2)) for chunk in every[:, 0]}) == proposals


def test_the_first_proposal_is_what_the_policy_would_do(module):
    policy, seen = WindowPolicy(module, seed=1), observation(2)
    every = proposals_of(policy, seen, 3)
    policy.reset(1)
    assert every[0] == pytest.approx(policy.act(seen), abs=1e-3)


@pytest.mark.parametrize("options", [{"margin": 6.0}, {"margin": math.inf}])
def test_a_lead_below_the_margin_keeps_the_most_typical_proposal(module, options):
    count, seen = 6, observation(2)
    policy = WindowPolicy(module, seed=1)
    every = proposals_of(policy, seen, count)
    encoded = module.actions.encode(torch.from_numpy(every), {}).flatten(2).numpy()
    distance = np.linalg.norm(encoded[:, None] - encoded[None], axis=-1).sum(axis=0)  # f64[k, b]
    typical = every[distance.argmin(axis=0), range(2)]
    lead = np.linspace(0, 5.9, count)
    planner = Planner(policy, lambda past, frames: np.stack([lead, lead[::-1]], axis=1), count, **options)
    planner.reset(1)
    assert planner.act(seen) == pytest.approx(typical, abs=1e-3)


def test_no_proposal_is_refused(module):
    with pytest.raises(ValueError, match="count is 0 proposals"):
        Planner(WindowPolicy(module), lambda past, frames: np.zeros((1, 1)), proposals=0)


def test_an_environment_without_a_fixed_goal_has_no_score():
    with pytest.raises(ValueError, match="pusht_m"):
        goal_score("pusht_m")
