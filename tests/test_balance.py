"""How the losses of several objectives become one."""

from __future__ import annotations

from abc import ABC

import pytest
import torch

from uva_lightning.balance import FixedWeights, Term, collect_terms, own_losses
from uva_lightning.global_batch import GlobalBatch
from uva_lightning.model.heads.base import Errors
from uva_lightning.objectives.inverse_dynamics import InverseDynamics
from uva_lightning.objectives.policy_planner import PolicyPlanner
from uva_lightning.objectives.video_model import VideoModel
from uva_lightning.sampler import Plan
from uva_lightning.types import Tokens, Visible


def plan(weight=1.0):
    objectives = {"video": VideoModel(), "joint": PolicyPlanner(weight=weight), "inverse": InverseDynamics()}
    rows = {"video": slice(0, 1), "joint": slice(1, 4), "inverse": slice(4, 8)}
    return Plan(torch.arange(8), rows, objectives)


LATENT = torch.zeros(8, 1, 1, 1)
KEYS = [("video", "video"), ("joint", "video"), ("joint", "action"), ("inverse", "action")]


def terms(*values):
    return {name: Term(torch.tensor(value), torch.tensor(value)) for name, value in zip(KEYS, values, strict=True)}


def ones(values):
    return Errors(values, torch.ones(len(values), dtype=torch.long))


def means(found):
    return {key: float(term.mean) for key, term in found.items()}


def test_each_objective_gets_the_mean_over_the_hidden_tokens_of_its_own_rows():
    video = Errors(torch.tensor([1.0, 2.0, 3.0, 7.0]), torch.tensor([2, 1, 0, 3]))
    found = means(collect_terms(plan(), {"video": video, "action": ones(torch.arange(7.0))}, {}))
    assert found == dict(zip(KEYS, [0.5, 3.0, 1.0, 4.5], strict=True))


def test_rows_that_are_not_contiguous_are_split_as_well():
    objectives = {"joint": PolicyPlanner(), "video": VideoModel(), "inverse": InverseDynamics()}
    scattered = Plan(torch.arange(4), {"joint": slice(0, 1), "video": slice(1, 3), "inverse": slice(3, 4)}, objectives)
    losses = {"video": ones(torch.tensor([1.0, 2.0, 4.0])), "action": ones(torch.tensor([8.0, 16.0]))}
    assert means(collect_terms(scattered, losses, {})) == {
        ("joint", "video"): 1.0,
        ("joint", "action"): 8.0,
        ("video", "video"): 3.0,
        ("inverse", "action"): 16.0,
    }


class Two(GlobalBatch):
    """Two processes without processes: what the other one adds is given."""

    def sums(self, values):
        return values.detach() + self.other


def test_means_are_over_the_samples_of_all_processes():
    """The mean of the processes' gradients is the gradient of the mean over all of them."""
    values = torch.tensor([[1.0, 2.0, 6.0], [10.0, 0.0, 0.0]], requires_grad=True)
    counts = torch.tensor([[1, 2, 3], [4, 0, 0]])
    simple = Plan(torch.arange(3), {"video": slice(0, 3)}, {"video": VideoModel()})
    losses = []
    for rank in (0, 1):
        whole = Two(3, rank, 2)
        object.__setattr__(whole, "other", torch.stack([values[1 - rank].sum(), counts[1 - rank].sum()]).detach())
        found = collect_terms(simple, {"video": Errors(values[rank], counts[rank])}, {}, whole)
        assert float(found["video", "video"].mean) == pytest.approx(1.9)
        assert not found["video", "video"].mean.requires_grad
        losses.append(found["video", "video"].loss)
    assert float(sum(losses) / 2) == pytest.approx(1.9)
    (gradient,) = torch.autograd.grad(sum(losses) / 2, values)
    assert torch.allclose(gradient, torch.full((2, 3), 0.1))


def test_what_nobody_serves_is_zero_and_stays_in_the_graph():
    rows = {"video": slice(0, 2), "joint": slice(2, 2), "inverse": slice(2, 2)}
    empty = Plan(torch.arange(2), rows, plan().objectives, {"video": 1.0, "joint": 0.0, "inverse": 0.0})
    weight = torch.ones((), requires_grad=True)
    heads = {"video": ones(weight * torch.tensor([1.0, 3.0])), "action": ones(weight * torch.zeros(0))}
    found = collect_terms(empty, heads, {})
    assert means(found) == dict(zip(KEYS, [2.0, 0.0, 0.0, 0.0], strict=True))
    assert all(term.loss.requires_grad for term in found.values())
    assert float(FixedWeights()(empty, found, LATENT)) == pytest.approx(2.0)


def test_an_objectives_own_losses_are_one_number_per_sample():
    class Own(VideoModel, ABC):  # a base class is not registered
        def loss_terms(self, latent, tokens, seen):
            return {"size": latent.flatten(1).square().sum(dim=1)}

    class Mean(Own, ABC):
        def loss_terms(self, latent, tokens, seen):
            return {"size": latent.square().mean()}

    tokens = Tokens({"video": torch.zeros(4, 1, 1, 1)})
    latent = torch.arange(4.0).view(4, 1, 1, 1)
    rows = {"own": slice(0, 1), "other": slice(1, 4), "none": slice(4, 4)}
    mixed = Plan(torch.arange(4), rows, {"own": VideoModel(), "other": Own(), "none": Own()})
    own = own_losses(mixed, latent, tokens, Visible.only(tokens))
    assert own["other", "size"].tolist() == [1.0, 4.0, 9.0]
    assert own["none", "size"].shape == (0,)
    assert means(collect_terms(mixed, {"video": ones(torch.zeros(4))}, own))["other", "size"] == pytest.approx(14 / 3)
    wrong = Plan(torch.arange(4), {"bad": slice(0, 4)}, {"bad": Mean()})
    with pytest.raises(ValueError, match=r"Loss 'size' of .*'bad' has shape \[\] for 4 samples, expected \[4\]"):
        own_losses(wrong, latent, tokens, Visible.only(tokens))


def test_the_loss_is_the_sum_by_share_weight_and_factor():
    loss = FixedWeights({"video": 0.5})(plan(weight=3.0), terms(1.0, 10.0, 100.0, 1000.0), LATENT)
    assert float(loss) == pytest.approx((1 / 8) * 0.5 * 1 + (3 / 8) * 3 * (0.5 * 10 + 100) + (4 / 8) * 1000)


def test_equal_weights_give_the_mean_over_samples():
    losses = torch.arange(1.0, 9.0)
    objectives = {"video": VideoModel(), "inverse": InverseDynamics()}
    simple = Plan(torch.arange(8), {"video": slice(0, 2), "inverse": slice(2, 8)}, objectives)
    split = collect_terms(simple, {"video": ones(losses[:2]), "action": ones(losses[2:])}, {})
    assert float(FixedWeights()(simple, split, LATENT)) == pytest.approx(float(losses.mean()))


def test_the_share_that_counts_is_that_of_all_processes():
    shared = Plan(plan().order, plan().served, plan().objectives, {"video": 0.5, "joint": 0.0, "inverse": 0.5})
    assert float(FixedWeights()(shared, terms(1.0, 10.0, 100.0, 1000.0), LATENT)) == pytest.approx(500.5)
