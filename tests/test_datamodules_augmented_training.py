"""Augmentation in a real training: in training only, and the same after a resume."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from jsonargparse import ArgumentParser
from lightning.pytorch import Callback, LightningDataModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from uva_lightning.datamodules.augment import Augmentation
from uva_lightning.datamodules.picture_changes import ColourJitter, Crop
from uva_lightning.datamodules.reading import Encoding
from uva_lightning.optim import AdamWCosine

JITTER = Augmentation([Crop(0.5), ColourJitter(0.8, 0.3, 0.3, 0.3, 0.1)])


class Watch(Callback):
    """Keep the batches as the model gets them."""

    def __init__(self):
        self.training, self.validation = [], []

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        self.training.append(batch)

    def on_validation_batch_start(self, trainer, module, batch, batch_idx, dataloader_idx=0):
        self.validation.append(batch)


def fit(data, module, folder, steps, resume=None):
    watch = Watch()
    trainer = Trainer(
        default_root_dir=folder,
        max_steps=steps,
        callbacks=[watch, ModelCheckpoint(folder, save_last=True, every_n_train_steps=1)],
        accelerator="cpu",
        logger=False,
        limit_val_batches=1,
        num_sanity_val_steps=1,
        val_check_interval=2,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, data, ckpt_path=resume)
    return watch


@pytest.mark.parametrize("encoding", [None, Encoding(variants=2)], ids=["online", "cached"])
def test_four_steps_are_two_and_two_more(tiny_data, tiny_module, tmp_path, encoding):
    def run(name, steps, resume=None):
        data = tiny_data(augment=JITTER, encoding=encoding)
        module = tiny_module(data.spec, optimizer=AdamWCosine(warmup_steps=1, total_steps=4))
        watch = fit(data, module, tmp_path / name, steps, resume)
        return watch, module

    through, whole = run("whole", 4)
    run("part", 2)
    rest, resumed = run("part", 4, tmp_path / "part/last.ckpt")
    assert len(rest.training) == 2
    for ours, theirs in zip(rest.training, through.training[2:], strict=True):
        kind = "video" if encoding is None else "latents"
        assert getattr(ours, kind)["top"].equal(getattr(theirs, kind)["top"])
    for name, weights in whole.state_dict().items():
        assert weights.equal(resumed.state_dict()[name]), name


def test_only_training_pictures_are_changed(tiny_data, tiny_module, tmp_path):
    data, plain = tiny_data(augment=JITTER), tiny_data(encoding=Encoding(online=True))
    ours = fit(data, tiny_module(data.spec), tmp_path / "augmented", 4)
    theirs = fit(plain, tiny_module(plain.spec), tmp_path / "plain", 4)
    for changed, recorded in zip(ours.training, theirs.training, strict=True):
        assert changed.action.equal(recorded.action)
        assert not changed.video["top"].equal(recorded.video["top"])
    assert len(ours.validation) == 3  # the check before training, and two
    for seen, recorded in zip(ours.validation, theirs.validation, strict=True):
        assert seen.video["top"].equal(recorded.video["top"])


def test_processes_share_what_one_would_draw(tiny_data, monkeypatch):
    """The hook of each of two processes changes its half as one process changes the whole."""
    data = tiny_data(augment=JITTER)
    data.setup("fit")
    batch = next(iter(data.train_dataloader()))

    def hook(video, rank, world):
        stage = type("Stage", (), {"training": True, "global_rank": rank, "world_size": world})
        monkeypatch.setattr(data, "trainer", stage)
        monkeypatch.setattr(data, "_consumed", lambda: 7)
        return data.on_after_batch_transfer(type(batch)(video={"top": video}), 0).video["top"]

    whole = hook(batch.video["top"], 0, 1)
    halves = [hook(half, rank, 2) for rank, half in enumerate(batch.video["top"].chunk(2))]
    assert torch.cat(halves).equal(whole)
    assert not whole.equal(batch.video["top"])


def test_null_on_the_command_line_is_no_folder(tmp_path):
    parser = ArgumentParser()
    parser.add_argument("--data", type=LightningDataModule)
    data = ["--data", "uva_lightning.datamodules.pusht.PushT", "--data.path", str(tmp_path)]
    given = parser.parse_args([*data, "--data.encoding.cache_dir", "null"])
    assert parser.instantiate(given).data.encoding == Encoding()
    kept = parser.parse_args([*data, "--data.encoding.cache_dir", "kept"])
    assert parser.instantiate(kept).data.encoding == Encoding(Path("kept"))
