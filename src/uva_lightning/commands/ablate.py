"""``uva ablate``: train an experiment without each of its parts, and say what each is worth."""

from __future__ import annotations

import json
import logging
import shlex
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from uva_lightning.ablation.check import report, reproduced, statements
from uva_lightning.ablation.page import markdown
from uva_lightning.ablation.plan import Config, Plan, plan
from uva_lightning.ablation.plot import draw
from uva_lightning.ablation.run import Outcome, Runs
from uva_lightning.ablation.table import as_json, columns
from uva_lightning.benchmarks.machine import free_bytes, machine
from uva_lightning.commands.checks import check_least
from uva_lightning.commands.configs import SUFFIXES, find_config
from uva_lightning.commands.errors import UserError
from uva_lightning.commands.extras import install_command
from uva_lightning.commands.merge import split_configs
from uva_lightning.commands.training import TrainingParser, read_training
from uva_lightning.cores import usable_cores
from uva_lightning.results import versions, write_json
from uva_lightning.whole_files import whole

FORMAT = "uva_lightning ablation 1"
NAME = "ablation"
RUN_BYTES = 3 * 2**30
"""Memory left free for each training on the CPU when their number is chosen; the quickstart's peak is 2.4 GiB."""


def ablate(
    training: tuple[str, ...] = (),
    out: Path = Path("runs/ablation"),
    seeds: int = 3,
    steps: int = 400,
    variants: str = "",
    windows: int = 512,
    starts: int = 20,
    jobs: int = 0,
    keep: bool = False,
    check: Path | None = None,
) -> int:
    """Compare an experiment with itself without each objective, with every other balancer and sampler, and with yours.

    All variants are trained with the same seeds and measured alike. What is done is kept in the folder; the same
    command goes on from there, also with more seeds or variants.

    Args:
        training: What uva fit takes, each as an option of its own: --config FILE, --model.optimizer.init_args.lr 1e-3.
        out: Folder of the runs and of ablation.md, ablation.json and ablation.png.
        seeds: Trainings of each variant; the config's seed and the following ones.
        steps: Length of each training; the learning rate falls over it.
        variants: Some of them only, with commas between, or files that are laid over the experiment, such as
            options/action_only.yaml; the experiment itself is always there.
        windows: Held-out windows to measure the losses on; half as many for the functions.
        starts: Rollouts of the policy, and of the planner, where the config rolls out; 0 measures losses only.
        jobs: Trainings beside each other, on one thread each; 0 takes as many as cores and memory allow, or 1 on a GPU.
        keep: Keep the last checkpoint of each run, for uva eval.
        check: Earlier ablation.json to compare with.

    Returns:
        0; 1 where the result does not say the same as the one to compare with.
    """
    check_least(1, seeds=seeds, steps=steps, windows=windows)
    check_least(0, starts=starts)
    if jobs < 0:
        raise UserError(f"jobs is {jobs}, expected 0 or more; set --jobs.")
    earlier = None if check is None else _read(check)
    with _quiet():
        config = read_training(training)
        names = [name.strip() for name in variants.split(",") if name.strip()]
        planned = plan(config, TrainingParser.left_out, _overlays(names, training))
        if names:
            planned = planned.chosen([Path(name).stem if Path(name).suffix in SUFFIXES else name for name in names])
        first = int(config["seed_everything"])
        runs = Runs(planned, range(first, first + seeds), out, steps, windows, starts, keep)
        beside, threads = _beside(config, jobs)
        shown = ", ".join(variant.name for variant in planned.variants)
        sys.stdout.write(
            f"{len(planned.variants)} variants ({shown}), {seeds} seeds: "
            f"{len(runs.runs)} runs of {steps} steps, {min(beside, len(runs.runs))} at a time, in {out}\n"
        )
        sys.stdout.write("".join(f"left out: {name}: {why}\n" for name, why in planned.left_out.items()))
        outcome = runs(beside, threads)
    content = _write(planned, runs, outcome, _experiment(training))
    if earlier is None:
        return 0
    found = statements(earlier, content)
    sys.stdout.write(f"\nCompared with {check}:\n{report(found, earlier, content)}")
    return 0 if reproduced(found) else 1


def _write(planned: Plan, runs: Runs, outcome: Outcome, experiment: str) -> dict[str, Any]:
    """Write and print the result.

    Returns:
        What ``ablation.json`` holds.
    """
    trained = {variant.name: variant.trains for variant in planned.variants if variant.name in outcome.results}
    found = columns({name: outcome.results[name] for name in trained}, trained)
    every = [result for by_seed in outcome.results.values() for result in by_seed.values()]
    content = {
        "format": FORMAT,
        "experiment": experiment,
        "command": shlex.join(["uva", *sys.argv[1:]]),
        "seeds": list(dict.fromkeys(run.seed for run in runs.runs)),
        "steps": runs.steps,
        "windows": runs.windows,
        "starts": runs.starts,
        "machine": machine(),
        "versions": versions(),
        "versions_of_runs": [dict(pairs) for pairs in {tuple(result["versions"].items()) for result in every}],
        "trained": trained,
        "seconds": {name: [one["seconds"] for one in outcome.results[name].values()] for name in trained},
        "measures": as_json(found),
        "left_out": dict(planned.left_out) | outcome.left_out,
        "config": planned.config,
    }
    write_json(runs.out / f"{NAME}.json", content)
    page = markdown(content, found)
    with whole(runs.out / f"{NAME}.md") as part:
        part.write_text(page)
    sys.stdout.write(f"\n{page}\n")
    try:
        draw(found, f"Ablation of {experiment}", runs.out / f"{NAME}.png")
    except ImportError as error:
        sys.stdout.write(f"No plot: {error}; install it with {install_command('matplotlib')}\n")
    sys.stdout.write(
        f"{NAME}.md, {NAME}.json and {NAME}.png are in {runs.out}; curves: tensorboard --logdir {runs.out}\n"
    )
    loaded: dict[str, Any] = json.loads(json.dumps(content))
    return loaded


def _read(path: Path) -> Mapping[str, Any]:
    """Read an earlier result before hours are spent on a new one."""
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({error}), expected the ablation.json of an earlier call.") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise UserError(f"{path} is no result of this version of 'uva ablate', expected format '{FORMAT}'.")
    return content


def _experiment(training: Sequence[str]) -> str:
    """Name the experiment by its configs."""
    paths, _ = split_configs(training)
    return " + ".join(path.name for path in paths) or "the command line"


def _overlays(names: Sequence[str], training: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Lay each file among the names of variants over the experiment, and give the configs by the files' own names."""
    files = [find_config(name) for name in names if Path(name).suffix in SUFFIXES]
    stems = [file.stem for file in files]
    if double := [stem for stem in stems if stems.count(stem) > 1]:
        raise UserError(f"Two files of --variants are called '{double[0]}', as the variant would be; rename one.")
    return {file.stem: read_training((*training, "--config", str(file))) for file in files}


def _beside(config: Config, jobs: int) -> tuple[int, int | None]:
    """Choose how many trainings run beside each other, and the threads of each; None leaves them to PyTorch.

    On one thread a training repeats bit for bit, whatever the number of cores.
    """
    trainer = config["trainer"]
    if trainer["accelerator"] not in ("cpu", "auto") or (
        trainer["accelerator"] == "auto" and torch.cuda.is_available()
    ):
        return jobs or 1, None
    cores, free = usable_cores(), free_bytes()
    return jobs or max(1, min(cores, free // RUN_BYTES if free else cores)), 1


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep Lightning's remarks out of what the user sees, and PyTorch on one thread, so that measures repeat."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels, threads = [logger.level for logger in loggers], torch.get_num_threads()
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        torch.set_num_threads(1)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        torch.set_num_threads(threads)
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
