"""Save and stop when a signal asks for it, and let SLURM start the job again where it stood."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from uva_lightning.checkpoint_files import checkpoint_folders, newest_whole, remove_leftovers
from uva_lightning.signals import TIME_IS_UP, forget, listen, note, noted
from uva_lightning.whole_files import whole

FILENAME = "requeue.ckpt"
TRY_AGAIN, TERMINATED = 75, 128 + signal.SIGTERM  # exit status; the first is "temporary failure" of sysexits.h


class Stopped(Exception):
    """Training was stopped by a signal; the checkpoint is written.

    Args:
        signum: The signal.
        step: Optimizer steps done.
        path: The checkpoint.
    """

    def __init__(self, signum: int, step: int, path: Path) -> None:
        super().__init__(f"{signal.Signals(signum).name} at step {step}; the checkpoint is {path}")
        self.signum, self.step, self.path = signum, step, path


class Requeue(Callback):
    """Ask all ranks after an optimizer step whether one of them got SIGUSR1 or SIGTERM; if so, save and stop together.

    Lightning's own way is not used: its handler saves wherever a rank happens to be, and waits for ever if another one
    is inside of a collective operation. ``uva fit`` always has this callback, with these defaults.

    After SIGUSR1 a job of SLURM goes back to its queue, and goes on by itself from its newest whole checkpoint. After
    SIGTERM (``scancel``, preemption) it ends.

    Args:
        every_n_steps: Optimizer steps between two questions. Each costs an exchange of one number, as does Lightning's
            own question before every batch.
    """

    def __init__(self, every_n_steps: int = 1) -> None:
        if every_n_steps < 1:
            raise ValueError(f"every_n_steps is {every_n_steps}, expected at least 1.")
        self.every_n_steps, self._asked = every_n_steps, 0

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Listen, also where training was not started from the command line."""
        if stage == "fit":
            listen()

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Check that all ranks go on from the same file, tidy up and note where this job saves.

        Raises:
            ValueError: They do not.
        """
        path = str(trainer.ckpt_path)
        first = trainer.strategy.broadcast(path)
        if path != first:
            raise ValueError(
                f"Rank {trainer.global_rank} goes on from {path}, rank 0 from {first}, expected the same file; put the "
                "run folder on a file system that all nodes share."
            )
        if trainer.is_global_zero:
            folders = checkpoint_folders(trainer)
            remove_leftovers(folders)
            _note_job(trainer, folders)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Replace Lightning's handler of SIGTERM, which starts a collective operation wherever the rank is."""
        note(signal.SIGTERM)  # Lightning puts back what was there before training
        self._asked = trainer.global_step

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Ask; save and stop if need be.

        Raises:
            Stopped: A signal came and training is not finished.
        """
        step = trainer.global_step
        if step == self._asked or step % self.every_n_steps or step == trainer.max_steps:
            return
        self._asked = step
        reduce = trainer.strategy.reduce_boolean_decision
        terminated = noted(signal.SIGTERM)
        if not reduce(terminated or noted(TIME_IS_UP), all=False):
            return
        signum = int(signal.SIGTERM if reduce(terminated, all=False) else TIME_IS_UP or 0)
        path = checkpoint_folders(trainer)[0] / FILENAME
        trainer.save_checkpoint(path)
        for callback in trainer.checkpoint_callbacks:
            if isinstance(callback, ModelCheckpoint):
                callback.save_on_exception = False  # time is short, and this step is saved
        forget(signum)
        raise Stopped(signum, step, path)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Remove what was needed to go on, if there is something newer."""
        if not trainer.is_global_zero:
            return
        folders = checkpoint_folders(trainer)
        newest = newest_whole(folders)
        if newest is not None and newest.name != FILENAME:
            for folder in folders:
                (folder / FILENAME).unlink(missing_ok=True)
                (folder / f"{FILENAME}.previous").unlink(missing_ok=True)
        if (record := _job_record(trainer)) is not None:
            record.unlink(missing_ok=True)


def resume_path(trainer: Trainer, given: str | Path | None) -> str | None:
    """Choose the checkpoint from which training goes on.

    Args:
        trainer: With its callbacks; training has not started.
        given: What the user asked for, as text or as a path: which one Lightning's ``str | Path`` becomes depends on
            what else has been imported. ``last`` is the newest whole checkpoint of the run's folders.

    Returns:
        In a job that SLURM has started again the newest whole checkpoint that this job wrote, if there is one; else
        what the user asked for.
    """
    record = _job_record(trainer)
    if record is not None and record.is_file() and int(os.environ.get("SLURM_RESTART_COUNT", "0")):
        job = json.loads(record.read_text())
        if (path := newest_whole(map(Path, job["folders"]), job["started"])) is not None:
            return str(path)
    wanted = None if given is None else str(given)
    if wanted == "last":
        path = newest_whole(checkpoint_folders(trainer))
        return wanted if path is None else str(path)
    return wanted


def leave(stopped: Stopped, again: str) -> int:
    """Say what happened, give a job of SLURM back to its queue, and choose the exit status.

    Args:
        stopped: Why training ended.
        again: Command that goes on.

    Returns:
        0 after a job was given back, 75 if it must be started again by hand, 143 after SIGTERM; 0 on all ranks but 0.
    """
    first = not torch.distributed.is_initialized() or torch.distributed.get_rank() == 0
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()  # the job's processes end at once: none may wait for another
    job = _job_id() if stopped.signum != signal.SIGTERM else None
    if first:
        sys.stderr.write(f"uva: stopped by {stopped}\n")
    if stopped.signum == signal.SIGTERM or job is None:
        if first:
            sys.stderr.write(f"uva: go on with: {again}\n")
        status = TERMINATED if stopped.signum == signal.SIGTERM else TRY_AGAIN
        return status if first else 0  # a launcher kills the other ranks where one fails
    return _requeue(job) if first else 0


def _requeue(job: str) -> int:
    try:
        done = subprocess.run(["scontrol", "requeue", job], capture_output=True, text=True, timeout=60, check=False)
        reason = done.stderr.strip() if done.returncode else ""
    except (OSError, subprocess.TimeoutExpired) as error:
        reason = str(error)
    if reason:
        sys.stderr.write(f"uva: job {job} was not given back ({reason}); run: scontrol requeue {job}\n")
        return TRY_AGAIN
    sys.stderr.write(f"uva: job {job} goes back to the queue\n")
    return 0


def _job_id() -> str | None:
    """Name the job of SLURM that this process belongs to."""
    if not SLURMEnvironment.detect():
        return None
    array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    job = f"{array}_{task}" if array else os.environ.get("SLURM_JOB_ID", "")  # the id of an array names all its jobs
    return job if re.fullmatch(r"\d+(_\d+)?", job) else None


def _job_record(trainer: Trainer) -> Path | None:
    """Give the file that says where the job saves: a logger may choose another folder in the job's next life."""
    job = _job_id()
    return None if job is None else Path(trainer.default_root_dir) / "slurm" / f"job-{job}.json"


def _note_job(trainer: Trainer, folders: list[Path]) -> None:
    record = _job_record(trainer)
    if record is None:
        return
    restarted = int(os.environ.get("SLURM_RESTART_COUNT", "0")) > 0 and record.is_file()
    if restarted:
        job = json.loads(record.read_text())
    else:
        record.parent.mkdir(parents=True, exist_ok=True)
        record.touch()
        job = {"started": record.stat().st_mtime, "folders": []}  # by the same clock as the checkpoints' times
    job["folders"] = list(dict.fromkeys([*job["folders"], *(str(folder.absolute()) for folder in folders)]))
    with whole(record) as part:
        part.write_text(json.dumps(job))
