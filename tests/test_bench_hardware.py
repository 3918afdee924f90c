"""What episodes cost a training is told for its start and for the steady state after it."""

import pytest

from uva_lightning.benchmarks.hardware_rollouts import compare, summary


def timed(per_step, first=None):
    ends, now = [], 0.0
    for seconds in per_step:
        ends.append(now := now + seconds)
    return {"seconds": now + 1.0, "ends": ends, "first_result": first}


def test_start_and_steady_state_are_told_apart():
    found = compare(timed([1.0] * 10), timed([2.0] * 4 + [1.1] * 6, first=8.5))
    assert found["whole"] == pytest.approx((8 + 6.6 + 1) / 11)
    assert found["start"] == pytest.approx(2.0)
    assert found["steady"] == pytest.approx(1.1)
    early = compare(timed([1.0] * 10), timed([1.2] * 10, first=0.1))
    assert (early["start"], early["steady"]) == (None, pytest.approx(1.2))
    none = compare(timed([1.0] * 10), timed([1.2] * 10))
    assert (none["start"], none["steady"]) == (pytest.approx(1.2), None)


def test_pairs_are_summed_up_with_their_scatter():
    pairs = [{"whole": 1.02, "start": 1.2, "steady": None}, {"whole": 1.04, "start": None, "steady": None}]
    found = summary(pairs)
    assert found["whole"]["mean"] == pytest.approx(1.03)
    low, high = found["whole"]["interval"]
    assert low < 1.02 < 1.04 < high
    assert found["start"]["interval"] is None
    assert "steady" not in found
