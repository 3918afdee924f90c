"""How the losses of several objectives become one."""

from __future__ import annotations

import pytest
import torch

from uva_lightning.balance import FixedWeights, LossScale, split_terms
from uva_lightning.objectives.inverse_dynamics import InverseDynamics
from uva_lightning.objectives.policy_planner import PolicyPlanner
from uva_lightning.objectives.video_model import VideoModel
from uva_lightning.sampler import Plan


def plan(weight=1.0):
    objectives = {"video": VideoModel(), "joint": PolicyPlanner(weight=weight), "inverse": InverseDynamics()}
    rows = {"video": slice(0, 1), "joint": slice(1, 4), "inverse": slice(4, 8)}
    return Plan(torch.arange(8), rows, objectives)


def terms(*values):
    names = [("video", "video"), ("joint", "video"), ("joint", "action"), ("inverse", "action")]
    return {name: torch.tensor(value) for name, value in zip(names, values, strict=True)}


def test_each_objective_gets_the_mean_over_its_own_rows():
    losses = {"video": torch.tensor([1.0, 2.0, 3.0, 7.0]), "action": torch.arange(7.0)}
    split = {key: float(value) for key, value in split_terms(plan(), losses).items()}
    assert split == {
        ("video", "video"): 1.0,
        ("joint", "video"): 4.0,
        ("joint", "action"): 1.0,
        ("inverse", "action"): 4.5,
    }


def test_rows_that_are_not_contiguous_are_split_as_well():
    objectives = {"joint": PolicyPlanner(), "video": VideoModel(), "inverse": InverseDynamics()}
    scattered = Plan(torch.arange(4), {"joint": slice(0, 1), "video": slice(1, 3), "inverse": slice(3, 4)}, objectives)
    losses = {"video": torch.tensor([1.0, 2.0, 4.0]), "action": torch.tensor([8.0, 16.0])}
    split = {key: float(value) for key, value in split_terms(scattered, losses).items()}
    assert split == {
        ("joint", "video"): 1.0,
        ("joint", "action"): 8.0,
        ("video", "video"): 3.0,
        ("inverse", "action"): 16.0,
    }


def test_the_loss_is_the_sum_by_share_weight_and_factor():
    loss = FixedWeights({"video": 0.5})(plan(weight=3.0), terms(1.0, 10.0, 100.0, 1000.0))
    assert float(loss) == pytest.approx((1 / 8) * 0.5 * 1 + (3 / 8) * 3 * (0.5 * 10 + 100) + (4 / 8) * 1000)


def test_equal_weights_give_the_mean_over_samples():
    losses = torch.arange(1.0, 9.0)
    objectives = {"video": VideoModel(), "inverse": InverseDynamics()}
    simple = Plan(torch.arange(8), {"video": slice(0, 2), "inverse": slice(2, 8)}, objectives)
    split = split_terms(simple, {"video": losses[:2], "action": losses[2:]})
    assert float(FixedWeights()(simple, split)) == pytest.approx(float(losses.mean()))


def test_gradients_pass_through_the_balance_but_not_through_the_scale():
    for balancer in (FixedWeights(), LossScale()):
        values = {key: value.requires_grad_() for key, value in terms(2.0, 4.0, 8.0, 16.0).items()}
        balancer(plan(), values).backward()
        factor = 1.0 if isinstance(balancer, FixedWeights) else 1 / 16
        assert float(values["inverse", "action"].grad) == pytest.approx(factor * 4 / 8)


def test_scaled_losses_count_alike_whatever_their_units():
    scale = LossScale()
    assert float(scale(plan(), terms(1e-4, 1.0, 50.0, 1e6))) == pytest.approx(1 / 8 + 2 * 3 / 8 + 4 / 8)


def test_the_scale_is_a_running_mean():
    scale = LossScale(decay=0.75)
    for value in (4.0, 8.0, 0.0):
        factors = scale.factors({("a", "video"): torch.tensor(value)})
    assert factors["a", "video"] == pytest.approx(1 / (0.75 * (0.75 * 4 + 0.25 * 8)))


def test_a_loss_of_zero_does_not_divide_by_zero():
    loss = LossScale()(plan(), terms(0.0, 0.0, 0.0, 0.0))
    assert loss.isfinite()


def test_validation_moves_no_scale():
    scale = LossScale()
    scale(plan(), terms(1.0, 1.0, 1.0, 1.0))
    before = scale.get_extra_state()
    scale.eval()
    assert float(scale(plan(), terms(5.0, 5.0, 5.0, 5.0))) == pytest.approx(5 * (1 / 8 + 2 * 3 / 8 + 4 / 8))
    assert scale.get_extra_state() == before


def test_the_scales_are_in_the_checkpoint():
    scale, other = LossScale(), LossScale()
    scale(plan(), terms(1.0, 2.0, 3.0, 4.0))
    other.load_state_dict(scale.state_dict())
    later = terms(5.0, 6.0, 7.0, 8.0)
    assert float(other(plan(), later)) == float(scale(plan(), later))


def test_a_decay_out_of_range_is_refused():
    with pytest.raises(ValueError, match=r"decay is 1\.0"):
        LossScale(decay=1.0)
