"""Success and score, whole and in parts."""

import pytest
import torch

from uva_lightning.metrics.intervals import bootstrap_mean, wilson
from uva_lightning.metrics.outcomes import Score, SuccessRate

SOLVED = torch.tensor([True, False, True, True])
SCORES = torch.tensor([1.0, 0.25, 0.5, 1.0, 0.75])


def test_success_has_wilsons_interval():
    rate = SuccessRate()
    rate.update(SOLVED)
    rate.update(torch.tensor(False))
    low, high = wilson(3, 5)
    assert rate.compute() == {"success_rate": 0.6, "success_low": low, "success_high": high}


def test_score_has_a_bootstrap_interval():
    score = Score()
    for part in SCORES.split((2, 3)):
        score.update(part)
    low, high = bootstrap_mean(SCORES.double().numpy())
    assert score.compute() == {"score": 0.7, "score_low": low, "score_high": high}


@pytest.mark.filterwarnings("ignore:The ``compute`` method")
@pytest.mark.parametrize("metric", [SuccessRate(), Score()])
def test_without_episodes_there_is_nothing(metric):
    assert metric.compute() == {}


def test_what_is_not_finite_has_no_mean():
    score = Score()
    score.update(torch.tensor([0.5, float("nan")]))
    with pytest.raises(ValueError, match="1 of them finite"):
        score.compute()


@pytest.mark.parametrize(("make", "values"), [(SuccessRate, SOLVED), (Score, SCORES)])
def test_halves_merge_to_the_whole(make, values):
    whole, one, other = make(), make(), make()
    whole.update(values)
    one.update(values[:1])
    other.update(values[1:])
    other.merge_state(one)  # what is merged comes first
    assert other.compute() == whole.compute()
