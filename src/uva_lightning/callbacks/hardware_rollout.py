"""Try the model on an arm, real or simulated, while it trains; training does not wait."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from PIL import Image

from uva_lightning.callbacks.evaluation import rehearsing, run_folder
from uva_lightning.callbacks.run_record import RunRecord
from uva_lightning.callbacks.tensorboard_video import log_gif
from uva_lightning.metrics.hardware import measures
from uva_lightning.module import UVAModule
from uva_lightning.robot.benches.base import Bench
from uva_lightning.robot.benches.drivers import Driver, TrainedModel
from uva_lightning.robot.benches.fake import FakeBench
from uva_lightning.robot.control import Control
from uva_lightning.robot.errors import RobotConfigError
from uva_lightning.robot.evaluator_job import FILM, WEIGHTS, Job
from uva_lightning.robot.evaluator_process import Evaluator, EvaluatorProcess, Outcome
from uva_lightning.strategies.sharded import is_cut, put_together

log = logging.getLogger(__name__)
Given = TypeVar("Given")


class HardwareRollout(Callback):
    """Run episodes with the averaged weights beside training, and log how they went at a later validation.

    Everything about the arm happens in a process of its own, which gets the weights as a file and gives results as
    files, in ``hardware/`` of the run folder. Only the first rank knows of it. Whatever fails there, training goes on:
    ``hardware/available`` is then 0. It moves a real arm only if three keys are turned: ``enabled``, ``dry_run=false``
    and the arming token that the bench of a real arm asks for.

    Logs ``hardware/success_rate`` with ``success_low`` and ``success_high`` (95 % Wilson interval) of ``valid``
    episodes, counts, durations, latencies, ``hardware/available``, ``hardware/age_steps``: how many steps ago the
    weights were taken, and ``hardware/blocked_seconds``: how long all of this has
    held training up so far. A value that is missing is not logged, so do not let a ``ModelCheckpoint`` watch one.

    Args:
        enabled: Do anything at all.
        dry_run: Plan and check everything, send nothing.
        bench: Where; an ideal arm if not given.
        driver: What drives; the model if not given.
        control: Its pace; UVA's on this arm if not given.
        every: Run at every so many validations in training.
        episodes: Episodes each time.
        seed: Of scenes and noise, the same each time.
        budget: Longest time for the episodes, s.
        films: Episodes of which films are kept.
        evaluator: How the process runs.
    """

    def __init__(
        self,
        enabled: bool = False,
        dry_run: bool = True,
        bench: Bench | None = None,
        driver: Driver | None = None,
        control: Control | None = None,
        every: int = 10,
        episodes: int = 5,
        seed: int = 0,
        budget: float = 900.0,
        films: int = 2,
        evaluator: Evaluator | None = None,
    ) -> None:
        for name, value, least in (
            ("every", every, 1),
            ("episodes", episodes, 1),
            ("films", films, 0),
            ("seed", seed, 0),
        ):
            if value < least:
                raise RobotConfigError(f"HardwareRollout: {name} is {value}, expected at least {least}.")
        if not 0 < budget < float("inf"):
            raise RobotConfigError(f"HardwareRollout: budget is {budget} s, expected a positive number.")
        self.enabled, self.every, self.evaluator = enabled, every, evaluator or Evaluator()
        self._job = Job(0, bench or FakeBench(), driver or TrainedModel(), control or Control(), episodes, seed, budget,
                        films, self.evaluator.breaker, dry_run)  # fmt: skip
        self._validations, self._last, self._last_step = 0, dict[str, float](), 0
        self._process: EvaluatorProcess | None = None
        self._blocked, self._writer = 0.0, threading.Thread()

    def state_dict(self) -> dict[str, Any]:
        """Keep the count and what was found last, so that a resumed run goes on with them."""
        return {"validations": self._validations, "last": dict(self._last), "last_step": self._last_step}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take them."""
        self._validations, self._last = state_dict["validations"], dict(state_dict["last"])
        self._last_step = state_dict["last_step"]

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Find out now, not after an hour, whether the configuration can work. The arm is not asked yet.

        Raises:
            RobotConfigError: It cannot.
        """
        if stage != "fit":
            return
        if not self.enabled:
            rank_zero_info("HardwareRollout does nothing: enabled is false.")
            return
        if not isinstance(pl_module, UVAModule):
            raise RobotConfigError(
                f"HardwareRollout got a {type(pl_module).__name__}, expected a UVAModule; remove it."
            )
        job = self._job
        job.bench.check()
        job.driver.check(job.bench, job.control, pl_module.spec)
        Job.parsed(job.record())
        if job.driver.trained and _record(trainer) is None:
            raise RobotConfigError(
                "HardwareRollout finds no record of the configuration, from which the model is built again; start "
                "training with uva fit, or add the callback RunRecord."
            )
        folder = run_folder(trainer) / "hardware"  # on every rank
        if trainer.is_global_zero and not rehearsing(trainer):
            self._process = EvaluatorProcess(folder, self.evaluator)
            how = "nothing is sent to the arm" if job.dry_run else "commands are sent to the arm"
            rank_zero_info(
                f"HardwareRollout: {type(job.driver).__name__} on {type(job.bench).__name__}, {how} (dry_run is "
                f"{str(job.dry_run).lower()}); results in {folder}."
            )

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take what is done and hand over what is due; here ``EMA`` shows the average."""
        if not self.enabled or rehearsing(trainer) or trainer.state.fn != TrainerFn.FITTING:
            return
        begin = time.perf_counter()
        self._validations += 1
        due = self._validations % self.every == 0
        weights: dict[str, Any] | None = None
        if due and self._job.driver.trained and is_cut(pl_module):  # all ranks have to put it together
            weights = put_together(pl_module.state_dict(), trainer.is_global_zero)
        shown: dict[str, float] = {}
        if self._process is not None:
            process = self._process
            if self._writer.is_alive():  # the disk is slower than validations are often
                self._safely(lambda: process.event("late", f"weights of step {self._writer.name} are still written"))
            else:
                outcome = self._safely(process.collect)
                if outcome is not None:
                    self._safely(lambda: self._take(trainer, outcome))
                if due:
                    self._safely(lambda: self._hand_over(trainer, pl_module, process, weights))
            self._blocked += time.perf_counter() - begin
            shown = {**self._shown(trainer.global_step), "blocked_seconds": self._blocked}
        for name, value in trainer.strategy.broadcast(shown).items():
            pl_module.log(f"hardware/{name}", value)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Wait a little for the last result; the other ranks are free by now."""
        process = self._process
        if process is None:
            return
        if self._written(self.evaluator.wait_at_end) and (outcomes := self._safely(process.await_last)):
            self._safely(lambda: self._take_last(trainer, outcomes))
        self._close()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Park the arm."""
        self._close()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Park the arm, if that was not done yet."""
        self._close()

    def _hand_over(
        self, trainer: Trainer, module: LightningModule, process: EvaluatorProcess, weights: dict[str, Any] | None
    ) -> None:
        job, content = replace(self._job, step=trainer.global_step), dict[str, Any]()
        if job.driver.trained:
            record = _record(trainer)
            if weights is None:  # training goes on with the originals while these are written
                weights = {name: _copied(value) for name, value in module.state_dict().items()}
            content = {"state_dict": weights, "config": "" if record is None else record.text}
            module.on_save_checkpoint(content)

        def save(folder: Path) -> None:
            if content:
                torch.save(content, folder / WEIGHTS)

        def write() -> None:
            self._safely(lambda: process.submit(job, save))

        self._writer = threading.Thread(target=write, name=str(job.step), daemon=True)
        self._writer.start()

    def _take(self, trainer: Trainer, outcome: Outcome) -> None:
        found = measures(outcome.content["episodes"])
        self._last = {**found, "available": float(outcome.available)} if found else {**self._last, "available": 0.0}
        if not outcome.available:
            rank_zero_warn(f"HardwareRollout: no episodes of step {outcome.step}: {outcome.content['reason']}")
        if found:
            self._last_step = outcome.step
        film = outcome.folder / FILM
        if film.is_file():
            with Image.open(film) as picture:
                log_gif(trainer, "hardware/episodes", film.read_bytes(), picture.height, picture.width, outcome.step)

    def _take_last(self, trainer: Trainer, outcomes: list[Outcome]) -> None:
        for outcome in outcomes:
            self._take(trainer, outcome)
        shown = {f"hardware/{name}": value for name, value in self._shown(trainer.global_step).items()}
        for logger in trainer.loggers:
            logger.log_metrics(shown, trainer.global_step)

    def _shown(self, step: int) -> dict[str, float]:
        """Give what is known by now; nothing before the first result."""
        if not self._last:
            return {}
        return {**self._last, "age_steps": float(step - self._last_step)}

    def _safely(self, work: Callable[[], Given]) -> Given | None:
        """Do something that must not end training."""
        try:
            return work()
        except Exception as error:  # no robot is worth a training
            log.exception("hardware rollout")
            if self._process is not None:
                self._process.event("error", f"{type(error).__name__}: {error}")
            self._last["available"] = 0.0
            rank_zero_warn(f"HardwareRollout failed ({type(error).__name__}: {error}); training goes on.")
            return None

    def _written(self, seconds: float) -> bool:
        """Wait for weights that are being written; tell whether they are, so that nobody else uses the process."""
        if self._writer.is_alive():
            self._writer.join(seconds)
        return not self._writer.is_alive()

    def _close(self) -> None:
        self._written(self.evaluator.stop)
        if self._process is not None:
            self._safely(self._process.close)
            self._process = None


def _record(trainer: Trainer) -> RunRecord | None:
    callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]
    return next((callback for callback in callbacks if isinstance(callback, RunRecord)), None)


def _copied(value: Any) -> Any:
    return value.detach().to("cpu", copy=True) if isinstance(value, torch.Tensor) else value
