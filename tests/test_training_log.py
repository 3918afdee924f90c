"""What a run logs: means over steps, and over all processes."""

from __future__ import annotations

import pytest
import torch

from uva_lightning.balance import FixedWeights, Term
from uva_lightning.global_batch import GlobalBatch
from uva_lightning.objectives.robot_policy import RobotPolicy
from uva_lightning.objectives.video_model import VideoModel
from uva_lightning.sampler import Plan
from uva_lightning.training_log import TrainingLog

OBJECTIVES = {"policy": RobotPolicy(), "video": VideoModel()}
ORDER = torch.tensor([2, 0, 1, 3])


class Other(GlobalBatch):
    """The second of two processes had three samples of each kind more."""

    def sums(self, values):
        return values + 3


def entries(plan, policy, video, loss=1.0):
    values = {("policy", "action"): policy, ("video", "video"): video}
    terms = {key: Term(torch.tensor(value), torch.tensor(value)) for key, value in values.items()}
    return {"loss": torch.tensor(loss), **FixedWeights().entries(plan, terms)}


def values(log, whole):
    return {name: float(value) for name, value in log.flush(whole).items()}


def test_means_are_over_the_steps_in_which_an_objective_was_served():
    log = TrainingLog([])
    for served, policy, loss in ((4, 1.0, 2.0), (0, 0.0, 4.0), (2, 3.0, 9.0)):
        plan = Plan(ORDER, {"policy": slice(0, served), "video": slice(served, 4)}, OBJECTIVES)
        log.add(plan, entries(plan, policy, 5.0, loss), None)
    assert values(log, GlobalBatch(4)) == {
        "train/loss": 5.0,
        "train/policy/action": 2.0,
        "train/video/video": 5.0,
        "train/policy/share": 0.5,
        "train/video/share": 0.5,
    }
    assert not log.flush(GlobalBatch(4)), "and begins anew"


@pytest.mark.parametrize(("whole", "share"), [(GlobalBatch(4), 1 / 4), (Other(4, 1, 2), 4 / 10)])
def test_where_samples_are_from_is_counted_in_all_processes(whole, share):
    log = TrainingLog(["arm", "people"])
    for source in ([1, 0, 0, 1], [0, 0, 0, 1]):
        plan = Plan(ORDER, {"policy": slice(0, 2), "video": slice(2, 4)}, OBJECTIVES)
        log.add(plan, entries(plan, 1.0, 1.0), torch.tensor(source))
    found = values(log, whole)
    assert found["train/policy/from_people"] == pytest.approx(share)
    assert found["train/policy/from_arm"] == pytest.approx(1 - share)


def test_an_objective_that_nobody_serves_is_from_nowhere():
    log = TrainingLog(["arm", "people"])
    plan = Plan(ORDER, {"policy": slice(0, 4), "video": slice(4, 4)}, OBJECTIVES)
    log.add(plan, entries(plan, 1.0, 0.0), torch.tensor([0, 0, 0, 1]))
    found = values(log, GlobalBatch(4))
    assert found["train/policy/from_arm"] == pytest.approx(0.75)
    assert not [name for name in found if name.startswith("train/video/from") or name == "train/video/video"]
