"""Random numbers by sample: a function of seed, step, place and purpose, and of nothing else."""

from __future__ import annotations

import itertools
from abc import ABC

import pytest
import torch

from uva_lightning.draws import Draws, SampleGenerator, mixed, seeded, uniform_by_sample
from uva_lightning.objectives.video_model import VideoModel
from uva_lightning.sampler import Plan
from uva_lightning.types import Tokens


def test_equal_numbers_give_equal_draws_and_others_do_not():
    assert torch.rand(4, generator=seeded(1, 2)).equal(torch.rand(4, generator=seeded(1, 2)))
    draws = {
        tuple(torch.rand(2, generator=seeded(*n)).tolist()) for n in [(1, 2), (2, 1), (1,), (12,), (1, 2, 0), (-1,)]
    }
    assert len(draws) == 6


def test_many_seeds_are_mixed_as_one():
    places = torch.arange(5).numpy()
    assert mixed(3, places, 7).tolist() == [int(mixed(3, int(place), 7)) for place in places]


def test_seed_step_place_and_purpose_each_change_what_is_drawn():
    drawn = [
        Draws(seed, step, torch.tensor([place])).normal(purpose, 4)
        for seed, step, place, purpose in itertools.product((0, 1), (0, 1), (0, 1), ("a", "b"))
    ]
    assert len({tuple(values.flatten().tolist()) for values in drawn}) == 16


@pytest.mark.parametrize("name", ["normal", "uniform"])
def test_a_sample_draws_the_same_wherever_it_is(name):
    whole = getattr(Draws(1, 2, torch.arange(8)), name)("noise", 3, 5)
    assert whole.shape == (8, 3, 5)
    part = torch.tensor([6, 1])
    assert getattr(Draws(1, 2, torch.arange(8)).rows(part), name)("noise", 3, 5).equal(whole[part])
    assert getattr(Draws(1, 2, torch.tensor([4, 5])), name)("noise", 3, 5).equal(whole[4:6])
    assert getattr(Draws(1, 2, torch.arange(0)), name)("noise", 3, 5).shape == (0, 3, 5)


def test_the_numbers_have_their_distribution():
    draws = Draws(0, 0, torch.arange(2000))
    normal, uniform = draws.normal("a", 8), draws.uniform("a", 8)
    assert float(normal.mean()) == pytest.approx(0, abs=0.03)
    assert float(normal.std()) == pytest.approx(1, abs=0.03)
    assert float(uniform.mean()) == pytest.approx(0.5, abs=0.01)
    assert 0 <= float(uniform.min()) < float(uniform.max()) < 1
    assert abs(float(torch.corrcoef(normal.T)[0, 1])) < 0.1
    assert abs(float((normal[1:] * normal[:-1]).mean())) < 0.03, "neighbours have nothing in common"


def test_a_generator_of_all_samples_gives_each_its_own_numbers():
    draws = Draws(0, 3, torch.arange(6))
    rng = SampleGenerator.of(draws, "mask")
    before = rng.get_state()
    drawn = uniform_by_sample(rng, 6, 4)
    assert rng.get_state().equal(before), "so that it shows when something else is drawn"
    each = [uniform_by_sample(draws.generator(row, "mask"), 1, 4) for row in range(6)]
    assert drawn.equal(torch.cat(each))
    again = uniform_by_sample(rng, 6, 4)
    assert len(torch.cat([drawn, again]).unique()) == 2 * drawn.numel(), "a second call gives others"


# -- masks ------------------------------------------------------------------------------------------------------------


class Coin(VideoModel, ABC):  # a base class is not registered
    """An objective that takes numbers from its generator by itself."""

    def visible(self, tokens, rng):
        seen = super().visible(tokens, rng)
        seen.video[:, -1] = (torch.rand(tokens.batch_size, generator=rng) < 0.5)[:, None]
        return seen


@pytest.mark.parametrize("objective", [VideoModel(mask_ratio_min=0.1), Coin()], ids=["helper", "own"])
def test_what_a_sample_sees_does_not_depend_on_who_else_is_in_the_batch(objective):
    tokens = Tokens({name: torch.zeros(12, 2, 64, 1) for name in ("past_video", "video")})

    def shown(step, first, last):
        rows = slice(first, last)
        plan = Plan(torch.arange(last - first), {"it": slice(0, last - first)}, {"it": objective})
        return plan.visible(tokens.rows(rows), Draws(0, step, torch.arange(12)).rows(rows)).video

    whole = shown(0, 0, 12)
    assert whole.equal(shown(0, 0, 12))
    assert not whole.equal(shown(1, 0, 12))
    assert shown(0, 4, 9).equal(whole[4:9])
    assert len({tuple(mask.flatten().tolist()) for mask in whole}) == 12
    if isinstance(objective, Coin):
        assert 2 < whole[:, -1].all(dim=1).sum() < 10
