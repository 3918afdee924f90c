"""UVA's decay groups and the cosine with warm-up, against numbers of the official code."""

from __future__ import annotations

import pytest
import torch
from diffusers.optimization import get_cosine_schedule_with_warmup
from torch import nn

from uva_lightning.optim import AdamWCosine

# Learning rates of the official code: base 1e-4, 1,000 steps of warm-up, 100,000 steps in all.
OFFICIAL = {
    0: 0.0,
    1: 1.0000000000000001e-07,
    10: 1.0000000000000002e-06,
    500: 5e-05,
    999: 9.99e-05,
    1000: 0.0001,
    1001: 9.9999999974825e-05,
    5000: 9.959774064153977e-05,
    25000: 8.618670190525352e-05,
    50000: 5.0793298191740404e-05,
    75000: 1.4926255614683932e-05,
    99999: 2.5174995421650693e-14,
    100000: 0.0,
}


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3, 2)
        self.norm = nn.LayerNorm(2)
        self.table = nn.Parameter(torch.zeros(1, 4, 1, 2))
        self.frozen = nn.Parameter(torch.zeros(2, 2), requires_grad=False)


def rate(schedule, step):
    return schedule.base_lrs[0] * schedule.lr_lambdas[0](step)


def test_biases_and_norms_are_not_decayed_and_tables_are():
    model = Model()
    optimizer, _ = AdamWCosine(weight_decay=0.02).build(model, 100)
    kept, decayed = ({id(p) for p in group["params"]} for group in optimizer.param_groups)
    assert kept == {id(model.linear.bias), id(model.norm.weight), id(model.norm.bias)}
    assert decayed == {id(model.linear.weight), id(model.table)}
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.0, 0.02]


def test_the_rates_are_those_of_the_official_code():
    _, schedule = AdamWCosine(lr=1e-4, warmup_steps=1000).build(Model(), 100_000)
    for step, expected in OFFICIAL.items():
        assert rate(schedule, step) == pytest.approx(expected, rel=1e-9, abs=1e-18), step


def test_the_rates_are_those_of_diffusers_at_every_step():
    model = Model()
    _, ours = AdamWCosine(lr=1e-3, warmup_steps=7).build(model, 50)
    theirs = get_cosine_schedule_with_warmup(torch.optim.SGD(model.parameters(), lr=1e-3), 7, 50)
    for step in range(51):
        assert rate(ours, step) == pytest.approx(1e-3 * theirs.lr_lambdas[0](step), rel=1e-12, abs=1e-15)


def test_stepping_the_schedule_sets_the_rate_of_both_groups():
    optimizer, schedule = AdamWCosine(lr=1.0, warmup_steps=4).build(Model(), 100)
    for expected in (0.0, 0.25, 0.5, 0.75, 1.0):
        assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([expected] * 2)
        optimizer.step()
        schedule.step()


def test_a_share_of_the_rate_is_left_at_the_end_and_after_it():
    _, schedule = AdamWCosine(lr=1.0, warmup_steps=2, final=0.1).build(Model(), 10)
    assert rate(schedule, 10) == pytest.approx(0.1)
    assert rate(schedule, 1000) == pytest.approx(0.1)


def test_a_short_run_is_warmed_up_for_at_most_half_of_it():
    _, schedule = AdamWCosine(lr=1.0, warmup_steps=1000).build(Model(), 4)
    assert [rate(schedule, step) for step in range(3)] == pytest.approx([0.0, 0.5, 1.0])
    _, single = AdamWCosine(lr=1.0, warmup_steps=1000).build(Model(), 1)
    assert rate(single, 0) == 1.0


def test_the_length_of_the_schedule_may_differ_from_that_of_the_run():
    _, schedule = AdamWCosine(lr=1.0, warmup_steps=0, total_steps=10).build(Model(), float("inf"))
    assert rate(schedule, 5) == pytest.approx(0.5)


def test_an_endless_run_is_refused():
    with pytest.raises(ValueError, match=r"set trainer\.max_steps"):
        AdamWCosine().build(Model(), float("inf"))


def test_a_rate_that_is_not_positive_is_refused():
    with pytest.raises(ValueError, match="lr is 0"):
        AdamWCosine(lr=0)
