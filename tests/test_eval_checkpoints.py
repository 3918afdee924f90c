"""Checkpoints in `uva eval`: in every way to act, and trainings that count together."""

from __future__ import annotations

import json

import numpy as np
import pytest

pytest.importorskip("pymunk")
pytest.importorskip("shapely")
pytest.importorskip("cv2")
pytest.importorskip("av")

import yaml
from fitted_models import fitted
from untrained import written

from tests.test_acting import CONFIG
from uva_lightning.commands.errors import UserError
from uva_lightning.envs.games import Start
from uva_lightning.evaluation.checkpoints import Checkpoint, Given, OtherWay, checkpoints, untrained, ways
from uva_lightning.evaluation.contenders import baseline
from uva_lightning.evaluation.families import families
from uva_lightning.evaluation.suite import Scenario
from uva_lightning.metrics.intervals import bootstrap_mean, student_mean
from uva_lightning.model.checkpoint import build, load_module
from uva_lightning.rollouts import Episode, RolloutResult, run_rollouts

SHORT = "{class_path: short_suites.ShortSuite, init_args: {steps: 8}}"
PUSHT = Scenario("pusht", "pusht", [Start(5)])


def changed(shares):
    """Give the config of the tiny model with other shares."""
    content = yaml.safe_load(CONFIG)
    content["model"]["sampler"] = {"class_path": "ObjectiveSampler", "init_args": {"shares": shares}}
    return yaml.safe_dump(content)


@pytest.fixture(scope="module")
def runs(tmp_path_factory, tiny_data):
    """Write two trainings of a joint model and one of actions alone, with random weights."""
    folder = tmp_path_factory.mktemp("runs")
    module = fitted(tiny_data(), lambda spec: build(CONFIG)[0])
    for seed in (1, 2):
        written(module, CONFIG, folder / f"joint/seed-{seed}/checkpoints/last.ckpt")
    alone = changed({"policy": 1.0, "video": 0.0, "forward": 0.0, "inverse": 0.0})
    written(module, alone, folder / "alone/seed-1/checkpoints/last.ckpt")
    return folder


@pytest.fixture(scope="module")
def joint(runs):
    return Checkpoint(Given("UVA", runs / "joint/seed-1/checkpoints/last.ckpt"), 8, "cpu", 5, None)


def test_patterns_name_families(runs):
    pattern = f"{runs}/joint/seed-*/checkpoints/last.ckpt"
    one, two, other = checkpoints(f"UVA={pattern},{runs}/alone/seed-1/checkpoints/last.ckpt")
    assert (one.name, one.family, one.training) == ("UVA seed-1", "UVA", "seed-1")
    assert (two.name, two.path) == ("UVA seed-2", runs / "joint/seed-2/checkpoints/last.ckpt")
    assert other == Given("seed-1", runs / "alone/seed-1/checkpoints/last.ckpt")
    with pytest.raises(UserError, match=r"No checkpoint matches .*seed-x\*"):
        checkpoints(f"{runs}/joint/seed-x*/checkpoints/last.ckpt")


def test_ways_to_act_are_named_or_described(tmp_path):
    planner, unipi = ways("Planner,UniPi")
    assert (planner.name, unipi.name) == ("Planner", "UniPi")
    assert unipi.options["init_args"] == {"iterations": 1, "temperature": None}
    file = tmp_path / "actors.yaml"
    file.write_text("far: {class_path: Planner, init_args: {proposals: {class_path: CrossEntropy}, margin: 2}}")
    (far,) = ways(str(file))
    assert far.name == "far"
    assert far.options["init_args"]["proposals"]["init_args"]["rounds"] == 2, "defaults belong to what it follows from"
    with pytest.raises(UserError, match="'Plannner' cannot be made"):
        ways("Plannner")
    with pytest.raises(UserError, match="'UniPi' cannot be made .*iterationz"):
        ways("{UniPi: {class_path: UniPi, init_args: {iterationz: 3}}}")
    with pytest.raises(UserError, match="actors is 7, expected names such as Planner,UniPi"):
        ways("7")
    with pytest.raises(UserError, match="actors cannot be read: .*nowhere.yaml"):
        ways("nowhere.yaml")


@pytest.mark.parametrize("name", ["UniPi", "Planner"])
def test_a_way_acts_as_in_a_rollout(joint, name):
    (way,) = ways(name)
    contender = OtherWay(joint, way)
    assert contender.name == f"UVA {name}"
    assert contender.facts()["actor"] == way.options
    assert {**contender.facts(), "actor": 0} == {**joint.facts(), "actor": 0}

    def played(actor):
        return run_rollouts(actor, "pusht", joint.policy.spec, [5], 8, max_steps=8, progress=False)

    assert played(contender.actor(PUSHT)) == played(way.make(joint.policy))


def test_what_a_way_lacks_is_told(runs, joint):
    (planner, unipi) = ways("Planner,UniPi")
    alone = Checkpoint(Given("UVA-action", runs / "alone/seed-1/checkpoints/last.ckpt"), 8, "cpu", 5, None)
    assert alone.actor(PUSHT) is alone.policy
    with pytest.raises(ValueError, match="UVA-action was trained on no objective that predicts video, expected"):
        OtherWay(alone, unipi).actor(PUSHT)
    with pytest.raises(ValueError, match="'pusht_m' has no fixed goal"):
        OtherWay(joint, planner).actor(Scenario("m", "pusht_m", [Start(5)]))
    (bound,) = ways("{bound: {class_path: Planner, init_args: {imagination: Simulator}}}")
    with pytest.raises(ValueError, match="bound tries chunks in the simulator.*'uva bench planning'"):
        OtherWay(joint, bound).actor(PUSHT)


def test_a_head_of_any_stage_is_trained(runs, joint):
    assert untrained(joint.policy.module) == []
    content = yaml.safe_load(CONFIG)
    stages = {"first": {"shares": {"video": 1.0}, "steps": 5}, "then": {"shares": {"inverse": 1.0}}}
    content["model"]["sampler"] = {"class_path": "Curriculum", "init_args": {"stages": stages}}
    staged = build(yaml.safe_dump(content))[0]
    assert staged.sampler.trained == ["video", "inverse"]
    assert untrained(staged) == []
    assert untrained(load_module(runs / "alone/seed-1/checkpoints/last.ckpt")[0]) == ["video"]


def test_trainings_count_together():
    scores = {"a 1": (0.1, 0.5), "a 2": (0.3, 0.7), "b 2": (0.6, 0.8), "b 1": (0.2, 0.2), "b 3": (1.0, 1.0)}
    contenders, results = [baseline("hold", 8)], {}
    for name, values in scores.items():
        contenders.append(baseline("hold", 8))
        contenders[-1].name, contenders[-1].family, contenders[-1].training = name, name[0], name[-1]
        episodes = tuple(Episode(seed, score, score >= 1, 8) for seed, score in enumerate(values))
        results[name] = RolloutResult("e", 8, episodes)
    found = families(contenders, results)
    assert list(found) == ["a", "b"]
    assert found["a"]["scores"] == pytest.approx([0.3, 0.5])
    assert found["a"]["interval"] == pytest.approx(list(student_mean([0.3, 0.5])))
    assert "difference" not in found["a"]
    gain = found["b"]["difference"]
    assert gain["by_training"] == pytest.approx([0.2, -0.1]), "training 3 has no counterpart"
    assert (gain["n"], gain["starts"], gain["mean"]) == (2, 2, pytest.approx(0.05))
    assert gain["interval"] == pytest.approx(list(student_mean([0.2, -0.1])))
    assert gain["interval_of_starts"] == pytest.approx(list(bootstrap_mean(np.array([0.2, -0.1]))))
    assert found["b"]["success"] == pytest.approx(1 / 3)


@pytest.mark.slow
def test_families_and_ways_are_in_the_report(uva, runs, tmp_path):
    given = ",".join(f"{name}={runs}/{name}/seed-*/checkpoints/last.ckpt" for name in ("joint", "alone"))
    options = ["--suite", SHORT, "--out", tmp_path, "--workers", 1, "--replays", 0, "--episodes", 2]
    status, said, complaint = uva("eval", *options, "--ckpt", given, "--play.actors", "UniPi", "--baselines", "")
    assert status == 0, complaint
    found = json.loads((tmp_path / "results.json").read_text())
    assert list(found["contenders"]) == [
        *("joint seed-1", "joint seed-1 UniPi", "joint seed-2", "joint seed-2 UniPi"),
        *("alone seed-1", "alone seed-1 UniPi"),
    ]
    assert {row["contender"] for row in found["left_out"]} == {"alone seed-1 UniPi"}
    rows = found["scenarios"]["plain"]["families"]
    assert list(rows) == ["joint", "joint UniPi", "alone"]
    assert rows["joint"]["trainings"] == ["seed-1", "seed-2"]
    assert rows["alone"]["difference"]["mean"] == 0.0, "the weights are the same"
    for words in ("## Over trainings", "Difference to joint", "UniPi(iterations=1)", "predicts video"):
        assert words in said
