"""The average has UVA's warm-up, survives a resume bit for bit and is in every checkpoint under the right key."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from uva_lightning.balancers.loss_scale import LossScale
from uva_lightning.callbacks.ema import EMA

DECAYS = json.loads((Path(__file__).parent / "fixtures/ema_decay.json").read_text())["decay"]


def trainer(tmp_path, *callbacks, **options):
    defaults = {
        "max_steps": 4,
        "val_check_interval": 2,
        "num_sanity_val_steps": 0,
        "logger": False,
        "accelerator": "cpu",
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "enable_checkpointing": any(isinstance(c, ModelCheckpoint) for c in callbacks),
    }
    return Trainer(default_root_dir=tmp_path, callbacks=list(callbacks), **{**defaults, **options})


def load(path):
    return torch.load(path, weights_only=True)


def weights(module):
    return {name: value.clone() for name, value in module.named_parameters()}


def same(a, b):
    assert set(a) == set(b)
    return all(torch.equal(a[name], b[name]) for name in a)


class Recorder(Callback):
    """Remember the weights that are trained after each step, and those that validation sees."""

    def __init__(self):
        self.trained, self.validated = [], []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.trained.append(weights(pl_module))

    def on_validation_epoch_end(self, trainer, pl_module):
        self.validated.append(weights(pl_module))


@pytest.mark.parametrize("step", DECAYS)
def test_decay_is_that_of_the_official_code(step):
    assert EMA().decay(int(step)) == pytest.approx(DECAYS[step], rel=1e-12)


@pytest.mark.parametrize("wrong", [{"max_decay": 1.0}, {"power": 0.0}])
def test_impossible_settings_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        EMA(**wrong)


def expected_average(trained):
    average = trained[0]
    for k, current in enumerate(trained[1:], start=1):
        step = 1 - EMA().decay(k)
        average = {name: torch.lerp(average[name], current[name], step) for name in current}
    return average


@pytest.mark.parametrize("before", [True, False], ids=["EMA first", "EMA last"])
def test_average_is_shown_in_validation_and_after_training(tmp_path, tiny_data, tiny_module, before):
    data, ema, recorder = tiny_data(), EMA(), Recorder()
    module = tiny_module(data.spec)
    callbacks = (ema, recorder) if before else (recorder, ema)
    trainer(tmp_path, *callbacks).fit(module, datamodule=data)
    assert len(recorder.trained) == 4
    assert same(recorder.validated[0], expected_average(recorder.trained[:2]))
    assert same(recorder.validated[1], expected_average(recorder.trained))
    assert same(weights(module), expected_average(recorder.trained))
    assert not same(recorder.validated[1], recorder.trained[-1])


def test_resume_is_exact(tmp_path, tiny_data, tiny_module):
    def run(folder, steps, ckpt=None):
        data = tiny_data()
        module = tiny_module(data.spec, balancer=LossScale())
        module.optimizer.total_steps = 4
        save = ModelCheckpoint(tmp_path / folder, filename="{step}", every_n_train_steps=2, save_top_k=-1)
        trainer(tmp_path, EMA(), save, max_steps=steps).fit(module, datamodule=data, ckpt_path=ckpt)
        return load(tmp_path / folder / f"step={steps}.ckpt")

    whole = run("whole", 4)
    half = run("half", 2)
    resumed = run("rest", 4, tmp_path / "half/step=2.ckpt")
    for key in ("state_dict", "current_model_state", "averaging_state"):
        assert set(whole[key]) == set(resumed[key])
        for name, value in whole[key].items():
            assert value == resumed[key][name] if isinstance(value, dict) else torch.equal(value, resumed[key][name])
    assert int(whole["averaging_state"]["n_averaged"]) == 4
    assert int(half["averaging_state"]["n_averaged"]) == 2
    assert whole["state_dict"]["balancer._extra_state"]  # the running means belong to the average, too


class SaveDuring(Callback):
    """Save in hooks in which the average may be shown."""

    def __init__(self, folder):
        self.folder = folder

    def on_validation_epoch_start(self, trainer, pl_module):
        trainer.save_checkpoint(self.folder / "start.ckpt")

    def on_validation_batch_end(self, trainer, pl_module, *_):
        trainer.save_checkpoint(self.folder / "batch.ckpt")

    def on_validation_epoch_end(self, trainer, pl_module):
        trainer.save_checkpoint(self.folder / "epoch_end.ckpt")

    def on_validation_end(self, trainer, pl_module):
        trainer.save_checkpoint(self.folder / "end.ckpt")

    def on_train_end(self, trainer, pl_module):
        trainer.save_checkpoint(self.folder / "train_end.ckpt")


@pytest.mark.parametrize("before", [True, False], ids=["EMA first", "EMA last"])
def test_average_and_current_are_never_mixed_up(tmp_path, tiny_data, tiny_module, before):
    data, ema, recorder, saver = tiny_data(), EMA(), Recorder(), SaveDuring(tmp_path)
    fit = trainer(tmp_path, *((ema, recorder, saver) if before else (recorder, saver, ema)), val_check_interval=4)
    fit.fit(tiny_module(data.spec), datamodule=data)
    fit.save_checkpoint(tmp_path / "after.ckpt")
    average = expected_average(recorder.trained)
    for name in ("start", "batch", "epoch_end", "end", "train_end", "after"):
        checkpoint = load(tmp_path / f"{name}.ckpt")
        assert same(checkpoint["state_dict"], average), name
        assert same(checkpoint["current_model_state"], recorder.trained[-1]), name


class Interrupt(Callback):
    """Fail in the middle of validation, or right after a step."""

    def __init__(self, hook):
        setattr(self, hook, self.fail)

    def fail(self, trainer, *_):
        if trainer.global_step == 4:
            raise RuntimeError("stop here")


@pytest.mark.parametrize("hook", ["on_validation_batch_end", "on_train_batch_end"])
def test_a_crash_saves_both_weights_rightly(tmp_path, tiny_data, tiny_module, hook):
    data, recorder = tiny_data(), Recorder()
    save = ModelCheckpoint(tmp_path, filename="crash", every_n_train_steps=100, save_on_exception=True)
    with pytest.raises(RuntimeError, match="stop here"):
        trainer(tmp_path, recorder, Interrupt(hook), EMA(), save, max_steps=6, val_check_interval=4).fit(
            tiny_module(data.spec), datamodule=data
        )
    checkpoint = load(tmp_path / "crash.ckpt")
    assert same(checkpoint["state_dict"], expected_average(recorder.trained))
    assert same(checkpoint["current_model_state"], recorder.trained[-1])
    assert int(checkpoint["averaging_state"]["n_averaged"]) == 4
    key = next(key for key in checkpoint["callbacks"] if key.startswith("EMA"))
    assert checkpoint["callbacks"][key]["latest_update_step"] == 4


def test_frozen_parameters_and_fitted_parts_are_not_copied(tmp_path, tiny_data, tiny_module):
    data, ema = tiny_data(), EMA()
    module = tiny_module(data.spec)
    module.transformer.encoder.requires_grad_(False)
    frozen = {name: value.clone() for name, value in module.transformer.encoder.named_parameters()}

    class Look(Callback):
        def on_train_start(self, trainer, pl_module):
            copy = ema._average_model.module
            assert copy.tokenizer is pl_module.tokenizer
            assert copy.actions is pl_module.actions
            for a, b in zip(copy.parameters(), pl_module.parameters(), strict=True):
                assert (a.data_ptr() == b.data_ptr()) == (not b.requires_grad)

    save = ModelCheckpoint(tmp_path, filename="last")
    trainer(tmp_path, ema, Look(), save).fit(module, datamodule=data)
    assert same(frozen, dict(module.transformer.encoder.named_parameters()))
    checkpoint = load(tmp_path / "last.ckpt")
    name = "transformer.encoder.0.attn.qkv.weight"
    assert checkpoint["state_dict"][name].data_ptr() == checkpoint["current_model_state"][name].data_ptr()


def test_validating_a_checkpoint_uses_its_average(tmp_path, tiny_data, tiny_module):
    data, recorder = tiny_data(), Recorder()
    fit = trainer(tmp_path, EMA(), recorder)
    fit.fit(tiny_module(data.spec), datamodule=data)
    fit.save_checkpoint(tmp_path / "done.ckpt")
    again = Recorder()
    alone = trainer(tmp_path, EMA(), again)
    alone.validate(tiny_module(data.spec), datamodule=data, ckpt_path=tmp_path / "done.ckpt", verbose=False)
    average = expected_average(recorder.trained)
    assert same(again.validated[-1], average)
    fit.validate(fit.lightning_module, datamodule=data, verbose=False)  # right after training, in the same process
    assert same(recorder.validated[-1], average)
    fit.validate(fit.lightning_module, datamodule=data, ckpt_path=tmp_path / "done.ckpt", verbose=False)
    assert same(recorder.validated[-1], average)


def test_weights_only_checkpoints_are_refused(tmp_path, tiny_data, tiny_module):
    data = tiny_data()
    with pytest.raises(ValueError, match="save_weights_only=True"):
        trainer(tmp_path, EMA(), ModelCheckpoint(tmp_path, save_weights_only=True)).fit(
            tiny_module(data.spec), datamodule=data
        )
