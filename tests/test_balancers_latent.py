"""Balancers that go by gradients on the shared latent."""

from __future__ import annotations

import sys

import pytest
import torch
from balanced import KEYS, ROWS, SIZES, directions, factors, latent, on, plan, terms
from torch import nn

from uva_lightning.balance import Term
from uva_lightning.balancers.grad_norm import GradNorm
from uva_lightning.balancers.gradient_surgery import GradientSurgery
from uva_lightning.balancers.latent import gramian, norms
from uva_lightning.balancers.running import Served


def table():
    """Gradients of the terms on what is added to every row."""
    return torch.tensor(SIZES)[:, None] * directions()


# -- gradients --------------------------------------------------------------------------------------------------------


def test_norms_are_those_over_all_rows():
    z = latent()
    step = Served.of(plan(), on(z), z)
    counts = torch.tensor([1.0, 3.0, 3.0, 4.0])  # each row has one share of the mean
    assert torch.allclose(norms(step, "it"), table().norm(dim=1) / counts.sqrt(), rtol=1e-5)


def test_inner_products_are_those_on_a_shared_table():
    z = latent()
    weighted = plan(weight=2.0)
    products = gramian(Served.of(weighted, on(z), z), "it")
    own = torch.tensor([1 / 8, 6 / 8, 6 / 8, 4 / 8])[:, None] * table()
    expected = (own @ own.T).double()
    assert products.dtype == torch.float64
    assert torch.allclose(products, expected, rtol=1e-4, atol=1e-6)
    assert products[1, 2] < 0


def test_gradients_of_a_tiny_loss_survive_float16():
    z = latent()
    exact = norms(Served.of(plan(), on(z), z), "it")
    tiny = on(z, 1e-7, torch.float16)
    (plain,) = torch.autograd.grad(tiny[KEYS[2]].loss, z, retain_graph=True)
    assert not plain.any()  # 1e-7 * 0.2 / 3 is 0 in float16
    assert torch.allclose(norms(Served.of(plan(), tiny, z), "it") * 1e7, exact, rtol=1e-2)


def test_taking_gradients_leaves_the_graph_and_no_trace():
    z, weight = latent(), torch.ones((), requires_grad=True)
    step_terms = {key: Term(term.loss * weight, term.mean) for key, term in on(z).items()}
    balancer = GradNorm()
    total = balancer(plan(), step_terms, z)
    assert weight.grad is None
    assert z.grad is None
    total.backward()
    assert weight.grad.isfinite()


@pytest.mark.parametrize("kind", [GradNorm, GradientSurgery])
def test_a_latent_without_gradients_is_refused(kind):
    balancer = kind(Equal()) if kind is GradientSurgery else kind()
    z = latent().detach()
    with pytest.raises(ValueError, match=rf"{kind.__name__} needs gradients on the latent, which has none: the trunk"):
        balancer(plan(), terms(1, 1, 1, 1), z)
    balancer.eval()
    balancer(plan(), terms(1, 1, 1, 1), z)  # validation has none and needs none


def test_a_term_that_does_not_know_the_latent_is_refused():
    with pytest.raises(ValueError, match="The term 'video' of objective 'video' does not depend on the latent"):
        GradNorm()(plan(), terms(1, 1, 1, 1), latent())


# -- GradNorm ---------------------------------------------------------------------------------------------------------


def test_gradnorm_comes_to_rest_where_the_paper_does():
    balancer, z = GradNorm(alpha=1.0, rate=0.2), latent()
    shares = torch.tensor([1 / 8, 3 / 8, 3 / 8, 4 / 8])
    first = on(z)
    later = {key: Term(term.loss * (k + 1), term.mean * (k + 1)) for k, (key, term) in enumerate(first.items())}
    balancer.factors(plan(), first, z)
    for _ in range(100):
        weights = balancer.factors(plan(), later, z)
    weights = torch.stack([*weights.values()])
    sizes = weights * norms(Served.of(plan(), later, z), "it") * shares.sqrt()
    behind = torch.arange(1.0, 5.0)
    assert torch.allclose(sizes, sizes.mean() * behind / behind.mean(), rtol=1e-4)
    assert weights.sum().item() == pytest.approx(4)


def test_one_step_of_gradnorm():
    balancer, z = GradNorm(alpha=0.5, rate=0.1), latent()
    step_terms = on(z)
    given = balancer.factors(plan(), step_terms, z)
    sizes = norms(Served.of(plan(), step_terms, z), "it") * torch.tensor([1 / 8, 3 / 8, 3 / 8, 4 / 8]).sqrt()
    moved = (sizes.mean() / sizes) ** 0.1  # all losses are at their first values
    assert torch.allclose(torch.stack([*given.values()]), 4 * moved / moved.sum(), rtol=1e-5)


def test_gradnorm_leaves_out_what_has_no_samples():
    balancer, z = GradNorm(rate=0.5), latent()
    balancer.factors(plan(), on(z), z)
    before = balancer.get_extra_state()["weight"]
    shown = factors(balancer, plan(joint=0.0), on(z), z)
    after = balancer.get_extra_state()["weight"]
    for name in ("joint\tvideo", "joint\taction"):
        assert after[name] == before[name]
    assert shown["joint", "video"] == 1.0
    assert sum(after.values()) == pytest.approx(4)
    assert after["video\tvideo"] != before["video\tvideo"]


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 0.0])
def test_gradnorm_survives_an_overflow(bad):
    balancer, z = GradNorm(), latent()
    balancer.factors(plan(), on(z), z)
    broken = on(z)
    broken[KEYS[0]] = Term(broken[KEYS[0]].loss * bad, broken[KEYS[0]].mean * bad)
    before = balancer.get_extra_state()["weight"]
    balancer.factors(plan(), broken, z)
    after = balancer.get_extra_state()["weight"]
    assert after["video\tvideo"] == before["video\tvideo"]
    assert sum(after.values()) == pytest.approx(4)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"alpha": -1.0}, r"alpha is -1\.0, expected 0 or more"), ({"rate": 0.0}, r"rate is 0\.0, expected a number in")],
)
def test_gradnorm_refuses(options, message):
    with pytest.raises(ValueError, match=message):
        GradNorm(**options)


# -- GradientSurgery --------------------------------------------------------------------------------------------------


class Equal(nn.Module):
    def forward(self, products):
        return products.new_full((len(products),), 1 / len(products))


class Inverse(nn.Module):
    """Weights that follow from the diagonal."""

    def forward(self, products):
        return 1 / products.diagonal()


class Drawn(nn.Module):
    def forward(self, products):
        return torch.rand(len(products)).double()


class Keeping(Equal):
    def reset(self):
        pass


class Pair(nn.Module):
    def forward(self, products):
        return products


def test_weights_have_a_mean_of_one():
    z = latent()
    assert factors(GradientSurgery(Equal()), plan(), on(z), z) == dict.fromkeys(KEYS, 1.0)
    shown = factors(GradientSurgery(Inverse()), plan(), on(z), z)
    own = torch.tensor([1 / 8, 3 / 8, 3 / 8, 4 / 8])[:, None] * table()
    expected = 1 / own.square().sum(1)
    expected = 4 * expected / expected.sum()
    assert shown == pytest.approx(dict(zip(KEYS, expected.tolist(), strict=True)), rel=1e-4)


def test_what_is_drawn_follows_from_the_batch_alone():
    z, balancer, other = latent(), GradientSurgery(Drawn()), GradientSurgery(Drawn())
    first = factors(balancer, plan(), on(z), z)
    torch.manual_seed(3)
    state = torch.get_rng_state()
    second = factors(balancer, plan(), on(z), z)
    assert torch.get_rng_state().equal(state)
    assert second != first
    other.load_state_dict(balancer.state_dict())
    assert factors(balancer, plan(), on(z), z) == factors(other, plan(), on(z), z)


def test_surgery_survives_an_overflow_and_a_step_without_gradients():
    z, balancer = latent(), GradientSurgery(Inverse())
    usual = factors(balancer, plan(), on(z), z)
    for bad in (float("nan"), 0.0):
        broken = {key: Term(term.loss * bad, term.mean * bad) for key, term in on(z).items()}
        assert factors(balancer, plan(), broken, z) == usual


@pytest.mark.parametrize(
    ("weighting", "message"),
    [
        (Keeping(), "Keeping keeps numbers from step to step"),
        (Pair(), r"Pair gives torch\.Size\(\[2, 2\]\) for 2 terms"),
        (nn.Bilinear(2, 2, 2), "Bilinear cannot weigh by inner products"),
    ],
)
def test_surgery_refuses(weighting, message):
    with pytest.raises(ValueError, match=message):
        GradientSurgery(weighting)


def test_without_torchjd_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchjd", None)
    monkeypatch.setitem(sys.modules, "torchjd.aggregation", None)
    with pytest.raises(ImportError, match=r"pip install 'uva_lightning\[torchjd\]'"):
        GradientSurgery()


def test_upgrad_resolves_the_conflict():
    pytest.importorskip("torchjd.aggregation", reason="needs the extra [torchjd]")
    z, balancer = latent(), GradientSurgery()
    shown = torch.tensor([*factors(balancer, plan(), on(z), z).values()])
    own = torch.tensor([1 / 8, 3 / 8, 3 / 8, 4 / 8])[:, None] * table()
    step = shown @ own
    assert (own @ step >= -1e-3 * own.norm(dim=1) * step.norm()).all()  # no term gets worse
    assert (own @ own.sum(0)).min() < 0  # without it, one would


def test_upgrad_changes_nothing_without_a_conflict():
    pytest.importorskip("torchjd.aggregation", reason="needs the extra [torchjd]")
    z = latent()
    agreeing = {}
    for size, key in enumerate(KEYS, start=1):
        loss = size * z[ROWS[key[0]]].mean()
        agreeing[key] = Term(loss, loss.detach())
    shown = factors(GradientSurgery(), plan(), agreeing, z)
    assert shown == pytest.approx(dict.fromkeys(KEYS, 1.0), rel=1e-4)


def test_any_weighting_of_torchjd_can_be_chosen():
    aggregation = pytest.importorskip("torchjd.aggregation", reason="needs the extra [torchjd]")
    z = latent()
    own = (torch.tensor([1 / 8, 3 / 8, 3 / 8, 4 / 8])[:, None] * table()).double()
    for kind in (aggregation.MGDAWeighting, aggregation.PCGradWeighting, aggregation.AlignedMTLWeighting):
        shown = factors(GradientSurgery(kind()), plan(), on(z), z)
        torch.manual_seed(0)
        expected = kind()(own @ own.T)
        expected = 4 * expected / expected.sum()
        assert list(shown.values()) == pytest.approx(expected.tolist(), rel=1e-3)
    with pytest.raises(ValueError, match="GradVacWeighting keeps numbers from step to step"):
        GradientSurgery(aggregation.GradVacWeighting())
