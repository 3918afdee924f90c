"""Suites of LIBERO and Tool Hang: starts, steps and words; what a policy is told. No simulator is needed."""

import json

import h5py
import numpy as np
import pytest

from uva_lightning.commands.errors import UserError
from uva_lightning.evaluation.content import groups
from uva_lightning.evaluation.run import Outcome
from uva_lightning.evaluation.suite import known_suites, suite_of
from uva_lightning.evaluation.suites.libero import LiberoSuite
from uva_lightning.policy.told import Told
from uva_lightning.rollouts import Episode, RolloutResult
from uva_lightning.simulators.install import write_tasks
from uva_lightning.simulators.installed import MARKER, place_of

NAME, TOLD = "KITCHEN_SCENE3_turn_on_the_stove", "turn on the stove"


@pytest.fixture
def libero(tmp_path, monkeypatch):
    """An installation of LIBERO as far as its lists."""
    place = place_of("libero", tmp_path)
    place.python.parent.mkdir(parents=True)
    place.python.touch()
    root = tmp_path / "packages" / "libero" / "libero"
    (root / "benchmark").mkdir(parents=True)
    maps = {"libero_10": [NAME, "second_task"], "libero_goal": [], "libero_100": []}
    (root / "benchmark" / "libero_suite_task_map.py").write_text(f"libero_task_map = {maps}\n")
    (root / "bddl_files" / "libero_goal").mkdir(parents=True)
    (root / "bddl_files" / "libero_10").mkdir()
    for name in maps["libero_10"]:
        (root / "bddl_files" / "libero_10" / f"{name}.bddl").write_text(f"(define (:language {TOLD})\n (:regions))")
    write_tasks(place, tmp_path / "packages")
    (place.venv / "filled").write_text(place.pinned)
    (place.folder / MARKER).write_text(json.dumps({"pins": place.pinned}))
    monkeypatch.setenv("UVA_ENVS", str(tmp_path))
    return place


def test_uva_counts_three_seeds_of_500_steps(libero):
    first, second = suite_of("libero_10").scenarios()
    assert (first.env, second.env) == ("libero_10/0", "libero_10/1")
    assert [(start.seed, start.options, start.steps) for start in first.starts] == [
        (seed, None, 500) for seed in (100000, 100001, 100002)
    ]
    assert first.instruction == "KITCHEN SCENE3 turn on the stove"
    assert first.paper["UVA"] == 0.90
    assert LiberoSuite(instruction="problem_info").scenarios()[0].instruction == TOLD


def test_the_official_evaluation_begins_from_the_fixed_states(libero):
    scenario = suite_of("libero_10_official").scenarios()[0]
    assert [start.seed for start in scenario.starts] == list(range(50))
    assert scenario.starts[7].options == {"start": 7, "settle": 5}
    assert {start.steps for start in scenario.starts} == {600}
    assert [start.seed for start in suite_of("libero_10_official", 2, 48).scenarios()[0].starts] == [48, 49]
    with pytest.raises(ValueError, match="states 48 to 50 were asked for, there are 0 to 49"):
        suite_of("libero_10_official", 3, 48)


def test_every_suite_of_libero_has_both(libero):
    names = [name for name in known_suites() if name.startswith("libero")]
    assert sorted(names) == sorted(
        f"libero_{x}{y}" for x in (10, 90, "goal", "object", "spatial") for y in ("", "_official")
    )
    assert suite_of("libero_goal").scenarios() == []
    assert suite_of("libero_90_official").benchmark == "libero_90"


def test_a_demonstration_gives_one_more_start(libero, tmp_path):
    states = np.arange(8.0).reshape(2, 4)
    for name in (NAME, "second_task"):
        with h5py.File(tmp_path / f"{name}_demo.hdf5", "w") as file:
            file["data/demo_0/states"] = states
    starts = LiberoSuite(demonstrations=tmp_path).scenarios()[0].starts
    assert starts[-1].seed == 0
    assert starts[-1].options == {"state": (0, 1, 2, 3)}
    (tmp_path / "second_task_demo.hdf5").unlink()
    with pytest.raises(UserError, match=r"second_task_demo.hdf5 does not tell how .* leave demonstrations out"):
        LiberoSuite(demonstrations=tmp_path).scenarios()


def test_without_libero_the_fix_is_told(tmp_path, monkeypatch):
    monkeypatch.setenv("UVA_ENVS", str(tmp_path / "none"))
    with pytest.raises(ImportError, match="run: uva env install libero"):
        suite_of("libero_10").scenarios()


def test_the_score_of_a_suite_is_the_mean_over_its_tasks(libero):
    scenarios = suite_of("libero_10").scenarios()
    scores = {"libero_10/0": (1.0, 0.0, 1.0), "libero_10/1": (0.0, 0.0, 1.0)}
    outcome = Outcome()
    for scenario in scenarios:
        rows = zip(scenario.starts, scores[scenario.name], strict=True)
        episodes = tuple(Episode(start.seed, score, score >= 1, 5) for start, score in rows)
        outcome.results[scenario.name] = {"all": RolloutResult(scenario.env, 8, episodes)}
    outcome.results["libero_10/0"]["part"] = outcome.results["libero_10/0"]["all"]
    found = groups(scenarios, outcome)["libero_10"]
    assert list(found) == ["all"]
    assert found["all"]["scenarios"] == 2
    assert found["all"]["score"] == pytest.approx(0.5)


def test_tool_hang_has_fifty_seeds():
    (scenario,) = suite_of("toolhang").scenarios()
    assert [start.seed for start in scenario.starts] == list(range(100000, 100050))
    assert "not strictly comparable" in scenario.protocol


class Heard:
    """Remembers what it is told."""

    def reset(self, seed):
        self.seed = seed

    def act(self, observation, *, committed=()):
        self.committed = committed
        return observation["text"]["instruction"]


def test_all_episodes_of_a_scenario_hear_its_instruction():
    ahead = Heard()
    told = Told(Heard(), np.arange(3, dtype=np.float32), ahead)
    told.reset(5)
    heard = told.act({"video": {"top": np.zeros((2, 1, 4, 4, 3), np.uint8)}, "state": {}})
    np.testing.assert_array_equal(heard, [[0, 1, 2], [0, 1, 2]])
    assert told.actor.seed == 5
    heard = told.act({"video": {"top": np.zeros((1, 1, 4, 4, 3), np.uint8)}, "state": {}}, committed=[7])
    np.testing.assert_array_equal(heard, [[0, 1, 2]])
    assert ahead.committed == [7], "who continues a chunk hears it, too"
