"""A resumed run sees the very windows that the uninterrupted run saw."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint

from uva_lightning.datamodules.base import RobotDataModule
from uva_lightning.datamodules.order import Shuffled
from uva_lightning.datamodules.reading import Reading
from uva_lightning.datamodules.step_sampler import FixedBatchSampler, StepBatchSampler
from uva_lightning.datamodules.store import EpisodeStore
from uva_lightning.types import DataSpec


class Counting(RobotDataModule):
    """Actions that name their step, so that a batch tells which windows it holds."""

    facts = DataSpec(cameras=("top",), image_size=4, action_dim=1, state_dims={}, rate_hz=10)

    def read(self):
        steps = 6 * 40
        return EpisodeStore(
            {"top": np.zeros((steps, 4, 4, 3), np.uint8)},
            np.arange(steps, dtype=np.float32)[:, None],
            {},
            np.arange(40, steps + 1, 40),
        )


class Model(LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)
        self.seen = []

    def training_step(self, batch, index):
        self.seen.append(batch.action[:, :, 0].sum(1).tolist())
        return self.layer(batch.action / 100).square().mean()

    def validation_step(self, batch, index):
        pass

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.01)


class Interrupt(Callback):
    """Fails within a step, as a kill would."""

    def __init__(self, at):
        self.at = at

    def on_train_batch_start(self, trainer, module, batch, index):
        if trainer.global_step == self.at:
            raise RuntimeError("killed")


def fit(folder, steps, workers=0, resume=None, callbacks=(), batch_size=8, **options):
    seed_everything(0, verbose=False)
    model, data = Model(), Counting("unused", batch_size=batch_size, reading=Reading(workers=workers))
    trainer = Trainer(
        max_steps=steps,
        max_epochs=-1,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
        callbacks=list(callbacks),
        num_sanity_val_steps=0,
        **{"enable_checkpointing": any(isinstance(callback, ModelCheckpoint) for callback in callbacks), **options},
    )
    trainer.fit(model, data, ckpt_path=resume)
    return model, trainer


# 6 episodes of 40 steps, 1 of them held out: 5 * 17 = 85 windows, 10 batches of 8 in an epoch.
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("first", [1, 7, 9, 10, 11, 20, 25])
def test_resume_is_exact(tmp_path, first, workers):
    if workers and first not in (7, 10, 25):
        pytest.skip("with workers only within, at and after the end of an epoch")
    whole, _ = fit(tmp_path, 28, workers)
    begin, trainer = fit(tmp_path, first, workers)
    trainer.save_checkpoint(tmp_path / "part.ckpt")
    rest, _ = fit(tmp_path, 28, workers, resume=tmp_path / "part.ckpt")
    assert begin.seen + rest.seen == whole.seen
    assert len(whole.seen) == 28
    torch.testing.assert_close(rest.state_dict(), whole.state_dict(), rtol=0, atol=0)


@pytest.mark.parametrize(
    "options",
    [
        {"limit_train_batches": 4},
        {"val_check_interval": 5},
        {"val_check_interval": 3, "check_val_every_n_epoch": None},
        {"limit_train_batches": 4, "val_check_interval": 2},
        {"accumulate_grad_batches": 2},
        {"val_check_interval": 0.5},
    ],
    ids=str,
)
@pytest.mark.parametrize("stop", [3, 5, 10, 13])
@pytest.mark.filterwarnings("ignore:Be aware that when using .ckpt_path.")
def test_resume_from_a_periodic_checkpoint_is_exact(tmp_path, options, stop):
    """Checkpoints written in ``on_train_batch_end``, and a run that then dies within a later step."""
    whole, _ = fit(tmp_path / "whole", 18, **options)
    saving = ModelCheckpoint(tmp_path / "ckpt", every_n_train_steps=stop, save_top_k=-1, filename="{step}")
    with pytest.raises(RuntimeError, match="killed"):
        fit(tmp_path, 18, callbacks=[saving, Interrupt(stop + 1)], **options)
    rest, _ = fit(tmp_path, 18, resume=tmp_path / f"ckpt/step={stop}.ckpt", **options)
    done = stop * options.get("accumulate_grad_batches", 1)
    assert rest.seen == whole.seen[done:]
    assert len(rest.seen) == (18 - stop) * options.get("accumulate_grad_batches", 1)
    torch.testing.assert_close(rest.state_dict(), whole.state_dict(), rtol=0, atol=0)


@pytest.mark.parametrize("hook", ["on_validation_end", "on_train_batch_start", "on_before_backward"])
def test_resume_from_a_checkpoint_of_any_moment(tmp_path, hook):
    """At validation, and within a step as SLURM's signal handler does: the step under way is then repeated."""

    def save(trainer, *_):
        trainer.save_checkpoint(tmp_path / f"{trainer.global_step}.ckpt")

    saving = type("Saving", (Callback,), {hook: lambda self, *arguments: save(*arguments)})()
    whole, _ = fit(tmp_path, 28, callbacks=[saving], val_check_interval=5)
    for step in (5, 10, 15, *(() if hook == "on_validation_end" else (7, 9, 11))):
        rest, _ = fit(tmp_path, 28, resume=tmp_path / f"{step}.ckpt", val_check_interval=5)
        assert rest.seen == whole.seen[step:]


def test_resume_says_when_it_cannot_be_exact(tmp_path, recwarn):
    _, trainer = fit(tmp_path, 5)
    trainer.save_checkpoint(tmp_path / "part.ckpt")
    fit(tmp_path, 7, resume=tmp_path / "part.ckpt")
    assert not [warning for warning in recwarn if "resum" in str(warning.message)]
    with pytest.warns(UserWarning, match="resumes with batch_size from 8 to 4: it goes on in another order"):
        fit(tmp_path, 7, resume=tmp_path / "part.ckpt", batch_size=4)


@pytest.mark.slow
def test_two_processes_share_the_batches_of_one(tmp_path):
    """Lightning leaves the sampler alone, and a resumed run of two processes goes on exactly."""
    script = tmp_path / "two.py"
    script.write_text(
        f"import importlib.util, json, sys\n"
        f"spec = importlib.util.spec_from_file_location('sampler_test', {__file__!r})\n"
        "module = importlib.util.module_from_spec(spec)\n"
        "sys.modules['sampler_test'] = module\n"
        "spec.loader.exec_module(module)\n"
        f"module.two_processes({str(tmp_path)!r})\n"
    )
    subprocess.run([sys.executable, script], check=True, timeout=120, env={**os.environ, "OMP_NUM_THREADS": "1"})
    alone, _ = fit(tmp_path, 14)
    parts = [json.loads((tmp_path / f"rank{rank}.json").read_text()) for rank in range(2)]
    for step, expected in enumerate(alone.seen):
        assert parts[0][step] + parts[1][step] == expected
    assert [len(part) for part in parts] == [14, 14]


def two_processes(folder):
    """Train 6 steps and then resume to 14, in each of two processes (Lightning starts the second)."""
    options = {"strategy": "ddp", "devices": 2, "barebones": False}
    begin, trainer = fit(folder, 6, **options)
    trainer.save_checkpoint(Path(folder) / "two.ckpt")
    rest, trainer = fit(folder, 14, resume=Path(folder) / "two.ckpt", **options)
    (Path(folder) / f"rank{trainer.global_rank}.json").write_text(json.dumps(begin.seen + rest.seen))
    trainer.strategy.barrier()


def windows(sampler):
    return torch.cat([rows.windows for rows in sampler])


def test_draws_follow_from_seed_batch_and_use_alone():
    first, second = list(StepBatchSampler(Shuffled(85, 8, seed=1), consumed=lambda: 10))[:2]
    again = next(iter(StepBatchSampler(Shuffled(85, 8, seed=1), consumed=lambda: 11)))
    assert again.uniform(5, 3).equal(second.uniform(5, 3))
    others = (first, next(iter(StepBatchSampler(Shuffled(85, 8, seed=2), consumed=lambda: 11))))
    assert not any(other.uniform(5, 3).equal(second.uniform(5, 3)) for other in others)
    assert not second.uniform(5, 3).equal(second.uniform(6, 3))


def test_an_epoch_shows_each_sample_at_most_once():
    sampler = StepBatchSampler(Shuffled(85, 8, seed=1), consumed=lambda: 0)
    rows = windows(sampler)
    assert (len(sampler), len(rows), len(rows.unique())) == (10, 80, 80)
    later = windows(StepBatchSampler(Shuffled(85, 8, seed=1), consumed=lambda: 10))
    assert (rows != later).any()
    torch.testing.assert_close(
        windows(StepBatchSampler(Shuffled(85, 8, seed=1), consumed=lambda: 4)), torch.cat([rows[32:], later[:32]])
    )


def test_any_number_of_processes_shares_the_same_batches():
    alone = list(StepBatchSampler(Shuffled(85, 8, seed=3), consumed=lambda: 13))
    ranks = [list(StepBatchSampler(Shuffled(85, 8, 3), lambda: 13, rank, 2)) for rank in range(2)]
    for whole, *parts in zip(alone, *ranks, strict=True):
        assert [len(part) for part in parts] == [4, 4]
        torch.testing.assert_close(torch.cat([part.windows for part in parts]), whole.windows)
        for draw in (lambda rows: rows.uniform(3, 2), lambda rows: rows.normal(4)):
            torch.testing.assert_close(torch.cat([draw(part) for part in parts]), draw(whole), rtol=0, atol=0)


@pytest.mark.parametrize(("samples", "world"), [(10, 1), (10, 3), (7, 2), (1, 2)])
def test_validation_covers_all_samples_with_equal_work(samples, world):
    ranks = [list(FixedBatchSampler(samples, 2 * world, rank, world)) for rank in range(world)]
    assert len({len(batches) for batches in ranks}) == 1
    assert all(len(batches) == len(FixedBatchSampler(samples, 2 * world, 0, world)) for batches in ranks)
    assert torch.cat([rows for batches in ranks for rows in batches]).unique().tolist() == list(range(samples))


def test_errors_tell_the_fix():
    with pytest.raises(ValueError, match="batch_size is 9 over 2 processes, expected a positive multiple of 2"):
        StepBatchSampler(Shuffled(100, 9, 0), lambda: 0, world=2)
    with pytest.raises(ValueError, match="There are 5 training windows, fewer than batch_size=8"):
        Shuffled(5, 8, 0)
