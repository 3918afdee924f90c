"""Measure what episodes beside a training cost it: ``python -m uva_lightning.benchmarks.hardware_rollouts OUT``.

Trains ``quickstart_arm.yaml`` in turn with and without its episodes, each in a process of its own, and compares the
times from the first batch to the last validation. With them the evaluator is started with the first validation and has
always something to do, so the whole of its start, its loading and its episodes falls into that time; the wait for the
last result does not.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from lightning.pytorch import Callback, LightningModule, Trainer

from uva_lightning.benchmarks.machine import machine
from uva_lightning.commands.configs import read_config, shipped
from uva_lightning.results import write_json

CONFIG, MODULE = "quickstart_arm.yaml", "uva_lightning.benchmarks.hardware_rollouts"
PROGRAM = "import sys; from uva_lightning.cli import main; sys.exit(main(sys.argv[1:]))"


class TrainingTime(Callback):
    """Write down how long training took.

    Args:
        path: JSON file.
    """

    def __init__(self, path: str) -> None:
        self.path, self._begin = Path(path), 0.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin."""
        self._begin = time.perf_counter()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """End."""
        write_json(self.path, {"seconds": time.perf_counter() - self._begin})


def train(folder: Path, demos: Path, steps: int, enabled: bool) -> dict[str, Any]:
    """Train once; gives its time in s and the episodes that were run meanwhile."""
    folder.mkdir(parents=True)
    callbacks = read_config(shipped()[CONFIG])["trainer"]["callbacks"]
    (entry,) = (c for c in callbacks if isinstance(c, dict) and c["class_path"] == "HardwareRollout")
    rollout = {**entry["init_args"], "enabled": enabled, "every": 1, "evaluator": {"wait_at_end": 0.0}}
    timer = {"class_path": f"{MODULE}.TrainingTime", "init_args": {"path": str(folder / "time.json")}}
    trainer = {
        "max_steps": steps,
        "val_check_interval": max(1, steps // 8),
        "logger": {"init_args": {"save_dir": str(folder), "name": "run"}},
        "callbacks": ["EMA", {"class_path": "HardwareRollout", "init_args": rollout}, timer],
    }
    overlay = folder / "overlay.yaml"
    overlay.write_text(yaml.safe_dump({"data": {"init_args": {"path": str(demos)}}, "trainer": trainer}))
    command = [sys.executable, "-c", PROGRAM, "fit", "--config", str(shipped()[CONFIG]), "--config", str(overlay)]
    with (folder / "output.txt").open("w") as output:
        subprocess.run(command, stdout=output, stderr=output, check=True)
    results = [json.loads(path.read_text()) for path in folder.glob("run/hardware/results/*/result.json")]
    seconds = json.loads((folder / "time.json").read_text())["seconds"]
    return {"enabled": enabled, "seconds": seconds, "episodes": sum(len(result["episodes"]) for result in results)}


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and write ``hardware_rollouts.json``."""
    parser = argparse.ArgumentParser(prog="python -m uva_lightning.benchmarks.hardware_rollouts", description=__doc__)
    parser.add_argument("out", type=Path, help="new folder")
    parser.add_argument("--pairs", type=int, default=3, help="trainings with and without")
    parser.add_argument("--steps", type=int, default=800, help="of each training")
    parser.add_argument("--demos", type=Path, default=Path("runs/demos/simulated_arm.zarr"), help="made where absent")
    options = parser.parse_args(argv)
    runs = []
    for pair in range(options.pairs):
        order = (False, True) if pair % 2 == 0 else (True, False)  # a machine that gets slower favours neither
        for enabled in order:
            folder = options.out / f"{pair}_{'with' if enabled else 'without'}"
            runs.append({"pair": pair, **train(folder, options.demos.absolute(), options.steps, enabled)})
    times = {kind: [run["seconds"] for run in runs if run["enabled"] is kind] for kind in (False, True)}
    ratios = [with_ / without for without, with_ in zip(times[False], times[True], strict=True)]
    facts = {"ratio": statistics.median(ratios), "ratios": ratios, "runs": runs, "steps": options.steps}
    write_json(options.out / "hardware_rollouts.json", {**facts, "machine": machine()})
    sys.stdout.write(f"with episodes training takes {facts['ratio']:.3f} times as long (median of {len(ratios)})\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
