"""EMA x strategy x precision x resume: what may be combined is exact, what may not is refused at the start."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from pathlib import Path

import pytest
import strategy_runs as runs
import torch
import yaml
from lightning.pytorch import Trainer

from uva_lightning.model.checkpoint import load_module

STATE = ("state_dict", "current_model_state", "optimizer_states", "lr_schedulers", "callbacks", "global_step")
PRECISIONS = ("32-true", "bf16-mixed", "16-mixed")
TWO = {
    f"{strategy} {precision}{' ema' if ema else ''}": {
        "strategy": strategy,
        "precision": precision,
        "ema": ema,
        "devices": 2,
    }
    for strategy, precision, ema in itertools.product(("ddp", "fsdp"), PRECISIONS, (False, True))
    if (strategy, precision) != ("fsdp", "16-mixed")  # refused, see below
    and (precision == "32-true" or ema)  # without an average there is less that could go wrong
}
MORE = {
    "fsdp compiled": {**TWO["fsdp bf16-mixed ema"], "compile": "aot_eager", "accumulate": 2, "grid": True},
    "ddp compiled": {**TWO["ddp bf16-mixed ema"], "compile": "aot_eager", "accumulate": 2, "grid": True},
    "fsdp started": {**TWO["fsdp 32-true ema"], "start": "ddp 32-true ema"},
    "fsdp after ddp": {**TWO["fsdp 32-true ema"], "from": "ddp 32-true ema"},
}
ONE = {name.replace("ddp", "one"): {**case, "strategy": "auto", "devices": 1} for name, case in TWO.items()}
ONE = {name: case for name, case in ONE.items() if case["ema"] and name.startswith("one")}


def written(folder, tiny_run):
    folder.mkdir()
    run = yaml.safe_load(tiny_run(folder, runs.STEPS).read_text())
    run["data"]["init_args"] |= {"val_ratio": 0.2}
    run["model"]["transformer"]["init_args"] |= {"checkpoint_blocks": True, "dropout": 0.0}
    run["model"]["optimizer"] = {"lr": 3e-3, "warmup_steps": 1}
    config = yaml.safe_dump({"model": run["model"], "data": run["data"]})
    (folder / "config.yaml").write_text(config)
    return config


ROUNDING = 1e-4  # AdamW divides gradients that are little more than rounding; the weights move by 100 times as much


@pytest.fixture(scope="module")
def two(tiny_run, tmp_path_factory):
    """The folder of all cases of two processes, and what each process found."""
    folder = tmp_path_factory.mktemp("strategies") / "two"
    written(folder, tiny_run)
    return folder, runs.pair(folder, {**TWO, **MORE})


@pytest.fixture(scope="module")
def one(tiny_run, tmp_path_factory):
    """The folder of all cases of one process, and what it found."""
    folder = tmp_path_factory.mktemp("strategies") / "one"
    config = written(folder, tiny_run)
    return folder, {name: runs.run(folder, config, name, case) for name, case in ONE.items()}


def end(folder, name, part="whole"):
    return torch.load(folder / name / part / f"step={runs.STEPS}.ckpt", weights_only=True)


def differences(left, right, near=None, path=""):
    """List the places at which two checkpoints differ; paths of files are no part of the state."""
    if isinstance(left, torch.Tensor):
        equal = torch.equal(left, right) if near is None else torch.allclose(left, right, rtol=0, atol=near)
        return [] if equal else [f"{path}: {(left - right).abs().max()}"]
    if isinstance(left, dict):
        if left.keys() != right.keys():
            return [f"{path}: {left.keys() ^ right.keys()}"]
        return [found for key in left for found in differences(left[key], right[key], near, f"{path}/{key}")]
    if isinstance(left, list | tuple):
        pairs = zip(left, right, strict=True)
        return [found for k, (a, b) in enumerate(pairs) for found in differences(a, b, near, f"{path}/{k}")]
    return [] if left == right or isinstance(left, str) else [f"{path}: {left} {right}"]


def compare(left, right, near=None):
    keys = [key for key in STATE if key in left]
    found = {key: differences(left[key], right[key], near) for key in keys if key != "callbacks"}
    assert not any(found.values()), {key: value[:3] for key, value in found.items() if value}
    assert ("current_model_state" in left) == ("current_model_state" in right)


@pytest.mark.slow
@pytest.mark.parametrize("name", [*TWO, "ddp compiled", "fsdp compiled"])
def test_two_processes_go_on_as_if_never_stopped(two, name):
    folder, _ = two
    whole = end(folder, name)
    compare(whole, end(folder, name, "halves"))
    assert ("current_model_state" in whole) == ("ema" in name or "compiled" in name)


@pytest.mark.slow
@pytest.mark.parametrize("name", ONE)
def test_one_process_goes_on_as_if_never_stopped(one, name):
    folder, found = one
    compare(end(folder, name), end(folder, name, "halves"))
    assert found[name]["fused"] == (ONE[name]["precision"] != "16-mixed")


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in TWO if "fsdp" in name])
def test_parts_of_the_weights_are_trained_as_the_whole(two, name):
    """The same checkpoint as of DDP, to rounding, with half of Adam's moments in each process."""
    folder, found = two
    near = 1e-6 if "32" in name else 2e-3
    compare(end(folder, name), end(folder, name.replace("fsdp", "ddp")), near)
    halves = [of[name]["moments"] for of in found]
    assert abs(halves[0] - halves[1]) < 0.1 * sum(halves)
    assert sum(halves) == found[0][name.replace("fsdp", "ddp")]["moments"]
    logged = found[0][name]["logged"]
    assert logged["grad_norm/transformer"] > 1e-5  # there is something to compare
    assert logged == pytest.approx(found[0][name.replace("fsdp", "ddp")]["logged"], rel=1e-4 if "32" in name else 0.02)


@pytest.mark.slow
def test_adamw_is_fused_where_gradients_are_not_scaled(two):
    _, found = two
    assert all(of[name]["fused"] == (case["precision"] != "16-mixed") for of in found for name, case in TWO.items())


@pytest.mark.slow
def test_a_run_may_change_its_strategy(two):
    folder, _ = two
    compare(end(folder, "fsdp after ddp", "halves"), end(folder, "ddp 32-true ema"), 1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_compiled_parts_are_compiled_once(two, strategy):
    _, found = two
    for of in found:
        assert of[f"{strategy} compiled"]["logged"]["compile/recompilations"] == 0
        assert of[f"{strategy} compiled"]["logged"]["compile/graphs"] > 0


@pytest.mark.slow
def test_a_cut_model_starts_from_the_weights_of_another(two):
    folder, _ = two
    started = torch.load(folder / "fsdp started" / "whole" / f"step={runs.HALF}.ckpt", weights_only=True)
    assert not differences(end(folder, "ddp 32-true ema")["state_dict"], started["state_dict"], 1e-12)


@pytest.mark.slow
def test_one_process_loads_what_several_wrote(two):
    folder, _ = two
    module, _ = load_module(folder / "fsdp 32-true ema" / "whole" / f"step={runs.STEPS}.ckpt")
    state = end(folder, "fsdp 32-true ema")["state_dict"]
    assert all(torch.equal(value, state[name]) for name, value in module.state_dict().items() if "extra" not in name)


@pytest.mark.slow
def test_one_process_goes_on_from_what_several_wrote(two, tmp_path):
    folder, _ = two
    half = folder / "fsdp 32-true ema" / "whole" / f"step={runs.HALF}.ckpt"
    runs.train(tmp_path, (folder / "config.yaml").read_text(), ONE["one 32-true ema"], runs.STEPS, half)
    alone = torch.load(tmp_path / f"step={runs.STEPS}.ckpt", weights_only=True)
    compare(alone, end(folder, "fsdp 32-true ema"), ROUNDING)


@pytest.mark.slow
def test_one_process_trains_as_two(one, two):
    compare(end(one[0], "one 32-true ema"), end(two[0], "fsdp 32-true ema"), ROUNDING)


@pytest.mark.slow
def test_the_command_line_cuts_and_compiles_by_an_overlay(tiny_run, tmp_path):
    folder = tmp_path / "run"
    config = tiny_run(folder, 2, devices=2)
    script = folder / "uva.py"
    script.write_text("import sys; from uva_lightning.cli import main; sys.exit(main())")
    env = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1] / "src"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(script), "fit", "--config", str(config), "--config", "options/fsdp"]
    compile = ["--trainer.callbacks+=Compile", "--trainer.callbacks.backend=aot_eager"]
    done = subprocess.run([*command, *compile], env=env, cwd=folder, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "parts of the model are compiled" in done.stderr + done.stdout
    module, _ = load_module(folder / "last.ckpt")
    assert module.transformer.checkpoint_blocks
    assert all(weight.isfinite().all() for weight in module.parameters())


@pytest.mark.parametrize("precision", ["bf16-true", "64-true"])
def test_weights_in_half_precision_are_refused(tmp_path, tiny_data, tiny_module, precision):
    data = tiny_data()
    trainer = Trainer(max_steps=1, precision=precision, default_root_dir=tmp_path, accelerator="cpu", logger=False)
    with pytest.raises(ValueError, match=f"trainer.precision is {precision}, expected one of 32-true"):
        trainer.fit(tiny_module(data.spec), datamodule=data)
