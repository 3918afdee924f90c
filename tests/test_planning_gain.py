"""Gains are paired by start, and shares are of the bound's gain."""

import pytest
import torch

from uva_lightning.metrics.intervals import bootstrap_mean
from uva_lightning.metrics.planning_gain import PlanningGain

POLICY = torch.tensor([0.0, 1.0, 0.0, 0.0] * 10)
PLANNED = torch.tensor([1.0, 1.0, 0.0, 0.0] * 10)
BOUND = torch.tensor([1.0, 1.0, 1.0, 0.0] * 10)


def gained(*ways):
    metric = PlanningGain()
    metric.update(*ways)
    return metric.compute()


def test_share_of_the_bound():
    found = gained(POLICY, PLANNED, BOUND)
    assert (found["n"], found["gain"], found["bound_gain"], found["share"]) == (40, 0.25, 0.5, 0.5)
    assert found["gain_interval"] == list(bootstrap_mean((PLANNED - POLICY).double().numpy()))
    low, high = found["share_interval"]
    assert 0.2 < low < 0.5 < high < 0.8
    assert gained(POLICY, BOUND, BOUND)["share_interval"] == [1.0, 1.0]


def test_without_a_gain_of_the_bound_there_is_no_share():
    assert set(gained(POLICY, PLANNED)) == {"n", "gain", "gain_interval"}
    found = gained(POLICY, PLANNED, POLICY)
    assert (found["share"], found["share_interval"]) == (None, None)


def test_starts_must_be_the_same():
    with pytest.raises(ValueError, match="'policy': 40, 'planned': 3"):
        gained(POLICY, PLANNED[:3])
    metric = PlanningGain()
    metric.update(POLICY, PLANNED)
    metric.update(POLICY, PLANNED, BOUND)
    with pytest.raises(ValueError, match="80 starts and 40 of the bound"):
        metric.compute()
