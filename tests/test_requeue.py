"""Signals end training in good order, and a job that was started again goes on."""

import json
import os
import signal
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.demos.boring_classes import BoringModel

from uva_lightning.callbacks.requeue import Requeue, Stopped, leave, resume_path
from uva_lightning.checkpoint_files import WholeCheckpoints
from uva_lightning.cli import main
from uva_lightning.signals import noted

JOB = {"SLURM_NTASKS": "1", "SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NODEID": "0", "SLURM_JOB_ID": "71"}
STEPS = 60
WHOLE = {"state_dict": {}, "optimizer_states": [], "loops": {}}


class SignalAt(Callback):
    def __init__(self, step, signum):
        self.step, self.signum = step, signum

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.global_step == self.step:
            os.kill(os.getpid(), self.signum)


def trainer_in(folder, *callbacks, **options):
    saving = ModelCheckpoint(folder / "checkpoints", save_on_exception=True)
    plain = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    return Trainer(
        default_root_dir=folder,
        limit_val_batches=0,
        callbacks=[*callbacks, saving],
        **{**plain, "max_steps": 6, **options},
    )


@pytest.fixture
def job(monkeypatch, tmp_path):
    """Make this process a task of job 71, with a ``scontrol`` that notes what it is asked and succeeds."""
    for name, value in JOB.items():
        monkeypatch.setenv(name, value)
    program = tmp_path / "bin" / "scontrol"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    return program


@pytest.mark.parametrize("signum", [signal.SIGUSR1, signal.SIGTERM])
def test_a_signal_saves_after_the_step_and_stops(tmp_path, signum):
    trainer = trainer_in(tmp_path, SignalAt(2, signum), Requeue())
    with pytest.raises(Stopped) as stopped:
        trainer.fit(BoringModel())
    assert (stopped.value.signum, stopped.value.step) == (signum, 3)
    assert torch.load(stopped.value.path, weights_only=True)["global_step"] == 3
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["requeue.ckpt"], "one file, time is short"
    assert not noted(signum), "it has been acted on; the next training must not stop at once"
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_ranks_are_asked_only_every_so_many_steps(tmp_path):
    trainer = trainer_in(tmp_path, SignalAt(0, signal.SIGUSR1), Requeue(every_n_steps=4))
    with pytest.raises(Stopped, match="SIGUSR1 at step 4"):
        trainer.fit(BoringModel())


def test_accumulated_gradients_are_not_cut(tmp_path):
    trainer = trainer_in(tmp_path, SignalAt(1, signal.SIGUSR1), Requeue(), accumulate_grad_batches=3)
    with pytest.raises(Stopped, match="SIGUSR1 at step 2"):
        trainer.fit(BoringModel())
    progress = torch.load(tmp_path / "checkpoints" / "requeue.ckpt", weights_only=True)["loops"]["fit_loop"]
    assert progress["epoch_loop.batch_progress"]["total"]["processed"] == 6


def test_a_signal_in_the_last_step_changes_nothing(tmp_path):
    trainer = trainer_in(tmp_path, SignalAt(5, signal.SIGUSR1), Requeue())
    trainer.fit(BoringModel())
    assert trainer.global_step == 6
    with pytest.raises(Stopped, match="at step 1"):  # it came too late for that training, and stays noted
        trainer_in(tmp_path / "next", Requeue()).fit(BoringModel())


def test_a_run_that_ends_removes_what_it_needed_to_go_on(tmp_path, job):
    trainer = trainer_in(tmp_path, SignalAt(2, signal.SIGUSR1), Requeue())
    with pytest.raises(Stopped):
        trainer.fit(BoringModel())
    assert (tmp_path / "slurm" / "job-71.json").exists()
    trainer_in(tmp_path, Requeue()).fit(BoringModel(), ckpt_path=tmp_path / "checkpoints" / "requeue.ckpt")
    assert not list(tmp_path.glob("*/requeue*"))
    assert not list(tmp_path.glob("slurm/*"))


# -- in SLURM --------------------------------------------------------------------------------------------------------


def test_a_job_is_given_back(job, tmp_path, monkeypatch, capsys):
    assert leave(Stopped(signal.SIGUSR1, 3, Path("a.ckpt")), "uva fit") == 0
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "70")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "2")
    assert leave(Stopped(signal.SIGUSR1, 3, Path("a.ckpt")), "uva fit") == 0
    assert (tmp_path / "asked").read_text() == "requeue 71\nrequeue 70_2\n", "the id of an array names all its jobs"
    assert "SIGUSR1 at step 3; the checkpoint is a.ckpt" in capsys.readouterr().err


def test_a_job_that_cannot_be_given_back_says_so(job, capsys):
    job.write_text("#!/bin/sh\necho 'job may not be requeued' >&2\nexit 1\n")
    assert leave(Stopped(signal.SIGUSR1, 3, Path("a.ckpt")), "uva fit") == 75
    assert "job 71 was not given back (job may not be requeued); run: scontrol requeue 71" in capsys.readouterr().err


def test_a_terminated_job_is_not_given_back(job, tmp_path, capsys):
    assert leave(Stopped(signal.SIGTERM, 3, Path("a.ckpt")), "uva fit --ckpt_path a.ckpt") == 143
    assert not (tmp_path / "asked").exists()
    assert "go on with: uva fit --ckpt_path a.ckpt" in capsys.readouterr().err


def test_outside_of_slurm_the_user_is_told_how_to_go_on(capsys):
    assert leave(Stopped(signal.SIGUSR1, 3, Path("a.ckpt")), "uva fit --ckpt_path a.ckpt") == 75
    assert "go on with: uva fit --ckpt_path a.ckpt" in capsys.readouterr().err


def test_a_restarted_job_goes_on_from_what_it_wrote_itself(tmp_path, job, monkeypatch):
    files, old, mine = WholeCheckpoints(), tmp_path / "checkpoints" / "old.ckpt", tmp_path / "other" / "last.ckpt"
    for path in (old, mine):
        files.save_checkpoint(WHOLE, path)
    started = time.time() - 100
    os.utime(old, (started - 10,) * 2)
    record = tmp_path / "slurm" / "job-71.json"
    record.parent.mkdir()
    record.write_text(json.dumps({"started": started, "folders": [str(old.parent), str(mine.parent)]}))
    trainer = trainer_in(tmp_path)
    assert resume_path(trainer, "given.ckpt") == "given.ckpt", "the first life"
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    assert resume_path(trainer, "given.ckpt") == str(mine)
    mine.unlink()
    assert resume_path(trainer, "given.ckpt") == "given.ckpt", "an older run's file is not this job's"
    assert resume_path(trainer, "last") == str(old)
    assert resume_path(trainer, None) is None


def test_in_slurm_the_record_of_a_run_can_be_written(tiny_run, tmp_path, job, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["uva"])
    assert main(["fit", "--config", str(tiny_run(tmp_path / "run", 1))]) == 0
    plugins = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())["trainer"]["plugins"]
    assert plugins is None, "the same record serves on a laptop"
    assert torch.load(tmp_path / "run" / "last.ckpt", weights_only=True)["global_step"] == 1


# -- in a process of its own -----------------------------------------------------------------------------------------


@pytest.mark.slow
def test_signals_at_any_time_lose_nothing(tiny_run, tmp_path):
    folder = tmp_path / "run"
    process = tiny_run.start(folder, STEPS)
    while b"USR1" not in signals_blocked(process.pid):
        time.sleep(0.01)
    process.send_signal(signal.SIGUSR1)  # in the middle of the imports
    assert process.wait(timeout=120) == 75, (folder / "output.txt").read_text()
    assert "stopped by SIGUSR1 at step 1;" in (folder / "output.txt").read_text()
    process = tiny_run.start(folder, STEPS)
    while not (folder / "last.ckpt").exists() or torch.load(folder / "last.ckpt", weights_only=True)["global_step"] < 5:
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) == 143, (folder / "output.txt").read_text()
    assert 5 <= torch.load(folder / "requeue.ckpt", weights_only=True)["global_step"] < STEPS
    assert tiny_run.start(folder, STEPS).wait(timeout=120) == 0
    assert tiny_run.start(tmp_path / "whole", STEPS).wait(timeout=120) == 0
    left, right = (torch.load(path / "last.ckpt", weights_only=True) for path in (folder, tmp_path / "whole"))
    assert left["global_step"] == right["global_step"] == STEPS
    for key in ("state_dict", "current_model_state"):
        assert all(torch.equal(left[key][name], right[key][name]) for name in left[key])


@pytest.mark.slow
def test_one_rank_that_gets_the_signal_stops_all(tiny_run, tmp_path):
    folder = tmp_path / "run"
    process = tiny_run.start(folder, 100_000, devices=2)
    while not (folder / "last.ckpt").exists():
        assert process.poll() is None, (folder / "output.txt").read_text()
        time.sleep(0.1)
    (other,) = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    os.kill(int(other), signal.SIGUSR1)
    assert process.wait(timeout=60) == 75, (folder / "output.txt").read_text()
    assert (folder / "output.txt").read_text().count("uva: stopped by SIGUSR1") == 1
    end, line = time.monotonic() + 20, Path(f"/proc/{other}/cmdline")
    while line.exists() and line.read_bytes():  # empty once it has ended, even if nobody has asked for its status
        assert time.monotonic() < end, "the other rank is still there"
        time.sleep(0.1)


def signals_blocked(pid):
    """Say whether a process blocks SIGUSR1, as /proc tells."""
    line = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("SigBlk"))
    return b"USR1" if int(line.split()[1], 16) >> (signal.SIGUSR1 - 1) & 1 else b""
