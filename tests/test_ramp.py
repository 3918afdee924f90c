"""Shares that move in a straight line."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from uva_lightning.objectives.forward_dynamics import ForwardDynamics
from uva_lightning.objectives.robot_policy import RobotPolicy
from uva_lightning.objectives.video_model import VideoModel
from uva_lightning.ramp import Ramp, ramp_counts

PRESENT = {"video": torch.ones(10, dtype=torch.bool), "action": torch.ones(10, dtype=torch.bool)}


def objectives():
    return {"policy": RobotPolicy(), "video": VideoModel(), "forward": ForwardDynamics()}


def served(ramp, steps, present=PRESENT):
    counts = dict.fromkeys(ramp.objectives, 0)
    for step in steps:
        for name, rows in ramp(step, present).served.items():
            counts[name] += rows.stop - rows.start
    return counts


def due(start, end, steps, samples):
    """Samples due to each by the end of each batch, summed up one by one."""
    total, rows = np.zeros(len(start)), []
    for step in range(steps):
        part = (step + 0.5) / steps
        shares = np.array([a + (b - a) * part for a, b in zip(start, end, strict=True)])
        total = total + samples * shares / shares.sum()
        rows.append(total)
    return np.array(rows)


@pytest.mark.parametrize("seed", range(30))
def test_counts_are_what_is_due_to_within_a_sample_at_any_time(seed):
    rng = np.random.default_rng(seed)
    size, steps, samples = int(rng.integers(2, 8)), int(rng.integers(1, 200)), int(rng.integers(1, 30))
    start, end = (tuple(rng.dirichlet(np.full(size, 0.3))) for _ in range(2))
    counts = ramp_counts(start, end, steps, samples)
    assert (counts >= 0).all()
    assert (counts.sum(axis=1) == samples).all()
    assert np.abs(counts.cumsum(axis=0) - due(start, end, steps, samples)).max() < 1


def test_shares_move_and_then_stay():
    ramp = Ramp(objectives(), {"video": 1.0}, {"policy": 2.0, "video": 1.0, "forward": 1.0}, steps=20)
    assert served(ramp, range(20)) == {"policy": 50, "video": 125, "forward": 25}  # on average half the end's shares
    early, late = served(ramp, range(5)), served(ramp, range(15, 20))
    assert early["video"] == 45  # 90.6 %
    assert late["policy"] > early["policy"] + 10
    assert served(ramp, range(20, 60)) == {"policy": 200, "video": 100, "forward": 100}


def test_an_objective_may_end():
    ramp = Ramp(objectives(), {"policy": 1.0, "video": 1.0}, {"policy": 1.0}, steps=10)
    assert served(ramp, range(10)) == {"policy": 75, "video": 25, "forward": 0}
    assert served(ramp, range(10, 20)) == {"policy": 100, "video": 0, "forward": 0}


def test_a_plan_is_a_function_of_the_step_alone():
    one, two = (Ramp(objectives(), {"video": 1.0}, {"policy": 1.0}, steps=10, seed=3) for _ in range(2))
    for step in range(12):
        two(step, PRESENT)
    for step in (11, 4, 9):
        assert two(step, PRESENT).order.equal(one(step, PRESENT).order)
        assert two(step, PRESENT).share == one(step, PRESENT).share


def test_samples_that_cannot_serve_all_serve_what_they_can():
    ramp = Ramp(objectives(), {"video": 1.0}, {"policy": 1.0, "video": 1.0}, steps=10)
    bare = {**PRESENT, "action": torch.zeros(10, dtype=torch.bool)}
    assert served(ramp, range(5), bare) == {"policy": 0, "video": 50, "forward": 0}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"start": {"video": 1.0}, "end": {"policy": 1.0}, "steps": 0}, "Ramp has 0 steps, expected at least 1"),
        ({"start": {"force": 1.0}, "end": {"policy": 1.0}, "steps": 5}, r"Ramp\.start has shares of \['force'\]"),
        ({"start": {"video": 1.0}, "end": {"policy": -1.0}, "steps": 5}, "expected numbers that are not negative"),
        ({"start": {}, "end": {"policy": 1.0}, "steps": 5}, "positive sum"),
    ],
)
def test_mistakes_are_told(options, message):
    with pytest.raises(ValueError, match=message):
        Ramp(objectives(), **options)


def test_the_last_shares_are_checked_before_the_first_step():
    ramp = Ramp(objectives(), {"video": 1.0}, {"policy": 1.0}, steps=5)
    assert ramp.check({"both": PRESENT})
    with pytest.raises(ValueError, match="films fit no objective"):
        ramp.check({"both": PRESENT, "films": {"video": torch.ones(1, dtype=torch.bool)}})
