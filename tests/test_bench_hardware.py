"""What episodes cost a training is told with the scatter between pairs of trainings."""

import pytest

from uva_lightning.benchmarks.hardware_rollouts import summary


def timed(enabled, seconds):
    return {"enabled": enabled, "seconds": seconds}


def test_a_training_with_episodes_is_compared_with_the_one_beside_it():
    found = summary([timed(False, 100.0), timed(True, 102.0), timed(True, 208.0), timed(False, 200.0)])
    assert found["values"] == pytest.approx([1.02, 1.04])
    assert found["mean"] == pytest.approx(1.03)
    low, high = found["interval"]
    assert (low + high) / 2 == pytest.approx(1.03)
    assert high - low == pytest.approx(2 * 12.706 * 0.01, rel=1e-3)  # Student's t of two values
    assert summary([timed(True, 30.0), timed(False, 20.0)]) == {"values": [1.5], "mean": 1.5, "interval": None}
