"""Measure what episodes beside a training cost it: ``python -m uva_lightning.benchmarks.hardware_rollouts OUT``.

Runs ``quickstart_arm.yaml`` in turn with and without its episodes, each in a process of its own, and compares how long
the whole command takes: start of the evaluator, loading, episodes and the wait for the last result are in it.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from tqdm.auto import tqdm

from uva_lightning.benchmarks.machine import machine
from uva_lightning.commands.configs import read_config, shipped
from uva_lightning.metrics.intervals import student_mean
from uva_lightning.results import write_json

CONFIG = "quickstart_arm.yaml"
PROGRAM = "import sys; from uva_lightning.cli import main; sys.exit(main(sys.argv[1:]))"


def train(folder: Path, demos: Path, steps: int, enabled: bool) -> dict[str, Any]:
    """Train once.

    Args:
        folder: New folder of the run.
        demos: Demonstrations, made where absent.
        steps: Length of the training; it validates as often as the config itself does.
        enabled: Whether there are episodes.

    Returns:
        ``seconds`` of the command, its ``episodes``, and ``cpu_seconds`` of the evaluator up to its last result.

    Raises:
        SystemExit: The command failed.
    """
    folder.mkdir(parents=True)
    own = read_config(shipped()[CONFIG])["trainer"]
    (entry,) = (c for c in own["callbacks"] if isinstance(c, dict) and c["class_path"] == "HardwareRollout")
    rollout = {**entry["init_args"], "enabled": enabled}
    trainer = {
        "max_steps": steps,
        "val_check_interval": max(1, steps * own["val_check_interval"] // own["max_steps"]),
        "logger": {"init_args": {"save_dir": str(folder), "name": "run"}},
        "callbacks": ["EMA", {"class_path": "HardwareRollout", "init_args": rollout}],
    }
    overlay = folder / "overlay.yaml"
    overlay.write_text(yaml.safe_dump({"data": {"init_args": {"path": str(demos)}}, "trainer": trainer}))
    command = [sys.executable, "-c", PROGRAM, "fit", "--config", str(shipped()[CONFIG]), "--config", str(overlay)]
    begin = time.perf_counter()
    log = folder / "output.txt"
    with log.open("w") as output:
        status = subprocess.run(command, stdout=output, stderr=output, check=False).returncode
    seconds = time.perf_counter() - begin
    if status:
        raise SystemExit(f"The training in {folder} ended with status {status}, expected 0; {log} says why.")
    results = [json.loads(path.read_text()) for path in (folder / "run/hardware").glob("results/*/result.json")]
    return {
        "enabled": enabled,
        "seconds": seconds,
        "episodes": sum(len(result["episodes"]) for result in results),
        "cpu_seconds": max((result["cpu_seconds"] for result in results), default=0.0),
    }


def summary(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Give how many times as long the command takes with episodes, pair by pair.

    Args:
        runs: From ``train``; the two of a pair, in any order, after each other.

    Returns:
        ``values``, their ``mean``, and its 95 % ``interval`` (Student's t), None of one pair.
    """
    pairs = zip(runs[::2], runs[1::2], strict=True)
    ordered = [sorted(pair, key=lambda run: bool(run["enabled"])) for pair in pairs]
    values = [with_["seconds"] / without["seconds"] for without, with_ in ordered]
    interval = student_mean(values)
    return {"values": values, "mean": statistics.mean(values), "interval": interval and list(interval)}


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and write ``hardware_rollouts.json``."""
    parser = argparse.ArgumentParser(prog="python -m uva_lightning.benchmarks.hardware_rollouts", description=__doc__)
    parser.add_argument("out", type=Path, help="new folder")
    parser.add_argument("--pairs", type=int, default=3, help="trainings with and without")
    parser.add_argument("--steps", type=int, default=3000, help="of each training")
    parser.add_argument("--demos", type=Path, default=Path("runs/demos/simulated_arm.zarr"), help="made where absent")
    options = parser.parse_args(argv)
    for name in ("pairs", "steps"):
        if getattr(options, name) < 1:
            parser.error(f"{name} is {getattr(options, name)}, expected at least 1; set --{name}.")
    if options.out.exists():
        parser.error(f"{options.out} exists, expected a new folder; give another, or remove it.")
    demos, runs = options.demos.absolute(), list[dict[str, Any]]()
    train(options.out / "warm_up", demos, 1, False)  # makes the demonstrations and fills caches; does not count
    with tqdm(total=2 * options.pairs, desc="trainings", unit="training") as bar:
        for pair in range(options.pairs):
            order = (False, True) if pair % 2 == 0 else (True, False)  # a machine that gets slower favours neither
            for enabled in order:
                folder = options.out / f"{pair}_{'with' if enabled else 'without'}"
                runs.append(train(folder, demos, options.steps, enabled))
                bar.update()
            facts = {**summary(runs), "runs": runs, "steps": options.steps, "machine": machine()}
            write_json(options.out / "hardware_rollouts.json", facts)  # what is measured is kept
    sys.stdout.write(said(summary(runs), runs))
    return 0


def said(found: Mapping[str, Any], runs: Sequence[Mapping[str, Any]]) -> str:
    """Say what ``summary`` found, and what the episodes were."""
    interval = found["interval"]
    sure = f"{interval[0]:.3f} to {interval[1]:.3f}" if interval else "one pair, no interval"
    lines = [f"{found['mean']:.3f} times as long with episodes ({sure})"]
    for run in runs:
        if run["enabled"]:
            used = f"{run['cpu_seconds']:.0f} s of the evaluator's processor time"
            lines.append(f"{run['seconds']:.0f} s with {run['episodes']} episodes, {used}")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
