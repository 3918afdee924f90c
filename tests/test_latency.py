"""Late decisions: what is run meanwhile, and what it does to score and jerk."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("gymnasium")
pytest.importorskip("pymunk")
pytest.importorskip("cv2")

import untrained

from uva_lightning.envs.games import Start
from uva_lightning.evaluation.checkpoints import Checkpoint, Given
from uva_lightning.evaluation.contenders import baseline
from uva_lightning.evaluation.content import content
from uva_lightning.evaluation.latency import Late, actor_for
from uva_lightning.evaluation.page import markdown
from uva_lightning.evaluation.run import Outcome
from uva_lightning.evaluation.suite import Scenario, suite_of
from uva_lightning.metrics.jerk import jerks, mean_jerk
from uva_lightning.rollouts import Episode, RolloutResult, run_rollouts

EXECUTE, HORIZON = 4, 8


class Counting:
    """Its chunk number n says 100 n, 100 n + 1, ...; the step that each action is meant for follows from both."""

    def __init__(self):
        self.asked = []

    def reset(self, seed):
        self.calls = 0

    def act(self, observation, committed=None):
        self.asked.append(committed)
        chunk = 100 * self.calls + np.arange(HORIZON, dtype=np.float32)
        self.calls += 1
        return np.tile(chunk[:, None], (len(observation["episode"]["seed"]), 1, 1))


def seen(*seeds):
    return {"episode": {"seed": np.array(seeds)}}


def test_the_last_chunk_goes_on_until_the_new_one_is_there():
    late = Late(Counting(), EXECUTE, 3)
    late.reset(0)
    first, second, third = (late.act(seen(1, 2))[1, :, 0].tolist() for _ in range(3))
    assert first[:EXECUTE] == [0, 1, 2, 3], "an episode begins when its first chunk is there"
    assert second[:EXECUTE] == [4, 5, 6, 103], "the new chunk is entered at the step it was meant for"
    assert third[:EXECUTE] == [104, 105, 106, 203]
    assert third[EXECUTE:] == [204, 205, 206, 207]
    late.reset(0)
    assert late.act(seen(1))[0, 0, 0] == 0
    alone = late.act(seen(1))
    assert alone[0, :EXECUTE, 0].tolist() == [4, 5, 6, 103]


def test_a_policy_is_told_what_it_is_committed_to():
    actor = Counting()
    late = Late(actor, EXECUTE, 2, chunking=actor)
    late.reset(0)
    late.act(seen(1, 2))
    late.act(seen(2))
    assert actor.asked[0] is None
    (rest,) = actor.asked[1]
    assert (rest.actions[:, 0].tolist(), rest.delay) == ([4, 5, 6, 7], 2)


def test_where_a_chunk_runs_out_its_last_action_is_repeated():
    late = Late(Counting(), HORIZON - 1, 3)
    late.reset(0)
    late.act(seen(1))
    assert late.act(seen(1))[0, :5, 0].tolist() == [7, 7, 7, 103, 104]


@pytest.mark.parametrize("delay", [0, 5])
def test_decisions_that_overlap_are_refused(delay):
    with pytest.raises(ValueError, match=f"Decisions take {delay} control steps, expected 1 to 4"):
        Late(Counting(), EXECUTE, delay)


def test_jerk_is_the_third_difference():
    time = 0.1 * np.arange(10)
    path = np.stack((2 * time**3, np.zeros(10), 1.5 * time**3), axis=1)
    assert jerks(path[:, [0, 2]], 10.0) == pytest.approx(np.full(7, 15.0))  # 6 * (2, 1.5) has length 15
    assert mean_jerk(list(path), (2,), 10.0) == pytest.approx(9.0)
    assert mean_jerk(list(path[:3]), (0,), 10.0) is None


@pytest.fixture(scope="module")
def model(tmp_path_factory, tiny_data):
    """A contender that was not trained, with a flow-matching head."""
    path = untrained.checkpoint(tmp_path_factory.mktemp("late") / "first/checkpoints/last.ckpt", tiny_data())
    return Checkpoint(Given("model", path), 8, "cpu", 1, None)


def test_a_model_that_continues_makes_no_jumps(model):
    found = {}
    for latency, continued in ((0, False), (4, False), (4, True)):
        scenario = Scenario("one", "pusht", [Start(1)], latency=latency, continued=continued)
        actor, spec = actor_for(scenario, model), model.policy.spec
        found[latency, continued] = run_rollouts(actor, "pusht", spec, (1, 2), max_steps=24, progress=False)
    jerk = {how: result.jerk for how, result in found.items()}
    assert len({round(value, 3) for value in jerk.values()}) == 3
    assert jerk[4, True] < jerk[4, False]


def test_who_cannot_says_why(model):
    late, continued = (Scenario("x", "pusht", [Start(1)], latency=2, continued=more) for more in (False, True))
    assert isinstance(actor_for(late, baseline("hold", 8)), Late)
    with pytest.raises(ValueError, match="hold cannot continue a chunk under way, expected a checkpoint"):
        actor_for(continued, baseline("hold", 8))
    with pytest.raises(ValueError, match="The expert acts from the state"):
        actor_for(late, baseline("expert", 8))
    all_run = Checkpoint(Given("all", Path(model.place)), 16, "cpu", 1, None)
    with pytest.raises(ValueError, match=r"no action is left to continue; lower execute"):
        actor_for(continued, all_run)


def test_the_report_shows_score_and_jerk_for_each_latency():
    def result(jerk):
        return RolloutResult("pusht", 8, tuple(Episode(seed, 0.5, False, 24, jerk) for seed in (1, 2)))

    starts, theirs = [Start(1), Start(2)], "Theirs wait."
    scenarios = [
        Scenario("now", "pusht", starts, protocol=theirs),
        Scenario("late", "pusht", starts, protocol=theirs, latency=4),
    ]
    contenders = [baseline("hold", 8), baseline("expert", 8)]
    outcome = Outcome({"now": {"hold": result(3.5), "expert": result(None)}, "late": {"hold": result(12350.0)}})
    found = content(scenarios, contenders, outcome, {})
    assert (found["scenarios"]["late"]["latency"], found["scenarios"]["late"]["continued"]) == (4, False)
    assert found["scenarios"]["late"]["results"]["hold"]["jerk_interval"] == [12350.0, 12350.0]
    called = {"suite": "latency", "command": "uva eval", "missing": {}, "seconds": 1.0, "crashes": 0, "held_out": {}}
    page = re.sub(" +", " ", markdown({**called, "replay": {"skipped": "no."}, **found}))
    assert "| hold | 3.5 (3.5 to 3.5) | 1.235e+04 (1.235e+04 to 1.235e+04) |" in page
    assert "| expert | – | – |" in page.split("## Jerk")[1]
    assert "| hold | pusht | 4 | 0.500 (0.500 to 0.500) | 0.000 (0.000 to 0.658) | 1.235e+04 (" in page
    assert "now; late: Theirs wait." in page


def test_the_suite_has_every_latency():
    scenarios = suite_of("latency", episodes=3).scenarios()
    assert [(one.latency, one.continued) for one in scenarios] == [
        (0, False), (1, False), (1, True), (2, False), (2, True), (4, False), (4, True), (8, False), (8, True),
    ]  # fmt: skip
    assert {one.against for one in scenarios[1:]} == {scenarios[0].name}
    assert len({one.name for one in scenarios}) == 9
    with pytest.raises(ValueError, match="is continued, expected 0 steps or more, and some to continue"):
        Scenario("x", "pusht", [Start(1)], continued=True)
