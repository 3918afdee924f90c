"""Proposals and the search around them."""

from __future__ import annotations

import numpy as np
import pytest
from fitted_models import fitted

from uva_lightning.policy.proposals import FromPolicy, Given, OwnSamples
from uva_lightning.policy.search import CrossEntropy, PathIntegral
from uva_lightning.policy.windows import WindowPolicy

CHUNK, TARGET = (16, 2), np.array([[100.0, 400.0], [250.0, 50.0]])  # px, by observation


@pytest.fixture(scope="module")
def policy(tiny_data, tiny_module):
    return WindowPolicy(fitted(tiny_data(), tiny_module), 3)


def observation(samples=2):
    rng = np.random.default_rng(0)
    video = {"top": rng.integers(0, 256, (samples, 2, 96, 96, 3), dtype=np.uint8)}
    return {"video": video, "state": {"agent": rng.uniform(0, 512, (samples, 2, 2)).astype(np.float32)}}


def start(count=12):
    """Straight ways from the middle of the plane, f32[k, b, h, a]: all proposals lie in a space of two dimensions."""
    ends = np.random.default_rng(2).uniform(0, 512, (count, 2, 1, 2))
    return (256 + np.linspace(0, 1, 16)[:, None] * (ends - 256)).astype(np.float32)


def nearness(actions):
    return -np.linalg.norm(actions[:, :, -1] - TARGET[: actions.shape[1]], axis=-1).astype(np.float64)


def rngs(*seeds):
    return [np.random.default_rng(seed) for seed in seeds]


SEARCHES = {
    "cross entropy": lambda: CrossEntropy(Given(start()), count=32, rounds=4, elites=6),
    "path integral": lambda: PathIntegral(Given(start()), count=32, rounds=4, temperature=0.1),
}


@pytest.mark.parametrize("name", SEARCHES)
def test_a_search_comes_nearer_than_the_best_proposal(policy, name):
    best = nearness(start()).max(axis=0)
    actions, scores = SEARCHES[name]().search(policy, observation(), nearness, rngs(1, 2))
    chosen = actions[scores.argmax(axis=0), range(2)]
    found = nearness(chosen[None])[0]
    assert (found > 0.6 * best).all(), (found, best)
    assert chosen.dtype == np.float32


@pytest.mark.parametrize("name", SEARCHES)
def test_what_is_drawn_keeps_the_shape_of_the_proposals(policy, name):
    actions, _ = SEARCHES[name]().search(policy, observation(), nearness, rngs(1, 2))
    way = actions - 256
    assert way == pytest.approx(way[:, :, -1:] * np.linspace(0, 1, 16)[:, None], abs=1e-2)


@pytest.mark.parametrize("name", SEARCHES)
def test_an_observation_alone_is_searched_as_among_others(policy, name):
    together, _ = SEARCHES[name]().search(policy, observation(), nearness, rngs(1, 2))
    search = SEARCHES[name]()
    search.start = Given(start()[:, :1])
    alone, _ = search.search(policy, observation(1), nearness, rngs(1))
    assert alone[:, 0] == pytest.approx(together[:, 0], abs=1e-2)


def test_the_best_ones_of_a_round_are_kept(policy):
    judged = []

    def judge(actions):
        judged.append(actions)
        return nearness(actions)

    search = CrossEntropy(Given(start()), count=5, rounds=1, elites=3)
    actions, scores = search.search(policy, observation(), judge, rngs(1, 2))
    assert [len(actions) for actions in judged] == [12, 5]  # nothing is judged twice
    order = np.argsort(-nearness(start())[:, 0])
    assert actions[:3, 0] == pytest.approx(start()[order[:3], 0])
    assert scores == pytest.approx(nearness(actions))


def test_equal_scores_give_the_plain_mean(policy):
    search = PathIntegral(Given(start()), count=2, rounds=1, spread=1e-9)
    actions, _ = search.search(policy, observation(), lambda actions: np.zeros(actions.shape[:2]), rngs(1, 2))
    assert actions[0] == pytest.approx(start().mean(axis=0), abs=1e-2)


def test_own_samples_are_what_the_policy_does(policy):
    seen = policy.prepare({**observation(), "episode": {"seed": [4, 5], "call": [1, 1]}})
    samples, _ = OwnSamples(3).search(policy, seen, nearness, rngs(1, 2))
    assert samples.shape == (3, 2, *CHUNK)
    assert samples[0] == pytest.approx(policy.act(seen), abs=1e-2)
    assert not np.allclose(samples[0], samples[1], atol=1.0)


def test_another_policy_is_asked_for_each_proposal(policy):
    asked = []

    def act(seen):
        asked.append(set(seen))
        return np.full((2, *CHUNK), len(asked))

    actions, _ = FromPolicy(act, 3).search(policy, policy.prepare(observation()), nearness, rngs(1, 2))
    assert actions[:, 0, 0, 0].tolist() == [1, 2, 3]
    assert asked == [{"video", "state", "episode"}] * 3  # latents say nothing to another model


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: OwnSamples(0), "count is 0 proposals"),
        (lambda: CrossEntropy(rounds=0), "rounds is 0"),
        (lambda: CrossEntropy(elites=1), "elites is 1"),
        (lambda: PathIntegral(temperature=0.0), "temperature is 0"),
        (lambda: PathIntegral(spread=-1.0), "spread is -1"),
    ],
)
def test_impossible_numbers_are_refused(make, words):
    with pytest.raises(ValueError, match=words):
        make()


def test_proposals_of_another_shape_are_refused(policy):
    with pytest.raises(ValueError, match=r"FromPolicy gave proposals of shape \[2, 2, 8, 2\]"):
        FromPolicy(lambda seen: np.zeros((2, 8, 2)), 2).search(policy, observation(), nearness, rngs(1, 2))
    with pytest.raises(ValueError, match="elites is 4 of 3 proposals"):
        CrossEntropy(Given(start(3))).search(policy, observation(), nearness, rngs(1, 2))
