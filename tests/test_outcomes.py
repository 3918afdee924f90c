"""Success and score, whole and in parts."""

import pytest
import torch

from uva_lightning.metrics.intervals import bootstrap_mean, wilson
from uva_lightning.metrics.outcomes import Score, SuccessRate

SOLVED = torch.tensor([True, False, True, True])
SCORES = torch.tensor([1.0, 0.25, 0.5, 1.0, 0.75])


def test_success_has_wilsons_interval():
    rate = SuccessRate()
    assert rate.compute() == {}
    rate.update(SOLVED)
    rate.update(torch.tensor(False))
    low, high = wilson(3, 5)
    assert rate.compute() == {"success_rate": 0.6, "success_low": low, "success_high": high}


def test_score_has_a_bootstrap_interval_in_any_order():
    forwards, backwards = Score(), Score()
    assert forwards.compute() == {}
    forwards.update(SCORES)
    for one in SCORES.flip(0):
        backwards.update(one)
    low, high = bootstrap_mean(SCORES.sort().values.double().numpy())
    assert forwards.compute() == {"score": 0.7, "score_low": low, "score_high": high} == backwards.compute()


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
    one.merge_state(other)
    assert one.compute() == whole.compute()
