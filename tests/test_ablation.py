"""`uva ablate`: what is compared, what the numbers say, and a whole run that is killed and goes on."""

from __future__ import annotations

import copy
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml

from uva_lightning.ablation.measure import renumbered
from uva_lightning.ablation.plan import ALL, Variant, plan, run_config
from uva_lightning.ablation.run import Outcome, Run, refuse_other
from uva_lightning.commands.ablate import ablate
from uva_lightning.commands.data_source import gather_training
from uva_lightning.commands.errors import UserError
from uva_lightning.commands.long_work import alone
from uva_lightning.commands.training import read_training

SRC = Path(__file__).parents[1] / "src"


@pytest.fixture(scope="module")
def quickstart():
    return read_training(["--config", "configs/quickstart.yaml"])


@pytest.fixture
def experiment(quickstart):
    return copy.deepcopy(quickstart)


# -- what is compared ---------------------------------------------------------------------------------------------


def test_every_objective_balancer_and_sampler_is_a_variant(experiment):
    planned = plan(experiment, {"uva_lightning.balancers.surgery": "needs torchjd", "uva_lightning.envs": "needs gym"})
    variants = {variant.name: variant for variant in planned.variants}
    assert planned.variants[0].name == ALL
    for name in experiment["model"]["objectives"]:
        without = variants[f"without-{name}"]
        assert name not in without.trains
        assert list(without.model["objectives"]) == list(without.trains)
        assert list(without.model["sampler"]["init_args"]["shares"]) == list(without.trains)
        assert without.model["heads"] == experiment["model"]["heads"]
    assert variants["LossScale"].model["balancer"]["class_path"].endswith(".LossScale")
    assert "FixedWeights" not in variants  # it is in use
    assert variants["OneObjectivePerBatch"].model["sampler"]["init_args"] == experiment["model"]["sampler"]["init_args"]
    assert planned.left_out["surgery"] == "needs torchjd"
    assert planned.left_out["Curriculum"] == "stages must be given"
    assert "envs" not in planned.left_out


def test_a_config_with_another_balancer_is_compared_with_the_usual_one(experiment):
    found = {variant.name: variant.model["balancer"] for variant in plan(experiment, {}).variants}
    experiment["model"]["balancer"] = found["LossScale"] | {"init_args": {"decay": 0.9}}
    names = [variant.name for variant in plan(experiment, {}).variants]
    assert "FixedWeights" in names
    assert "LossScale" not in names


def test_a_stage_that_would_be_empty_leaves_the_variant_out(experiment):
    shares = {"first": {"shares": {"video": 1.0}, "steps": 5}, "then": {"shares": {"video": 0.5, "policy": 0.5}}}
    sampler = {"class_path": "uva_lightning.curriculum.Curriculum", "init_args": {"stages": shares}}
    experiment["model"]["sampler"] = sampler
    planned = plan(experiment, {})
    assert planned.left_out["without-video"] == "shares would have nothing left to train"
    without = next(variant for variant in planned.variants if variant.name == "without-policy")
    assert without.model["sampler"]["init_args"]["stages"]["then"] == {"shares": {"video": 0.5}}


def test_the_config_of_a_run_differs_where_it_must(experiment, tmp_path):
    planned = plan(experiment, {})
    variant = planned.variants[1]
    config = run_config(planned, variant, 7, 12, tmp_path / "run", tmp_path / "latents")
    assert (config["seed_everything"], config["model"]["seed"], config["trainer"]["max_steps"]) == (7, 7, 12)
    assert config["data"]["init_args"]["seed"] == experiment["data"]["init_args"]["seed"]
    assert config["data"]["init_args"]["encoding"]["cache_dir"] == str(tmp_path / "latents")
    names = [entry["class_path"].rpartition(".")[2] for entry in config["trainer"]["callbacks"]]
    assert names[0] == "EMA"
    assert names.count("ModelCheckpoint") == 1
    assert "RunProgress" not in names
    assert config["trainer"]["callbacks"][-1]["init_args"]["every_n_train_steps"] == 3
    assert experiment["trainer"]["max_steps"] == 6000
    assert variant.model["seed"] == experiment["model"]["seed"]


def test_variants_are_chosen_by_name(experiment):
    planned = plan(experiment, {})
    assert [variant.name for variant in planned.chosen(["without-video"]).variants] == [ALL, "without-video"]
    with pytest.raises(UserError, match="no variant 'without-vidio'. Did you mean 'without-video'"):
        planned.chosen(["without-vidio"])
    with pytest.raises(UserError, match="'Curriculum' cannot be trained: stages must be given"):
        planned.chosen(["Curriculum"])


def test_a_file_laid_over_the_experiment_is_a_variant(experiment):
    overlay = ["--config", "configs/quickstart.yaml", "--config", "configs/options/action_only.yaml"]
    variant = plan(experiment, {}, {"action_only": read_training(overlay)}).chosen(["action_only"]).variants[1]
    assert (variant.name, variant.trains) == ("action_only", ("policy",))
    assert variant.model["sampler"]["init_args"]["shares"] == dict.fromkeys(experiment["model"]["objectives"], 0.0) | {
        "policy": 1.0
    }
    assert {**variant.model, "sampler": None} == {**experiment["model"], "sampler": None}


def test_a_file_may_change_training_alone(experiment):
    changed = copy.deepcopy(experiment)
    changed["model"]["heads"]["video"]["init_args"]["steps"] = 7
    with pytest.raises(UserError, match=r"more_steps changes model.heads.video.init_args.steps to 7, expected changes"):
        plan(experiment, {}, {"more_steps": changed})
    changed = copy.deepcopy(experiment)
    changed["data"]["init_args"]["batch_size"] = 3
    with pytest.raises(UserError, match=r"less changes data.init_args.batch_size to 3"):
        plan(experiment, {}, {"less": changed})
    with pytest.raises(UserError, match="Two variants are called 'all'; rename the file all.yaml"):
        plan(experiment, {}, {"all": experiment})
    changed = copy.deepcopy(experiment)
    changed["model"]["objectives"] = {"any": changed["model"]["objectives"]["policy"]}
    changed["model"]["sampler"]["init_args"]["shares"] = None
    assert plan(experiment, {}, {"one": changed}).variants[-1].trains == tuple(experiment["model"]["objectives"])


def test_two_files_of_one_name_are_refused(uva, tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "less.yaml").write_text("model: {}")
    files = f"{tmp_path}/a/less.yaml,{tmp_path}/b/less.yaml"
    status, _, complaint = uva("ablate", "--config", "configs/quickstart.yaml", "--variants", files)
    assert (status, "Two files of --variants are called 'less'" in complaint) == (2, True), complaint


def test_one_objective_is_nothing_to_leave_out(experiment):
    experiment["model"]["objectives"] = {"policy": experiment["model"]["objectives"]["policy"]}
    with pytest.raises(UserError, match=r"has 1 objective \(policy\), expected at least 2"):
        plan(experiment, {})


def test_weights_of_objectives_keep_their_owner():
    state = {
        "objectives.0.w": torch.zeros(1),
        "objectives.1.w": torch.ones(1),
        "balancer.x": torch.ones(1),
        "a": torch.ones(2),
    }
    placed = renumbered(state, ["p", "q", "r"], ["p", "r"])
    assert {key: value.sum().item() for key, value in placed.items()} == {
        "objectives.0.w": 0,
        "objectives.2.w": 1,
        "a": 2,
    }


# -- the folder and the command -----------------------------------------------------------------------------------


def test_a_folder_of_another_ablation_is_refused(tmp_path):
    before = {"steps": 5, "config": {"model": {"optimizer": {"lr": 0.1}}}}
    refuse_other(tmp_path / "f", before, copy.deepcopy(before))
    now = {"steps": 5, "config": {"model": {"optimizer": {"lr": 0.2}}}}
    with pytest.raises(
        UserError, match=r"holds an ablation with model\.optimizer\.lr=0\.1, but now it is 0\.2; .*--out"
    ):
        refuse_other(tmp_path / "f", before, now)


def test_two_cannot_work_in_one_folder(tmp_path):
    with (
        alone(tmp_path / ".lock", "uva ablate"),
        pytest.raises(UserError, match="Another 'uva ablate' works in"),
        alone(tmp_path / ".lock", "uva ablate"),
    ):
        pass


def test_what_cannot_be_trained_or_measured_is_left_out():
    outcome = Outcome()
    first, second = (Run(Variant("less", ("a",), {}), seed) for seed in (1, 2))
    outcome.add(first, {"not_finite": []})
    outcome.add(second, {"not_finite": ["policy/action"]})
    assert outcome.results == {}
    assert outcome.left_out == {"less": "policy/action is not finite with seed 2"}
    with pytest.raises(UserError, match="The experiment itself cannot be trained: it is broken"):
        outcome.leave_out(Run(Variant(ALL, ("a",), {}), 1), "it is broken")


def test_options_of_training_are_told_from_its_own():
    argv = ["--seeds", "2", "--config", "a.yaml", "--model.x=-1", "--out=o", "--trainer.y", "-3", "-c", "b.yaml"]
    own, theirs = (
        ["--seeds", "2", "--out=o"],
        ["--config", "a.yaml", "--model.x=-1", "--trainer.y", "-3", "-c", "b.yaml"],
    )
    assert gather_training(ablate, argv) == [*own, f"--training={json.dumps(theirs)}"]
    assert gather_training(ablate, ["--seeds", "2"]) == ["--seeds", "2"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--seeds", "0"], "seeds is 0, expected at least 1; set --seeds."),
        (["--starts=-1"], "starts is -1, expected at least 0"),
        (["--jobs=-1"], "jobs is -1, expected 0 or more"),
        (["--variants", "without-vidoe"], "There is no variant 'without-vidoe'. Did you mean 'without-video'?"),
        (["--check", "nowhere.json"], "nowhere.json cannot be read"),
        (["--model.optimizer.lt", "1"], "Unknown"),
    ],
)
def test_mistakes_are_told_at_once(uva, options, said, tmp_path):
    status, _, complaint = uva_status(
        uva, "ablate", "--config", "configs/quickstart.yaml", "--out", tmp_path / "o", *options
    )
    assert status == 2
    assert said in complaint
    assert not (tmp_path / "o").exists()


def uva_status(uva, *args):
    try:
        return uva(*args)
    except SystemExit as stop:  # the parser's own way
        return stop.code, "", "Unknown"


# -- all of it ----------------------------------------------------------------------------------------------------


def command(tiny_run, folder):
    config = tiny_run(folder, 9)
    content = yaml.safe_load(config.read_text())
    rollout = {"class_path": "Rollout", "init_args": {"env": "pusht", "episodes": 1, "seed": 5}}
    content["trainer"]["callbacks"].append(rollout)
    config.write_text(yaml.safe_dump(content))
    options = ["--seeds", 2, "--steps", 2, "--windows", 16, "--starts", 1, "--jobs", 2, "--variants", "without-video"]
    return ["ablate", "--config", config, "--out", folder / "out", *options]


@pytest.mark.slow
def test_a_killed_ablation_goes_on_and_repeats_itself(uva, tiny_run, tmp_path):
    arguments = [str(argument) for argument in command(tiny_run, tmp_path / "exp")]
    out = tmp_path / "exp" / "out"
    script = "import sys; from uva_lightning.cli import main; sys.exit(main())"
    env = os.environ | {"PYTHONPATH": str(SRC), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen([sys.executable, "-c", script, *arguments], env=env, stderr=subprocess.DEVNULL)
    end = time.monotonic() + 300
    while not list(out.glob("*/seed-*/result.json")):
        assert process.poll() is None
        assert time.monotonic() < end
        time.sleep(0.1)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    kept = {path: path.stat().st_mtime for path in out.glob("*/seed-*/result.json")}
    status, shown, complaint = uva(*arguments)
    while status == 2 and "or a process that one has left behind" in complaint:  # it ends by itself
        assert time.monotonic() < end
        time.sleep(0.5)
        status, shown, complaint = uva(*arguments)
    assert status == 0, complaint
    assert all(path.stat().st_mtime == moment for path, moment in kept.items())
    first = json.loads((out / "ablation.json").read_text())
    names = {column["name"]: column["kind"] for column in first["measures"]}
    assert {"policy/action", "video/video", "robot policy", "policy + planner", "inverse dynamics"} < set(names)
    assert list(first["trained"]) == ["all", "without-video"]
    assert (out / "ablation.png").stat().st_size > 1000
    assert "| without-video |" in (out / "ablation.md").read_text() in shown
    assert not list(out.glob("*/*/checkpoints"))
    (out / "without-video" / "seed-43" / "result.json").unlink()
    (out / "ablation.json").rename(out / "earlier.json")
    status, shown, complaint = uva(*arguments, "--check", str(out / "earlier.json"))
    assert status == 0, complaint
    assert "The ranking is reproduced." in shown
    again = json.loads((out / "ablation.json").read_text())
    assert again["measures"] == first["measures"]  # bit for bit
    (out / "without-video" / "seed-43" / "result.json").unlink()
    status, shown, complaint = uva(*arguments, "--keep")
    assert status == 0, complaint
    assert [path.parent.parent.name for path in out.glob("*/*/checkpoints/last.ckpt")] == ["seed-43"]
    status, _, complaint = uva(*arguments, "--data.batch_size", "3")
    assert status == 2
    assert "holds an ablation with data.init_args.batch_size=4, but now it is 3" in complaint
