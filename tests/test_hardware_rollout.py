"""Episodes on an arm are run beside training: what is logged, and that training goes on whatever happens."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
import yaml
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from stand_ins import StillDriver, stand_in
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from uva_lightning.callbacks import hardware_rollout
from uva_lightning.callbacks.ema import EMA
from uva_lightning.callbacks.hardware_rollout import HardwareRollout
from uva_lightning.metrics.intervals import wilson
from uva_lightning.robot.benches.drivers import Reaching, TrainedModel
from uva_lightning.robot.control import Control
from uva_lightning.robot.errors import RobotConfigError
from uva_lightning.robot.evaluator_process import Evaluator, EvaluatorProcess

SUPPORT, ROOT = Path(__file__).parent / "support", Path(__file__).parents[1]


def trainer(folder, *callbacks, **options):
    defaults = {
        "max_steps": 6,
        "val_check_interval": 2,
        "limit_val_batches": 1,
        "num_sanity_val_steps": 0,
        "logger": TensorBoardLogger(folder, name="", version="run"),
        "accelerator": "cpu",
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "enable_checkpointing": False,
    }
    return Trainer(default_root_dir=folder, callbacks=list(callbacks), **{**defaults, **options})


def callback(**options):
    options = {"every": 1, "episodes": 2, "evaluator": Evaluator(wait_at_end=20.0, stop=1.0), **options}
    return HardwareRollout(**{"enabled": True, "driver": StillDriver(), **options})


@pytest.fixture
def behave(monkeypatch):
    """Let an evaluator that starts at once take the place of the real one."""

    def choose(how="works", **changes):
        process = partial(EvaluatorProcess, command=stand_in(how, **changes))
        monkeypatch.setattr(hardware_rollout, "EvaluatorProcess", process)

    return choose


class Slow(Callback):
    """Let the evaluator finish between two validations, and note what can be seen of the model."""

    def __init__(self, folder):
        self.folder, self.seen = folder, []

    def on_validation_epoch_end(self, trainer, pl_module):
        self.seen.append((torch.get_rng_state(), [part.training for part in pl_module.modules()]))

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        import time

        end = time.monotonic() + 20.0
        while (jobs := list(self.folder.glob("run/hardware/jobs/*"))) and time.monotonic() < end:
            if all((self.folder / "run/hardware/results" / job.name / "result.json").exists() for job in jobs):
                return
            time.sleep(0.01)


def scalars(folder):
    accumulator = EventAccumulator(str(folder / "run"), size_guidance={"images": 0, "scalars": 0})
    accumulator.Reload()
    names = [name for name in accumulator.Tags()["scalars"] if name.startswith("hardware/")]
    return {name: [(entry.step, entry.value) for entry in accumulator.Scalars(name)] for name in names}


def test_results_are_logged_at_a_later_validation(tmp_path, tiny_data, tiny_module, behave):
    behave()
    data = tiny_data()
    ours = callback()
    trainer(tmp_path, Slow(tmp_path), ours).fit(tiny_module(data.spec), data)
    logged = scalars(tmp_path)
    assert [step for step, _ in logged["hardware/success_rate"]] == [3, 5, 6]  # Lightning counts from 0, we from 1
    assert [value for _, value in logged["hardware/age_steps"]] == [2.0, 2.0, 0.0]
    assert {value for _, value in logged["hardware/available"]} == {1.0}
    low, high = wilson(2, 2)
    assert logged["hardware/success_low"][0][1] == pytest.approx(low)
    assert logged["hardware/success_high"][0][1] == pytest.approx(high)
    assert logged["hardware/valid"][0][1] == 2
    assert 0 < logged["hardware/blocked_seconds"][-1][1] < 2.0  # s, of three validations
    results = tmp_path / "run" / "hardware" / "results"
    assert sorted(path.name for path in results.iterdir()) == ["step_00000002", "step_00000004", "step_00000006"]
    assert ours.state_dict()["validations"] == 3


def test_it_does_nothing_unless_enabled(tmp_path, tiny_data, tiny_module, behave):
    behave()
    data = tiny_data()
    trainer(tmp_path, HardwareRollout(driver=StillDriver(), every=1)).fit(tiny_module(data.spec), data)
    assert not (tmp_path / "run" / "hardware").exists()
    assert scalars(tmp_path) == {}


def ends(tmp_path, tiny_data, tiny_module, *callbacks):
    """Train and give what is left: weights, which are the averaged ones, and the state of the generator."""
    data, module = tiny_data(), tiny_module(tiny_data().spec)
    trainer(tmp_path, *callbacks, EMA(), max_steps=4).fit(module, data)
    return {name: value.clone() for name, value in module.state_dict().items()}, torch.get_rng_state()


class Broken:
    """Raises an error, perhaps after work that has to be done; as a method, too."""

    def __init__(self, work):
        self.work = work

    def __get__(self, owner, kind=None):
        return partial(self, owner)

    def __call__(self, *args):
        if self.work is not None:
            self.work(*args)
        raise RuntimeError("boom")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, tiny_data, tiny_module):
    return ends(tmp_path_factory.mktemp("without"), tiny_data, tiny_module)


@pytest.mark.parametrize("phases", [(), ("submit", "close"), ("collect", "await_last"), ("measures",)])
def test_training_does_not_notice_even_exceptions(
    phases, tmp_path, tiny_data, tiny_module, behave, monkeypatch, undisturbed
):
    """Same weights, average, random numbers and modes as without it, to the last bit."""
    behave()
    for phase in phases:
        owner = hardware_rollout if phase == "measures" else EvaluatorProcess

        monkeypatch.setattr(owner, phase, Broken(getattr(owner, phase) if phase == "close" else None))
    slow = Slow(tmp_path)
    weights, generator = ends(tmp_path, tiny_data, tiny_module, callback(), slow)
    assert torch.equal(generator, undisturbed[1])
    for name, value in undisturbed[0].items():
        assert torch.equal(weights[name], value), name
    assert not any(training for _, modes in slow.seen for training in modes)
    if phases:
        events = (tmp_path / "run" / "hardware" / "events.jsonl").read_text()
        assert events.count('"error", "text": "RuntimeError: boom"') >= len(phases)
        assert scalars(tmp_path)["hardware/available"][-1][1] == 0.0


@pytest.mark.parametrize("how", ["absent", "dies", "hangs"])
def test_training_ends_in_time_without_a_robot(how, tmp_path, tiny_data, tiny_module, behave):
    behave(how)
    data = tiny_data()
    options = {"wait_at_end": 0.5 if how == "hangs" else 20.0, "stop": 0.5, "breaker": 1}
    ours = callback(evaluator=Evaluator(**options))
    trainer(tmp_path, ours, max_steps=4).fit(tiny_module(data.spec), data)
    assert ours._blocked < 2.0  # whatever the evaluator does
    events = [json.loads(line) for line in (tmp_path / "run" / "hardware" / "events.jsonl").read_text().splitlines()]
    assert events[0]["event"] == "started"
    if how != "hangs":
        assert scalars(tmp_path)["hardware/available"][-1][1] == 0.0
        assert "unavailable" in [event["event"] for event in events]
    else:
        assert events[-1]["event"] == "left"


def test_a_full_disk_does_not_end_training(tmp_path, tiny_data, tiny_module, behave, monkeypatch):
    behave()

    def full(content, path):
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(hardware_rollout.torch, "save", full)
    data = tiny_data()
    ours = callback(driver=TrainedModel())
    ours.setup = lambda *args, **words: setattr(
        ours, "_process", EvaluatorProcess(tmp_path / "run/hardware", Evaluator())
    )
    trainer(tmp_path, ours, max_steps=4).fit(tiny_module(data.spec), data)
    assert "No space left on device" in (tmp_path / "run/hardware/events.jsonl").read_text()
    assert not list((tmp_path / "run/hardware").glob("jobs/*"))  # nothing half written is handed over
    assert not list((tmp_path / "run/hardware").glob("next/step_*"))


def test_what_cannot_work_is_refused_before_training(tmp_path, tiny_data, tiny_module):
    data = tiny_data()
    cases = [
        ({"driver": TrainedModel()}, "The model has actions of 2 numbers"),
        ({"driver": Reaching()}, "FakeBench does not know where the cube is"),
    ]
    for options, words in cases:
        made = trainer(tmp_path, callback(**options), max_steps=1, limit_val_batches=0)
        with pytest.raises(RobotConfigError, match=words):
            made.fit(tiny_module(data.spec), data)
    for options, words in (
        ({"every": 0}, "HardwareRollout: every is 0"),
        ({"budget": 0.0}, "budget is 0.0 s"),
        ({"films": -1}, "films"),
    ):
        with pytest.raises(RobotConfigError, match=words):
            HardwareRollout(**options)


def test_the_count_survives_a_resume():
    one, other = callback(), callback()
    one._validations, one._last, one._last_step = 7, {"valid": 2.0}, 40
    other.load_state_dict(one.state_dict())
    assert other._shown(50) == {"valid": 2.0, "age_steps": 10.0, "blocked_seconds": 0.0}
    assert other._validations == 7


needs_sim = pytest.mark.skipif(
    find_spec("mujoco") is None or find_spec("zarr") is None, reason="needs MuJoCo and zarr, extras [sim] and [data]"
)


@pytest.fixture(scope="module")
def demos(tmp_path_factory):
    """Three scripted demonstrations."""
    from uva_lightning.datamodules.simulated_arm import ReachingDemos, SimulatedArm

    path = tmp_path_factory.mktemp("demos") / "arm.zarr"
    try:
        ReachingDemos(3)(path, SimulatedArm(path))
    except OSError as error:
        pytest.skip(str(error))
    return path


def small(folder, demos, driver, devices=1, **rollout):
    """Lay a tiny size over the quickstart."""
    rollout = {"enabled": True, "dry_run": False, "driver": driver, "every": 2, "episodes": 2, "films": 1, **rollout}
    rollout.setdefault("bench", {"class_path": "SimBench", "init_args": {"image_size": 64}})
    rollout.setdefault("control", {"rate_hz": 5, "max_steps": 30})
    rollout.setdefault("evaluator", {"nice": 0, "wait_at_end": 200.0})
    head = {"init_args": {"denoiser": {"init_args": {"width": 16, "depth": 1}}}}
    action = {"init_args": {"steps": 2, "denoiser": {"init_args": {"width": 16, "depth": 1, "draws": 1}}}}
    content = {
        "model": {
            "transformer": {"init_args": {"width": 32, "heads": 2, "encoder_depth": 1, "decoder_depth": 1}},
            "heads": {"video": head, "action": action},
        },
        "data": {"init_args": {"path": str(demos), "batch_size": 8, "val_ratio": 0.3}},
        "trainer": {
            "max_steps": 4,
            "val_check_interval": 2,
            "limit_val_batches": 2,
            "devices": devices,
            "enable_progress_bar": False,
            "logger": {"init_args": {"save_dir": str(folder), "name": "run"}},
            "callbacks": ["EMA", {"class_path": "HardwareRollout", "init_args": rollout}],
        },
    }
    path = folder / "small.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def fit(config, *options):
    script = config.parent / "train.py"
    script.write_text("import sys; from uva_lightning.cli import main; sys.exit(main(sys.argv[1:]))")
    paths = os.pathsep.join([str(ROOT / "src"), str(SUPPORT)])
    environment = os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(script), "fit", "--config", str(ROOT / "configs/quickstart_arm.yaml")]
    result = subprocess.run(
        [*command, "--config", str(config), *options],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env=environment,
        cwd=config.parent,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    return result.stderr


def found(folder):
    """Give the folder and the content of the one result."""
    (result,) = folder.glob("run/hardware/results/*/result.json")
    content = json.loads(result.read_text())
    assert content["available"], content["reason"]
    assert (content["step"], len(content["episodes"])) == (4, 2)
    logged = scalars(folder)
    labels = [row["label"] for row in content["episodes"]]
    assert logged["hardware/success_rate"][-1] == (4, labels.count("success") / 2)
    assert logged["hardware/age_steps"][-1][1] == 0
    assert len(list(folder.glob("run/hardware/episodes/*/steps.parquet"))) == 2
    assert (result.parent / "episode_000.mp4").stat().st_size > 1000
    images = EventAccumulator(str(folder / "run"), size_guidance={"images": 0})
    images.Reload()
    assert images.Images("hardware/episodes")[0].step == 4
    return content["episodes"]


@needs_sim
@pytest.mark.slow
def test_the_quickstart_runs_episodes_in_simulation(demos, tmp_path):
    fit(small(tmp_path, demos, "Reaching"))
    assert [row["label"] for row in found(tmp_path)] == ["success", "success"]


@needs_sim
@pytest.mark.slow
def test_of_two_ranks_one_knows_the_robot(demos, tmp_path):
    """Its evaluator drives by the model; the second rank starts nothing and waits for nobody."""
    fit(small(tmp_path, demos, "TrainedModel", devices=2), "--trainer.strategy=ddp")
    rows = found(tmp_path)
    assert {row["label"] for row in rows} <= {"success", "failure"}
    assert all(row["latency"]["inference"] for row in rows)
    events = [json.loads(line)["event"] for line in (tmp_path / "run/hardware/events.jsonl").read_text().splitlines()]
    assert events == ["started", "submitted", "result"]


def test_control_of_the_quickstart_is_one():
    content = yaml.safe_load((ROOT / "configs/quickstart_arm.yaml").read_text())
    (entry,) = (c for c in content["trainer"]["callbacks"] if isinstance(c, dict) and "Hardware" in c["class_path"])
    Control(**entry["init_args"]["control"])
    assert entry["init_args"]["enabled"]
