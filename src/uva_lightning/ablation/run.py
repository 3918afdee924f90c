"""Train the variants, each run as a ``uva fit`` of its own, and measure them; what is done is done once."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, field
from json import loads
from pathlib import Path
from typing import Any

import yaml
from tqdm.auto import tqdm

from uva_lightning.ablation.measure import Measure
from uva_lightning.ablation.plan import ALL, Plan, Variant, first_difference, run_config
from uva_lightning.commands.errors import UserError
from uva_lightning.commands.long_work import alone, stopping_on_sigterm
from uva_lightning.results import versions, write_json
from uva_lightning.whole_files import whole

RESULT, CONFIG, OUTPUT, SETTINGS = "result.json", "train.yaml", "output.txt", "ablation.yaml"
_REFUSED = re.compile(r"^uva(?: \w+)?: error: (.+)$", re.MULTILINE)
_PATIENCE = 60.0
"""Seconds in which a run that is told to stop has to save."""
_PAUSE = 0.2
"""Seconds between two looks at what runs."""
_THREAD_LIMITS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")


@dataclass(frozen=True)
class Run:
    """One training: a variant with a seed."""

    variant: Variant
    seed: int

    @property
    def name(self) -> str:
        """What a person calls it."""
        return f"{self.variant.name}, seed {self.seed}"


@dataclass(frozen=True, eq=False)
class _Active:
    """A training that goes on, begun at a time in s."""

    run: Run
    process: subprocess.Popen[bytes]
    began: float


@dataclass
class Outcome:
    """What came of all runs.

    Args:
        results: Content of ``result.json`` by variant and seed.
        left_out: Variants that could not be trained, with the reason.
    """

    results: dict[str, dict[int, dict[str, Any]]] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)

    def add(self, run: Run, result: dict[str, Any]) -> None:
        """Take a result; a variant with a number that is not finite is left out."""
        if result["not_finite"]:
            self.leave_out(run, f"{', '.join(result['not_finite'])} is not finite with seed {run.seed}")
        if run.variant.name not in self.left_out:
            self.results.setdefault(run.variant.name, {})[run.seed] = result

    def leave_out(self, run: Run, reason: str) -> None:
        """Leave a variant out.

        Raises:
            UserError: It is the one that all others are compared with.
        """
        if run.variant.name == ALL:
            raise UserError(f"The experiment itself cannot be trained: {reason}")
        self.results.pop(run.variant.name, None)
        self.left_out[run.variant.name] = reason


class Runs:
    """All runs of an ablation in one folder.

    Args:
        plan: What is compared.
        seeds: One per run of each variant.
        out: Folder; of an earlier call with the same settings, whose runs are kept, or new.
        steps: Length of each training.
        windows: Held-out windows to measure on.
        starts: Rollouts to measure with.
        keep: Keep the last checkpoint of each run.

    Raises:
        UserError: The folder holds an ablation of another experiment.
    """

    def __init__(
        self, plan: Plan, seeds: range, out: Path, steps: int, windows: int, starts: int, keep: bool = False
    ) -> None:
        self.plan, self.out, self.steps, self.windows, self.starts = plan, out, steps, windows, starts
        self.keep = keep
        self.runs = [Run(variant, seed) for seed in seeds for variant in plan.variants]
        settings = {"steps": steps, "windows": windows, "starts": starts, "config": plan.config}
        file = out / SETTINGS
        if file.is_file() and any(out.glob("*/seed-*")):
            refuse_other(file, yaml.safe_load(file.read_text()), settings)
        else:
            with whole(file) as part:
                part.write_text(yaml.safe_dump(settings, sort_keys=False))

    def folder(self, run: Run) -> Path:
        """Give the folder of a run."""
        return self.out / run.variant.name / f"seed-{run.seed}"

    def __call__(self, jobs: int, threads: int | None) -> Outcome:
        """Do what is not done yet.

        Args:
            jobs: Trainings beside each other.
            threads: Of each; PyTorch decides if not given.

        Raises:
            UserError: A run failed for another reason than one that this package gives; or the folder is in use.
        """
        outcome, todo = Outcome(), list[Run]()
        for run in self.runs:
            if (file := self.folder(run) / RESULT).is_file():
                outcome.add(run, loads(file.read_text()))
            else:
                todo.append(run)
        if todo:
            with alone(self.out / ".lock", "uva ablate") as lock, stopping_on_sigterm():
                self._work(todo, outcome, jobs, threads, lock)
        return outcome

    def _work(self, todo: list[Run], outcome: Outcome, jobs: int, threads: int | None, lock: int) -> None:
        measure = Measure(self.plan.config, self.windows, self.starts)
        self._check_stages(measure)
        active: list[_Active] = []
        with tqdm(total=len(self.runs), initial=len(self.runs) - len(todo), unit="run", desc="ablation") as bar:
            try:
                while todo or active:
                    todo = [run for run in todo if run.variant.name not in outcome.left_out]
                    while todo and len(active) < jobs:
                        active.append(self._start(todo.pop(0), threads, lock))
                    bar.set_postfix_str("; ".join(one.run.name for one in active))
                    for one in [one for one in active if one.process.poll() is not None]:
                        active.remove(one)
                        self._finish(one, measure, outcome)
                        bar.update()
                    time.sleep(_PAUSE)
            finally:
                _stop([one.process for one in active])

    def _check_stages(self, measure: Measure) -> None:
        last = measure.module.sampler.starts[-1]
        if last >= self.steps:
            raise UserError(
                f"The last stage of training begins at step {last}, but a run has {self.steps}; set --steps to more, "
                "or the stages of model.sampler to fewer."
            )

    def _start(self, run: Run, threads: int | None, lock: int) -> _Active:
        folder = self.folder(run)
        config = run_config(self.plan, run.variant, run.seed, self.steps, folder, self.out / "latents")
        with whole(folder / CONFIG) as part:
            part.write_text(yaml.safe_dump(config, sort_keys=False))
        limits = {} if threads is None else dict.fromkeys(_THREAD_LIMITS, str(threads))
        command = [sys.executable, "-m", "uva_lightning.cli", "fit", "--config", str(folder / CONFIG)]
        with (folder / OUTPUT).open("wb") as output:
            process = subprocess.Popen(
                [*command, "--ckpt_path", "last"],
                env=os.environ | limits,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                pass_fds=(lock,),  # a run that outlives this process keeps the folder locked
            )
        return _Active(run, process, time.monotonic())

    def _finish(self, one: _Active, measure: Measure, outcome: Outcome) -> None:
        """Measure a run that has ended, or say why it has failed."""
        run, status, seconds = one.run, one.process.returncode, time.monotonic() - one.began
        folder = self.folder(run)
        if status:
            said = (folder / OUTPUT).read_text(errors="replace")
            if reasons := _REFUSED.findall(said):
                outcome.leave_out(run, reasons[-1])
                return
            last = (said.strip().splitlines() or ["it said nothing"])[-1]
            raise UserError(
                f"The run '{run.name}' ended with status {status}: {last}; {folder / OUTPUT} holds all that it said. "
                "The same command goes on from here."
            )
        checkpoint = folder / "checkpoints" / "last.ckpt"
        values = measure(checkpoint, yaml.safe_load((folder / CONFIG).read_text()))
        every = {name: value for kind in values.values() for name, value in kind.items()}
        broken = [name for name, value in every.items() if not abs(value.value) < float("inf")]
        result = {
            "variant": run.variant.name,
            "seed": run.seed,
            "steps": self.steps,
            "not_finite": broken,
            **{kind: {n: asdict(v) for n, v in found.items() if n not in broken} for kind, found in values.items()},
            "seconds": round(seconds, 1),
            "versions": versions(),
        }
        write_json(folder / RESULT, result)
        if not self.keep:
            shutil.rmtree(folder / "checkpoints")  # 82 MB for each run of the quickstart
        outcome.add(run, result)


def refuse_other(file: Path, before: Any, now: Any) -> None:
    """Refuse to go on in the folder of another ablation.

    Args:
        file: What the folder holds.
        before: Its content.
        now: What it would be now.

    Raises:
        UserError: They differ; the message names the first difference.
    """
    if found := first_difference(before, now):
        where, old, new = found
        raise UserError(
            f"{file.parent} holds an ablation with {where.removeprefix('config.')}={_short(old)}, but now it is "
            f"{_short(new)}; name another folder with --out, or remove this one."
        )


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _stop(processes: list[subprocess.Popen[bytes]]) -> None:
    """Let trainings save and end."""
    for process in processes:
        process.terminate()
    for process in processes:
        try:
            process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
