"""`uva bench train` and the same numbers during training: consistency, counts and names, never speed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.loggers import CSVLogger

from uva_lightning.benchmarks.peak import Peak, compute_dtype, known_peak, measured_peak
from uva_lightning.callbacks.ema import EMA
from uva_lightning.callbacks.step_parts import StepParts
from uva_lightning.callbacks.throughput import Throughput
from uva_lightning.curriculum import Curriculum, Stage
from uva_lightning.step_clock import PARTS

ALONE = {"data", "tokenizer", "trunk", "heads", "heads_backward", "trunk_backward", "optimizer", "other"}
WITH_FLOPS = {"trunk", "heads", "heads_backward", "trunk_backward"}


class Collected(StepParts):
    """Keep a lap per batch, and the FLOPs as they were with it."""

    def __init__(self):
        super().__init__()
        self.laps, self.seen = [], []

    def batch_done(self, trainer, pl_module):
        self.laps.append(self.lap())
        self.seen.append(dict(self.flops))


def fit(tmp_path, module, data, *callbacks, **options):
    defaults = {"max_steps": 4, "limit_val_batches": 0, "log_every_n_steps": 1, "accelerator": "cpu", "devices": 1}
    shown = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = Trainer(
        default_root_dir=tmp_path,
        callbacks=list(callbacks),
        enable_checkpointing=False,
        **{**defaults, **shown, **options},
    )
    trainer.fit(module, datamodule=data)
    return trainer


@pytest.mark.parametrize("ema_last", [False, True])
def test_a_step_is_the_sum_of_its_parts(tmp_path, tiny_data, tiny_module, ema_last):
    data, parts = tiny_data(), Collected()
    callbacks = [parts, EMA()] if ema_last else [EMA(), parts]
    module = tiny_module(data.spec)
    fit(tmp_path, module, data, *callbacks, max_steps=5)
    assert len(parts.laps) == 4  # the first one counted FLOPs
    for lap in parts.laps[1:]:
        assert set(lap.seconds) == ALONE | {"average"}
        assert set(lap.seconds) < set(PARTS)
        assert all(time > 0 for time in lap.seconds.values())
        assert (lap.samples, lap.batches, lap.steps) == (8, 1, 1)
        assert lap.total == sum(lap.seconds.values())
    assert set(parts.flops) == WITH_FLOPS
    assert parts.flops["trunk_backward"] == pytest.approx(2 * parts.flops["trunk"], rel=0.1)


class Wrapped(Callback):
    """See what the model looks like between steps and in them."""

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.inside = "forward" in vars(pl_module.transformer)

    def on_train_batch_end(self, trainer, pl_module, *_):
        self.outside = [
            *("forward" in vars(part) for part in pl_module.modules()),
            *("loss" in vars(head) for head in pl_module.heads.values()),
            "encode" in vars(pl_module.tokenizer),
        ]


def test_wraps_are_there_in_a_step_only(tmp_path, tiny_data, tiny_module):
    data, watch, average = tiny_data(), Wrapped(), EMA()
    fit(tmp_path, tiny_module(data.spec), data, average, Throughput(), watch, max_steps=2)
    assert watch.inside
    assert not any(watch.outside)
    assert "on_train_batch_end" not in vars(average)


class Failing(Callback):
    def on_before_backward(self, *_):
        raise ValueError("enough")


def test_a_failing_step_leaves_no_trace(tmp_path, tiny_data, tiny_module):
    data, parts = tiny_data(), Throughput()
    module = tiny_module(data.spec)
    with pytest.raises(ValueError, match="enough"):
        fit(tmp_path, module, data, parts, Failing())
    assert "forward" not in vars(module.transformer)
    assert not parts._clock.flops.counting
    assert parts._clock.paused


def test_accumulation_and_validation_in_between(tmp_path, tiny_data, tiny_module):
    data, parts = tiny_data(), Collected()
    module = tiny_module(data.spec)
    options = {"limit_val_batches": 1, "val_check_interval": 2, "num_sanity_val_steps": 1}
    fit(tmp_path, module, data, parts, accumulate_grad_batches=2, max_steps=3, **options)
    assert [lap.steps for lap in parts.laps] == [1, 0, 1, 0, 1]
    assert ["optimizer" in lap.seconds for lap in parts.laps] == [True, False, True, False, True]


def test_flops_are_counted_again_where_a_stage_begins(tmp_path, tiny_data, tiny_module):
    def stages(objectives):
        lengths = {"video": Stage({"video": 1}, 2), "policy": Stage({"policy": 1})}
        return Curriculum(objectives, lengths)

    data, parts = tiny_data(), Collected()
    strategy = {"strategy": "auto"}
    fit(tmp_path, tiny_module(data.spec, sampler=stages), data, parts, max_steps=4, **strategy)
    video, policy = parts.seen
    assert len(parts.laps) == 2  # of four, two counted
    assert video["heads"] != policy["heads"]
    assert video["trunk"] == policy["trunk"]


def test_the_callback_logs_what_the_command_says(tmp_path, tiny_data, tiny_module):
    data = tiny_data()
    logger = CSVLogger(tmp_path, name="", version="run", flush_logs_every_n_steps=1)
    trainer = fit(tmp_path, tiny_module(data.spec), data, EMA(), Throughput(), logger=logger, log_every_n_steps=2)
    logged = {name: float(v) for name, v in trainer.callback_metrics.items() if name.startswith("throughput/")}
    parts = {f"throughput/{part}_ms" for part in ALONE | {"average"}}
    whole = {"samples_per_second", "data_wait_share", "mfu", "peak_memory_mib"}
    assert set(logged) == parts | {f"throughput/{name}" for name in whole}
    step_ms = sum(logged[name] for name in parts)
    assert logged["throughput/samples_per_second"] == pytest.approx(8 / step_ms * 1000)
    assert logged["throughput/data_wait_share"] == pytest.approx(logged["throughput/data_ms"] / step_ms)
    assert 0 < logged["throughput/mfu"] < 1
    assert logged["throughput/peak_memory_mib"] > 50
    assert "throughput/mfu" in (tmp_path / "run" / "metrics.csv").read_text().splitlines()[0]


def test_without_mfu_every_batch_is_timed(tmp_path, tiny_data, tiny_module):
    data, parts = tiny_data(), Throughput(mfu=False)
    trainer = fit(tmp_path, tiny_module(data.spec), data, parts, max_steps=1)
    assert "throughput/trunk_ms" in trainer.callback_metrics
    assert "throughput/mfu" not in trainer.callback_metrics
    assert parts.flops == {}


def test_mfu_is_flops_over_time_and_peak():
    assert Peak(1e12, "given").share(3e11, 2.0) == pytest.approx(0.15)


@pytest.mark.parametrize(
    ("name", "tera"),
    [
        ("NVIDIA H100 80GB HBM3", 989.4),
        ("NVIDIA H100 PCIe", 756),
        ("NVIDIA H100 NVL", 835.5),
        ("NVIDIA H200", 989.4),
        ("NVIDIA A100-SXM4-80GB", 312),
        ("NVIDIA L40S", 362),
        ("NVIDIA L4", 121),
        ("NVIDIA GeForce RTX 4090", 165.2),
        ("NVIDIA A10G", 125),
    ],
)
def test_known_gpus(name, tera):
    assert known_peak(name, torch.bfloat16) == tera * 1e12
    assert known_peak(name, torch.float16) == tera * 1e12


def test_products_in_float32_have_the_table_only_where_they_are_rounded():
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("highest")
        assert known_peak("NVIDIA A100-SXM4-80GB", torch.float32) is None
        torch.set_float32_matmul_precision("high")
        assert known_peak("NVIDIA A100-SXM4-80GB", torch.float32) == 156e12
    finally:
        torch.set_float32_matmul_precision(before)
    assert known_peak("Something New", torch.bfloat16) is None


def test_a_peak_is_measured():
    state = torch.get_rng_state()
    peak = measured_peak(torch.device("cpu"), torch.float32)
    assert peak.flops_per_s > 1e8
    assert "measured: a product of side" in peak.source
    assert "float32" in peak.source
    assert torch.equal(torch.get_rng_state(), state)


def test_types_of_precisions():
    names = ("bf16-mixed", "16-mixed", "32-true", "64-true", "bf16-true")
    types = (torch.bfloat16, torch.float16, torch.float32, torch.float64, torch.bfloat16)
    assert tuple(map(compute_dtype, names)) == types


KEYS = {
    "schema": int,
    "command": str,
    "machine": dict,
    "device": str,
    "processes": int,
    "strategy": str,
    "precision": str,
    "batch_size": float,
    "accumulated": int,
    "warmup": int,
    "steps": int,
    "samples_per_s": float,
    "step_ms": float,
    "parts_ms": dict,
    "flops_per_sample": float,
    "parts_flops_per_sample": dict,
    "flops_per_s": float,
    "peak": dict,
    "mfu": float,
    "parameters": int,
    "trained": int,
    "memory_mib": dict,
}


@pytest.fixture
def config(tiny_run, tmp_path):
    """A tiny run with checkpoints, averages and a grid of films."""
    path = tiny_run(tmp_path / "run", 100)
    return path


def test_command_measures_an_experiment(uva, config, tmp_path):
    file = tmp_path / "new" / "numbers.json"
    options = ["--steps", 3, "--warmup", 2, "--json", file, "--peak", 2, "--data.batch_size", 6]
    status, out, _ = uva("bench", "train", "--config", config, *options, "--trainer.accumulate_grad_batches", 2)
    assert status == 0
    said = json.loads(file.read_text())
    assert {key: type(value) for key, value in said.items()} == KEYS
    assert (said["schema"], said["steps"], said["warmup"], said["accumulated"]) == (1, 3, 2, 2)
    assert (said["batch_size"], said["processes"], said["device"]) == (6, 1, "cpu")
    assert said["command"].startswith("uva bench train --config")
    assert set(said["parts_ms"]) == ALONE | {"average"}
    assert sum(said["parts_ms"].values()) == pytest.approx(said["step_ms"])
    assert said["samples_per_s"] == pytest.approx(2 * 6 / said["step_ms"] * 1000)
    assert sum(said["parts_flops_per_sample"].values()) == said["flops_per_sample"] > 0
    assert said["peak"] == {"flops_per_s": 2e12, "source": "given with --peak"}
    assert said["mfu"] == pytest.approx(said["flops_per_s"] / 2e12)
    memory = said["memory_mib"]
    assert memory["parameters"] * 2**20 == 4 * said["parameters"]
    assert memory["optimizer"] == pytest.approx(2 * memory["parameters"], rel=0.01)
    assert memory["average"] == memory["parameters"]
    assert memory["gpu"] == 0
    for part in said["parts_ms"]:
        assert out.count(f"\n{part} ") == 1
        assert out.count(f"\n  {part} ") == 1
    assert "batches of 6 samples, 2 to an update" in out
    assert not list(tmp_path.rglob("*.ckpt"))


def test_command_of_a_shipped_experiment_without_data(uva, tmp_path):
    """As the head of the config says, with generated data and the smallest sizes; no rollouts, no grids."""
    configs = ["--config", "configs/libero10.yaml", "--config", "configs/sizes/smoke.yaml"]
    data = ["--data.path", tmp_path / "libero10", "--data.generate", "RandomEpisodes"]
    status, out, _ = uva("bench", "train", *configs, *data, "--steps", 1, "--warmup", 1)
    assert status == 0
    assert "heads_backward" not in out.partition("samples/s")[2].partition("MFU")[0]
    assert "1 steps after 1" in out


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--steps", 0], "steps is 0, expected 1 or more; set --steps 20."),
        (["--steps", -3], "steps is -3, expected 1 or more; set --steps 20."),
        (["--warmup", 0], "warmup is 0, expected 1 or more, the first step counts FLOPs; set --warmup 3."),
        (["--peak", 0], "peak is 0, expected TFLOP/s of the device, such as 989 for an H100."),
        (["--json", "/proc/none/x.json"], "/proc/none/x.json cannot be written (No such file or directory);"),
        (["--json", "/"], "/ cannot be written (Is a directory); set --json to another place."),
    ],
)
def test_wrong_options_are_refused_before_any_work(uva, config, options, words):
    status, out, complaint = uva("bench", "train", "--config", config, *options)
    assert (status, out) == (2, "")
    assert words in complaint
    assert complaint.count("\n") == 1


def test_a_config_without_data(uva, tmp_path):
    (tmp_path / "x.yaml").write_text("trainer: {max_steps: 1}\n")
    status, _, complaint = uva("bench", "train", "--config", tmp_path / "x.yaml")
    assert status == 2
    assert f"{tmp_path / 'x.yaml'} has no 'data:', expected an experiment; set --config" in complaint
    status, _, complaint = uva("bench", "train")
    assert status == 2
    assert "There is no --config, expected an experiment" in complaint


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("name", ["gpu", "cuda"])
def test_a_gpu_that_is_not_there(uva, config, name):
    status, out, complaint = uva("bench", "train", "--config", config, "--trainer.accelerator", name)
    assert (status, out) == (2, "")
    assert f"trainer.accelerator is {name}, but torch {torch.__version__} sees no such device" in complaint


def test_help_tells_the_keys(uva, capsys):
    with pytest.raises(SystemExit) as stop:
        uva("bench", "train", "--help")
    assert stop.value.code == 0
    out = capsys.readouterr().out
    assert all(key in out for key in KEYS)


@pytest.mark.slow
def test_two_processes_tell_their_synchronisation(config, tmp_path):
    script, file = tmp_path / "uva.py", tmp_path / "two.json"
    script.write_text("import sys; from uva_lightning.cli import main; sys.exit(main())")
    options = ["--trainer.devices", "2", "--trainer.strategy", "ddp", "--steps", "3", "--json", str(file)]
    command = [sys.executable, str(script), "bench", "train", "--config", str(config), *options]
    env = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1] / "src"), "OMP_NUM_THREADS": "1"}
    result = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, env=env)
    assert result.returncode == 0, result.stderr[-2000:]
    assert result.stdout.count("samples/s") == 1
    said = json.loads(file.read_text())
    assert said["processes"] == 2
    assert set(said["parts_ms"]) == ALONE | {"average", "synchronisation"}
    assert sum(said["parts_ms"].values()) == pytest.approx(said["step_ms"])
    assert said["samples_per_s"] == pytest.approx(2 * said["batch_size"] / said["step_ms"] * 1000)
