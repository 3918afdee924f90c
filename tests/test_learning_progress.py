"""Shares that follow what is being learned."""

from __future__ import annotations

import math

import pytest
import torch

from uva_lightning.learning_progress import LearningProgress, by_progress, progress
from uva_lightning.objectives.policy_planner import PolicyPlanner
from uva_lightning.objectives.robot_policy import RobotPolicy
from uva_lightning.objectives.video_model import VideoModel

PRESENT = {"video": torch.ones(8, dtype=torch.bool), "action": torch.ones(8, dtype=torch.bool)}
KEYS = [("policy", "action"), ("video", "video"), ("joint", "video"), ("joint", "action")]


def sampler(**options):
    objectives = {"policy": RobotPolicy(), "video": VideoModel(), "joint": PolicyPlanner()}
    return LearningProgress(objectives, **{"every": 4, "floor": 0.1, **options})


def losses(*values):
    return {key: torch.tensor(value) for key, value in zip(KEYS, values, strict=True)}


def watch(one, steps, start=0):
    """Losses that depend on the step; the policy's fall fast, the video's slowly, those of both stand still."""
    for step in range(start, start + steps):
        one.observe(step, losses(math.exp(-0.1 * step), math.exp(-0.02 * step), 2.0, 3.0))


def test_shares_follow_how_far_the_losses_fell():
    one = sampler(rate=0.5)
    watch(one, 7)
    assert one.shares == {"video": 1 / 3, "joint": 1 / 3, "policy": 1 / 3}
    watch(one, 1, start=7)
    # The logarithm of a mean over four batches falls by 0.4 and 0.08; the floors leave 0.7.
    expected = {"policy": 0.1 + 0.7 * 0.4 / 0.48, "video": 0.1 + 0.7 * 0.08 / 0.48, "joint": 0.1}
    assert one.shares == pytest.approx({name: 0.5 / 3 + 0.5 * share for name, share in expected.items()}, rel=1e-4)
    assert sum(one.shares.values()) == pytest.approx(1)


def test_new_shares_hold_from_the_next_batch_on():
    one = sampler(rate=1.0)
    watch(one, 8)
    served = dict.fromkeys(one.objectives, 0)
    for step in range(8, 108):
        for name, rows in one(step, PRESENT).served.items():
            served[name] += rows.stop - rows.start
            assert abs(served[name] - one.shares[name] * 8 * (step - 7)) < 2
    assert sum(served.values()) == 800


def test_a_rising_loss_counts_as_no_progress_and_no_progress_at_all_changes_nothing():
    before, now = {("a", "x"): 1.0, ("b", "x"): 1.0}, {("a", "x"): 2.0, ("b", "x"): 0.5}
    assert progress(before, now) == {"a": 0.0, "b": pytest.approx(math.log(2))}
    assert progress(before, before) == {"a": 0.0, "b": 0.0}
    assert by_progress({"a": 0.3, "b": 0.7}, {"a": 0.0, "b": 0.0}, 0.1, 0.5) == {"a": 0.3, "b": 0.7}


def test_an_objective_has_the_mean_progress_of_its_terms():
    before = {("a", "x"): 4.0, ("a", "y"): 1.0}
    assert progress(before, {("a", "x"): 1.0, ("a", "y"): 1.0}) == {"a": pytest.approx(math.log(2))}


def test_what_is_not_known_keeps_its_share():
    shares = by_progress({"a": 0.2, "b": 0.3, "c": 0.5}, {"a": 1.0, "b": 0.0}, 0.1, 1.0)
    assert shares == pytest.approx({"a": 0.4, "b": 0.1, "c": 0.5})
    bad = {("a", "x"): math.nan, ("b", "x"): 0.0, ("c", "x"): 1.0}
    assert progress(dict.fromkeys(bad, 1.0), bad) == {"c": 0.0}


def test_a_resume_is_exact():
    whole, part = sampler(), sampler()
    watch(whole, 23)
    watch(part, 10)
    rest = sampler()
    rest.load_state(part.state())
    watch(rest, 13, start=10)
    assert rest.state() == whole.state()
    assert whole.shares["policy"] > 0.5
    for step in (23, 24):
        assert rest(step, PRESENT).order.equal(whole(step, PRESENT).order)
        assert rest(step, PRESENT).share == whole(step, PRESENT).share


def test_a_state_of_other_objectives_is_refused():
    state = sampler().state()
    other = LearningProgress({"policy": RobotPolicy(), "video": VideoModel()})
    with pytest.raises(ValueError, match=r"shares of \['joint', 'policy', 'video'\], but the objectives are"):
        other.load_state(state)
    other.load_state({})  # of a checkpoint that a sampler without a state wrote


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"every": 0}, "every is 0, expected at least 1"),
        ({"rate": 1.5}, r"rate is 1\.5, expected a number in \(0, 1\]"),
        ({"floor": 0.0}, r"floor is 0\.0, expected a number above 0 and at most 0\.3333"),
        (
            {"shares": {"policy": 1, "video": 1, "joint": 98}, "floor": 0.05},
            r"at most 0\.01, the first share of 'video'",
        ),
    ],
)
def test_mistakes_are_told(options, message):
    with pytest.raises(ValueError, match=message):
        sampler(**options)
