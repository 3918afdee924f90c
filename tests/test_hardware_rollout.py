"""Episodes on an arm are run beside training: what is logged, and that training goes on whatever happens."""

from __future__ import annotations

import errno
import json
import threading
from functools import partial

import pytest
import torch
from hardware_logs import scalars
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from stand_ins import StillDriver, stand_in

from uva_lightning.callbacks import hardware_rollout
from uva_lightning.callbacks.ema import EMA
from uva_lightning.callbacks.hardware_rollout import HardwareRollout
from uva_lightning.metrics.intervals import wilson
from uva_lightning.robot.benches.drivers import Reaching, TrainedModel
from uva_lightning.robot.errors import RobotConfigError
from uva_lightning.robot.evaluator_process import Evaluator, EvaluatorProcess


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

        (ours,) = (callback for callback in trainer.callbacks if isinstance(callback, HardwareRollout))
        assert ours._written(20.0)
        end = time.monotonic() + 20.0
        while (jobs := list(self.folder.glob("run/hardware/jobs/*"))) and time.monotonic() < end:
            if all((self.folder / "run/hardware/results" / job.name / "result.json").exists() for job in jobs):
                return
            time.sleep(0.01)


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
    assert "started" in [event["event"] for event in events]
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


def test_a_slow_disk_does_not_hold_training_up(tmp_path, tiny_data, tiny_module, behave, monkeypatch):
    """Weights are copied in the hook and written beside training, which changes the originals meanwhile."""
    behave()
    save, written, go_on = torch.save, [], threading.Event()

    def slow(content, path):
        assert go_on.wait(60)
        written.append({name: value.clone() for name, value in content["state_dict"].items()})
        save(content, path)

    class Steps(Callback):
        def on_validation_epoch_end(self, trainer, module):
            before.append({name: value.clone() for name, value in module.state_dict().items()})

        def on_train_end(self, trainer, module):
            go_on.set()

    monkeypatch.setattr(hardware_rollout.torch, "save", slow)
    data, before, ours = tiny_data(), [], callback(driver=TrainedModel())
    process = EvaluatorProcess(tmp_path / "run/hardware", Evaluator(breaker=1, stop=0.1), stand_in())
    ours.setup = lambda *args, **words: setattr(ours, "_process", process)
    trainer(tmp_path, Steps(), ours).fit(tiny_module(data.spec), data)
    assert ours._blocked < 2.0
    assert len(written) == 1  # the later validations found it still at work
    assert all(torch.equal(value, before[0][name]) for name, value in written[0].items())
    assert any(not torch.equal(value, before[-1][name]) for name, value in written[0].items())
    assert (tmp_path / "run/hardware/events.jsonl").read_text().count('"late"') == 2


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
    assert other._shown(50) == {"valid": 2.0, "age_steps": 10.0}
    assert other._validations == 7
