"""Numbers about episodes on an arm count only what says something about the policy."""

import pytest

from uva_lightning.metrics.hardware import EpisodeCounts, Quantiles, measures
from uva_lightning.metrics.intervals import wilson


def episode(label="success", ended="operator", reason="", **changes):
    latency = {"inference": [0.1, 0.3], "age": [0.01], "late": []}
    numbers = {"duration": 4.0, "steps": 20, "chunks": 5, "rejected": 1, "points": 32, "clipped": 4}
    numbers |= {"latency": latency, "jerk": [2.0]}
    return {"episode": 0, "label": label, "ended": ended, "reason": reason, **numbers, **changes}


def test_invalid_episodes_do_not_count_as_failures():
    fault = episode("invalid", "fault", "CameraLost: no picture", duration=1.0)
    found = measures([episode(), episode("failure", "length"), episode(), fault, episode("invalid", "refused")])
    assert found["success_rate"] == pytest.approx(2 / 3)
    assert (found["success_low"], found["success_high"]) == pytest.approx(tuple(wilson(2, 3)))
    counted = {name: found[name] for name in EpisodeCounts.NAMES}
    assert counted == {
        "episodes": 5, "valid": 3, "invalid": 2, "aborted": 1, "faults": 1, "chunks": 25, "rejected": 5,
        "points": 160, "clipped": 20,
    }  # fmt: skip
    assert found["fault/CameraLost"] == 1
    assert found["duration"] == pytest.approx(17 / 5)
    assert found["reject_rate"] == pytest.approx(0.2)
    assert found["clip_rate"] == pytest.approx(0.125)
    assert found["latency_inference_p50"] == pytest.approx(0.2)
    assert found["jerk_p95"] == 2.0
    assert "latency_late_p50" not in found


def test_without_valid_episodes_there_is_no_rate():
    assert "success_rate" not in measures([episode("invalid", "refused")])
    assert measures([]) == {}


def test_metrics_begin_anew_after_a_reset():
    numbers = Quantiles("x")
    numbers.update([1.0, 2.0])
    numbers.reset()
    assert numbers.compute() == {}
