"""Balancers that go by the values of the losses."""

from __future__ import annotations

import math

import pytest
import torch
from balanced import KEYS, factors, latent, objectives, plan, terms

from uva_lightning.balancers.dwa import DWA
from uva_lightning.balancers.famo import FAMO
from uva_lightning.balancers.loss_scale import LossScale
from uva_lightning.balancers.uncertainty_weighting import UncertaintyWeighting

FALLS = [(4.0, 2.0, 8.0, 1.0), (2.0, 2.0, 6.0, 0.9), (1.0, 2.5, 5.0, 0.8), (0.9, 2.0, 5.5, 0.1)]


def run(balancer, losses, step_plan=None):
    """Factors of the last of several steps."""
    for values in losses:
        last = factors(balancer, step_plan or plan(), terms(*values))
    return last


# -- LossScale --------------------------------------------------------------------------------------------------------


def test_scaled_losses_count_alike_whatever_their_units():
    loss = LossScale()(plan(), terms(1e-4, 1.0, 50.0, 1e6), latent())
    assert loss.item() == pytest.approx(1 / 8 + 2 * 3 / 8 + 4 / 8)


def test_the_scale_is_a_running_mean():
    last = run(LossScale(decay=0.75), [(4.0, 1, 1, 1), (8.0, 1, 1, 1), (0.5, 1, 1, 1)])
    assert last[KEYS[0]] == pytest.approx(1 / (0.75 * (0.75 * 4 + 0.25 * 8) + 0.25 * 0.5))


def test_a_loss_of_zero_does_not_divide_by_zero():
    scale = LossScale()
    assert scale(plan(), terms(0.0, 0.0, 0.0, 0.0), latent()) == 0
    assert factors(scale, plan(), terms(5.0, 0.0, 5.0, 5.0))["video", "video"] == pytest.approx(1 / 5)  # a first value


def test_gradients_pass_through_the_balance_but_not_through_the_scale():
    step = terms(2.0, 4.0, 8.0, 16.0)
    LossScale()(plan(), step, latent()).backward()
    assert float(step["inverse", "action"].loss.grad) == pytest.approx(4 / 8 / 16)


def test_a_decay_out_of_range_is_refused():
    with pytest.raises(ValueError, match=r"decay is 1\.0, expected a number in \[0, 1\)"):
        LossScale(decay=1.0)


# -- DWA --------------------------------------------------------------------------------------------------------------


def test_dwa_is_the_formula_of_the_paper():
    balancer = DWA(every=2, temperature=2.0)
    doubled = [(0.5 * a, 0.5 * b, 0.5 * c, 0.5 * d) for a, b, c, d in FALLS]
    for first, second in zip(FALLS, doubled, strict=True):  # interval means are 0.75 times FALLS
        for values in (first, second):
            shown = factors(balancer, plan(), terms(*values))
        if first is FALLS[1]:
            assert shown == dict.fromkeys(KEYS, 1.0)  # two intervals are not over yet
    ratios = [last / before for last, before in zip(FALLS[2], FALLS[1], strict=True)]
    exponents = [math.exp(ratio / 2.0) for ratio in ratios]
    assert shown == pytest.approx({k: 4 * e / sum(exponents) for k, e in zip(KEYS, exponents, strict=True)})


def test_dwa_leaves_out_what_has_no_samples():
    balancer = DWA(every=1)
    absent = plan(inverse=0.0)
    run(balancer, FALLS[:2])
    before = balancer.get_extra_state()
    shown = run(balancer, [(1.0, 1.0, 1.0, 99.0)], absent)
    state = balancer.get_extra_state()
    assert state["last"]["inverse\taction"] == before["last"]["inverse\taction"]
    assert state["last"]["video\tvideo"] == 1.0
    assert shown["inverse", "action"] == 1.0
    assert sum(shown[key] for key in KEYS[:3]) == pytest.approx(3)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"every": 0}, "every is 0, expected at least 1"), ({"temperature": 0.0}, r"temperature is 0\.0, expected")],
)
def test_dwa_refuses(options, message):
    with pytest.raises(ValueError, match=message):
        DWA(**options)


# -- FAMO -------------------------------------------------------------------------------------------------------------


def test_famo_is_the_update_of_the_paper():
    rate, decay = 0.5, 0.1
    shown = run(FAMO(rate, decay), FALLS)
    logits = torch.zeros(4, dtype=torch.float64, requires_grad=True)
    for before, after in zip(FALLS, FALLS[1:], strict=False):
        fall = torch.tensor(before, dtype=torch.float64).log() - torch.tensor(after, dtype=torch.float64).log()
        (gradient,) = torch.autograd.grad(logits.softmax(0) @ fall, logits)  # the Jacobian by autograd
        logits = (logits - rate * (gradient + decay * logits)).detach().requires_grad_()
    losses = torch.tensor(FALLS[-1], dtype=torch.float64, requires_grad=True)
    # The balanced loss: c * sum of z log L, with c such that the weights add up to 1; here to the number of terms.
    (weights,) = torch.autograd.grad(logits.detach().softmax(0) @ losses.log(), losses)
    expected = 4 * weights / weights.sum()
    assert shown == pytest.approx(dict(zip(KEYS, expected.tolist(), strict=True)), rel=1e-5)


def test_famo_gives_less_to_who_falls_faster():
    balancer = FAMO(rate=1.0, decay=0.0)
    run(balancer, [(1.0, 1.0, 1.0, 1.0), (0.5, 1.0, 1.0, 1.0)])
    logits = balancer.get_extra_state()["logit"]
    assert logits["video\tvideo"] < 0 < logits["joint\tvideo"]


def test_noise_between_batches_cancels_in_the_logits_of_famo():
    rng = torch.Generator().manual_seed(0)
    noise = (0.05 * torch.randn(300, 4, generator=rng)).exp()
    noise[-1] = noise[0]
    balancer = FAMO(rate=0.025, decay=0.0)
    run(balancer, noise.tolist())
    assert max(map(abs, balancer.get_extra_state()["logit"].values())) < 5e-4  # one step of it is 0.025 * 0.07 / 4


def test_famo_waits_for_a_loss_that_is_not_positive():
    balancer = FAMO(rate=1.0)
    run(balancer, FALLS[:2])
    before = balancer.get_extra_state()
    for bad in (0.0, -1.0, math.nan, math.inf):
        shown = run(balancer, [(bad, 1.0, 1.0, 1.0)])
        assert shown["video", "video"] == 1.0
        assert all(math.isfinite(value) for value in shown.values())
    for name in ("logit", "loss"):
        assert balancer.get_extra_state()[name]["video\tvideo"] == before[name]["video\tvideo"]


@pytest.mark.parametrize(
    ("options", "message"),
    [({"rate": 0.0}, r"rate is 0\.0, expected a positive"), ({"decay": -1.0}, r"decay is -1\.0, expected 0 or more")],
)
def test_famo_refuses(options, message):
    with pytest.raises(ValueError, match=message):
        FAMO(**options)


# -- UncertaintyWeighting ---------------------------------------------------------------------------------------------


def bound(weight=1.0, **options):
    balancer = UncertaintyWeighting(**options)
    balancer.bind(objectives(weight))
    return balancer


def test_uncertainty_weighting_is_twice_the_loss_of_the_paper():
    balancer, values = bound(3.0), (1.0, 10.0, 100.0, 1000.0)
    logs = {key: 0.1 * place for place, key in enumerate(KEYS)}
    with torch.no_grad():
        for key, value in logs.items():
            balancer.log_variances[balancer._places[key]] = value
    amounts = [1 / 8, 9 / 8, 9 / 8, 4 / 8]
    expected = 0.0
    for amount, value, s in zip(amounts, values, logs.values(), strict=True):
        sigma = math.sqrt(math.exp(s))
        expected += 2 * amount * (value / (2 * sigma**2) + math.log(sigma))
    assert balancer(plan(3.0), terms(*values), latent()).item() == pytest.approx(expected, rel=1e-5)


def test_variances_come_to_the_losses():
    balancer, values = bound(), (0.5, 2.0, 3.0, 4.0)
    optimizer = torch.optim.Adam(balancer.parameters(), lr=0.05)
    for _ in range(300):
        optimizer.zero_grad()
        balancer(plan(), terms(*values), latent()).backward()
        optimizer.step()
    shown = factors(balancer, plan(), terms(*values))
    assert shown == pytest.approx({key: 1 / value for key, value in zip(KEYS, values, strict=True)}, rel=1e-3)


def test_a_variance_without_samples_has_no_gradient():
    balancer = bound()
    balancer(plan(inverse=0.0), terms(5.0, 2.0, 3.0, 0.0), latent()).backward()
    place = balancer._places["inverse", "action"]
    assert balancer.log_variances.grad[place] == 0
    assert (balancer.log_variances.grad != 0).sum() == 3


def test_an_own_term_has_to_be_named():
    more = {("joint", "contrast"): terms(1.0, 1.0, 1.0, 1.0)[KEYS[0]]}
    with pytest.raises(ValueError, match=r"own_terms=\{joint: \[contrast\]\}"):
        bound()(plan(), more, latent())
    bound(own_terms={"joint": ["contrast"]})(plan(), more, latent())
    with pytest.raises(ValueError, match=r"own_terms of UncertaintyWeighting names \['goal'\]"):
        bound(own_terms={"goal": ["contrast"]})
