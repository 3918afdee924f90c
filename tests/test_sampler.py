"""Who serves what: a pure function of (seed, step) that keeps the shares and sends nobody where it cannot serve."""

from __future__ import annotations

from abc import ABC

import pytest
import torch

from uva_lightning.draws import Draws
from uva_lightning.global_batch import GlobalBatch
from uva_lightning.objective import Objective
from uva_lightning.objectives.forward_dynamics import ForwardDynamics
from uva_lightning.objectives.inverse_dynamics import InverseDynamics
from uva_lightning.objectives.policy_planner import PolicyPlanner
from uva_lightning.objectives.robot_policy import RobotPolicy
from uva_lightning.objectives.video_model import VideoModel
from uva_lightning.sampler import ObjectiveSampler, OneObjectivePerBatch, Plan
from uva_lightning.types import Tokens

FIVE = {
    "policy": RobotPolicy(),
    "video": VideoModel(),
    "forward": ForwardDynamics(),
    "inverse": InverseDynamics(),
    "joint": PolicyPlanner(),
}
QUICKSTART = {"policy": 0.40, "video": 0.10, "forward": 0.25, "inverse": 0.10, "joint": 0.15}
SAMPLERS = [ObjectiveSampler, OneObjectivePerBatch]


def present(samples, action=None):
    everything = torch.ones(samples, dtype=torch.bool)
    return {"video": everything, "action": everything if action is None else torch.tensor(action)}


def served(plan):
    return {name: rows.stop - rows.start for name, rows in plan.served.items() if rows.start < rows.stop}


def owners(plan):
    """Objective of each sample of the batch, in the batch's order."""
    names = [""] * len(plan.order)
    for name, rows in plan.served.items():
        for sample in plan.order[rows].tolist():
            names[sample] = name
    return names


@pytest.mark.parametrize("kind", SAMPLERS)
def test_the_plan_is_a_pure_function_of_seed_and_step(kind):
    one, other = kind(FIVE, seed=3), kind(FIVE, seed=3)
    for step in (0, 1, 17):
        one(step + 5, present(8))
        first, second = one(step, present(8)), other(step, present(8))
        assert first.order.equal(second.order)
        assert first.served == second.served


def test_seed_and_step_change_who_serves_what():
    def order(seed, step):
        return ObjectiveSampler(FIVE, seed=seed)(step, present(64)).order

    base = order(0, 0)
    assert not any(base.equal(order(*numbers)) for numbers in [(1, 0), (0, 1)])


# -- several processes ------------------------------------------------------------------------------------------------


class Everyone(GlobalBatch):
    """The whole batch without processes: what those of the others have is given."""

    flags = None

    def every(self, flags):
        start = self.rank * self.samples
        everything = self.flags if self.flags is not None else torch.ones(self.total, dtype=torch.bool)
        whole = flags.new_zeros(len(flags), self.total)
        for number, objective in enumerate(self.objectives.values()):
            whole[number] = everything if "action" in objective.eligible() else True
        assert whole[:, start : start + self.samples].equal(flags)
        return whole


def split(kind, shares, step, world, action=None, samples=64):
    """Plans of all processes, and who serves what in the whole batch."""
    flags = torch.ones(samples, dtype=torch.bool) if action is None else torch.tensor(action)
    sampler, share = kind(FIVE, shares), samples // world
    plans, names = [], []
    for rank in range(world):
        whole = Everyone(share, rank, world)
        object.__setattr__(whole, "flags", flags)
        object.__setattr__(whole, "objectives", sampler.objectives)
        here = flags[rank * share : (rank + 1) * share]
        plans.append(sampler(step, {"video": torch.ones(share, dtype=torch.bool), "action": here}, whole))
        names += owners(plans[-1])
    return plans, names


MIXED = [place % 3 != 0 for place in range(64)]
VIDEO_ONLY_FIRST = [place >= 32 for place in range(64)]


@pytest.mark.parametrize("kind", SAMPLERS)
@pytest.mark.parametrize("action", [None, MIXED, VIDEO_ONLY_FIRST])
def test_who_serves_what_does_not_depend_on_the_number_of_processes(kind, action):
    for step in range(8):
        (alone,), names = split(kind, QUICKSTART, step, 1, action)
        for world in (2, 4, 8):
            plans, others = split(kind, QUICKSTART, step, world, action)
            assert others == names
            assert all(plan.share == alone.share for plan in plans)
            assert all(set(plan.served) == set(FIVE) for plan in plans), "also those without rows"


@pytest.mark.parametrize("world", [2, 4, 8])
def test_the_shares_hold_in_the_whole_batch_and_evenly_over_the_processes(world):
    counts = dict.fromkeys(FIVE, 0)
    for step in range(25):
        plans, names = split(ObjectiveSampler, QUICKSTART, step, world)
        for name, share in QUICKSTART.items():
            assert abs(names.count(name) - share * 64) < 1.5
            assert plans[0].share[name] == names.count(name) / 64
            counts[name] += names.count(name)
            assert abs(counts[name] - share * 64 * (step + 1)) <= 1
            here = [plan.served[name].stop - plan.served[name].start for plan in plans]
            assert max(here) - min(here) <= 1


@pytest.mark.parametrize("world", [3, 6])
def test_processes_whose_number_is_no_power_of_two_have_nearly_equal_work(world):
    for step in range(10):
        plans, _ = split(ObjectiveSampler, QUICKSTART, step, world, samples=96)
        for name in FIVE:
            here = [plan.served[name].stop - plan.served[name].start for plan in plans]
            assert max(here) - min(here) <= 5


def test_who_serves_what_is_no_fixed_pattern():
    """The sets of a mixture alternate: an objective must not always meet the same one."""
    first = [split(ObjectiveSampler, None, step, 1)[1] for step in range(100)]
    for name in FIVE:
        even = sum(names[::2].count(name) for names in first)
        assert even == pytest.approx(100 * 64 / 10, rel=0.1)
        at_the_begin = sum(names[0] == name for names in first)
        assert 8 <= at_the_begin <= 34


def test_one_objective_per_batch_is_the_same_in_every_process():
    for step in range(20):
        plans, names = split(OneObjectivePerBatch, QUICKSTART, step, 4)
        assert len(set(names)) == 1
        _, mixed = split(OneObjectivePerBatch, QUICKSTART, step, 4, VIDEO_ONLY_FIRST)
        assert set(mixed[:32]) == {"video"}
        assert mixed[32:] == names[32:], "the turn is the same, and those that cannot serve it serve what they can"


def test_samples_said_to_be_alike_must_be():
    sampler, whole = ObjectiveSampler(FIVE), GlobalBatch(4, 1, 2, alike=True)
    assert sum(served(sampler(0, present(4), whole)).values()) == 4
    with pytest.raises(ValueError, match=r"data\.samples\(\) of the datamodule has one kind of sample only"):
        sampler(0, present(4, [True, False, True, True]), whole)


def test_the_facts_tell_whether_samples_can_serve_the_same():
    both, silent = {name: flags[:1] for name, flags in present(2).items()}, present(1, [False])
    assert ObjectiveSampler(FIVE).check({"a": both, "b": {**both, "text": torch.tensor([False])}})
    assert not ObjectiveSampler(FIVE).check({"a": both, "b": silent})
    assert ObjectiveSampler({"video": VideoModel()}).check({"a": both, "b": silent}), "no one needs the difference"


@pytest.mark.parametrize("kind", SAMPLERS)
def test_every_sample_serves_exactly_once(kind):
    for step in range(20):
        plan = kind(FIVE, QUICKSTART)(step, present(13))
        assert sorted(plan.order.tolist()) == list(range(13))
        assert sum(served(plan).values()) == 13


@pytest.mark.parametrize("shares", [None, QUICKSTART, {**QUICKSTART, "video": 0.0}])
@pytest.mark.parametrize("samples", [1, 3, 8, 64])
def test_the_shares_hold_to_within_a_sample_at_any_time(shares, samples):
    sampler, counts = ObjectiveSampler(FIVE, shares), dict.fromkeys(FIVE, 0)
    for step in range(100):
        for name, count in served(sampler(step, present(samples))).items():
            counts[name] += count
        for name, share in sampler.shares.items():
            assert abs(counts[name] - share * samples * (step + 1)) <= 1.0


@pytest.mark.parametrize("samples", [1, 2, 64])
def test_small_shares_in_small_batches_are_served_and_no_count_is_negative(samples):
    sampler = ObjectiveSampler(FIVE, {"policy": 0.4, "video": 0.01, "forward": 0.005, "inverse": 0.185, "joint": 0.4})
    counts = dict.fromkeys(FIVE, 0)
    for step in range(1000):
        for name, count in served(sampler(step, present(samples))).items():
            assert count > 0
            counts[name] += count
    assert all(abs(counts[name] - share * 1000 * samples) <= 2 for name, share in sampler.shares.items())


def test_uneven_shares_hold_to_within_a_sample_too():
    sampler = ObjectiveSampler(FIVE, {"policy": 33, "video": 13, "forward": 1, "inverse": 1, "joint": 3})
    counts = dict.fromkeys(FIVE, 0)
    for step in range(120):
        (name,) = served(sampler(step, present(1)))
        counts[name] += 1
        assert all(abs(counts[name] - share * (step + 1)) < 1 for name, share in sampler.shares.items())


def test_one_objective_per_batch_keeps_the_shares_in_every_stretch():
    sampler, turns = OneObjectivePerBatch(FIVE, QUICKSTART), []
    for step in range(200):
        (name,) = served(sampler(step, present(4)))
        turns.append(name)
    for start in (0, 37, 111):
        for name, share in sampler.shares.items():
            assert abs(turns[start : start + 60].count(name) - share * 60) <= 2


@pytest.mark.parametrize("kind", SAMPLERS)
def test_samples_without_actions_serve_only_what_needs_none(kind):
    flags = [True, False] * 8
    for step in range(10):
        names = owners(kind(FIVE)(step, present(16, flags)))
        assert {name for name, flag in zip(names, flags, strict=True) if not flag} == {"video"}
        assert all(names)


def test_samples_with_actions_leave_the_video_model_to_those_without():
    names = owners(ObjectiveSampler(FIVE)(0, present(20, [True, False] * 10)))
    assert "video" not in {names[sample] for sample in range(0, 20, 2)}


def test_a_batch_without_actions_keeps_the_shares_among_what_is_left():
    sampler = ObjectiveSampler({**FIVE, "slow": VideoModel()}, {**QUICKSTART, "slow": 0.30})
    assert served(sampler(0, present(20, [False] * 20))) == {"video": 5, "slow": 15}


def test_a_sample_that_fits_no_objective_is_named():
    with pytest.raises(ValueError, match=r"2 of 4 samples fit no objective: .*'policy': \['action'\]"):
        ObjectiveSampler({"policy": RobotPolicy()})(0, present(4, [True, False, True, False]))


def test_a_share_of_zero_switches_off_and_does_not_count_as_a_place_to_serve():
    sampler = ObjectiveSampler({"policy": RobotPolicy(), "video": VideoModel()}, {"policy": 1.0, "video": 0.0})
    assert served(sampler(0, present(8))) == {"policy": 8}
    with pytest.raises(ValueError, match="fit no objective"):
        sampler(0, present(2, [True, False]))


def test_an_objective_without_needs_takes_everything():
    class Anything(Objective, ABC):  # a base class is not registered
        def visible(self, tokens, rng):
            raise AssertionError("not asked here")

    assert served(ObjectiveSampler({"any": Anything()})(0, present(3, [True, False, True]))) == {"any": 3}


@pytest.mark.parametrize(
    ("shares", "words"),
    [
        (dict.fromkeys(FIVE, 0.0), "positive sum"),
        ({**QUICKSTART, "joint": -0.1}, "not negative"),
        ({**QUICKSTART, "joint": float("nan")}, "not negative"),
        ({**QUICKSTART, "jont": 0.1}, "'jont'.*name each once"),
        ({"policy": 1.0}, "name each once"),
    ],
)
def test_wrong_shares_are_refused(shares, words):
    with pytest.raises(ValueError, match=words):
        ObjectiveSampler(FIVE, shares)


def test_no_objective_and_no_flags_are_refused():
    with pytest.raises(ValueError, match="set model.objectives"):
        ObjectiveSampler({})
    with pytest.raises(ValueError, match=r"Batch\.present is empty"):
        ObjectiveSampler(FIVE)(0, {})


def test_each_head_runs_on_one_slice_for_uvas_five():
    for step in range(10):
        plan = ObjectiveSampler(dict(reversed(FIVE.items())), QUICKSTART)(step, present(16))
        assert {modality: type(rows) for modality, rows in plan.predicts.items()} == {"video": slice, "action": slice}


def test_rows_of_a_head_are_those_of_its_objectives():
    plan = Plan(torch.arange(6), {"a": slice(0, 2), "b": slice(2, 3), "c": slice(3, 6)}, _three())
    assert plan.predicts["action"].tolist() == [0, 1, 3, 4, 5]
    assert plan.predicts["video"] == slice(2, 3)


def test_each_row_sees_what_its_own_objective_shows():
    values = {"past_video": torch.zeros(6, 2, 4, 1), "video": torch.zeros(6, 2, 4, 1), "action": torch.zeros(6, 4, 1)}
    plan = Plan(torch.arange(6), {"a": slice(0, 2), "b": slice(2, 3), "c": slice(3, 6)}, _three())
    seen = plan.visible(Tokens(values), Draws(0, 0, torch.arange(6)))
    assert seen.past_video.flatten(1).all(dim=1).tolist() == [True] * 3 + [False] * 3
    assert seen.action.all(dim=1).tolist() == [False, False, True, False, False, False]
    assert seen.video.flatten(1).all(dim=1).tolist() == [False] * 3 + [True] * 3


def _three():
    return {"a": RobotPolicy(), "b": ForwardDynamics(), "c": InverseDynamics()}
