"""Measure what episodes beside a training cost it: ``python -m uva_lightning.benchmarks.hardware_rollouts OUT``.

Trains ``quickstart_arm.yaml`` in turn with and without its episodes, each in a process of its own, and compares the
times from the first batch to the last validation. With them the evaluator is started with the first validation and has
always something to do, so the whole of its start, its loading and its episodes falls into that time; the wait for the
last result does not. Start and steady state are told apart at the first result.
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

import numpy as np
import yaml
from lightning.pytorch import Callback, LightningModule, Trainer

from uva_lightning.benchmarks.machine import machine
from uva_lightning.commands.configs import read_config, shipped
from uva_lightning.metrics.intervals import student_mean
from uva_lightning.results import write_json

CONFIG, MODULE = "quickstart_arm.yaml", "uva_lightning.benchmarks.hardware_rollouts"
PARTS = {"whole": "whole training", "start": "until the first result", "steady": "after the first result"}
PROGRAM = "import sys; from uva_lightning.cli import main; sys.exit(main(sys.argv[1:]))"


class TrainingTime(Callback):
    """Write down when each step of a training was over.

    Args:
        path: JSON file.
    """

    def __init__(self, path: str) -> None:
        self.path, self._begin, self._wall, self._ends = Path(path), 0.0, 0.0, list[float]()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin."""
        self._begin, self._wall = time.perf_counter(), time.time()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: object, batch: object, batch_idx: int
    ) -> None:
        """Note the time; a validation after this batch counts to the next."""
        self._ends.append(time.perf_counter() - self._begin)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """End."""
        seconds = time.perf_counter() - self._begin
        write_json(self.path, {"seconds": seconds, "wall": self._wall, "ends": self._ends})


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
    hardware = folder / "run/hardware"
    results = [json.loads(path.read_text()) for path in hardware.glob("results/*/result.json")]
    timed = json.loads((folder / "time.json").read_text())
    events = [json.loads(line) for line in (hardware / "events.jsonl").read_text().splitlines()] if enabled else []
    first = next((event["time"] - timed["wall"] for event in events if event["event"] == "result"), None)
    episodes = sum(len(result["episodes"]) for result in results)
    return {"enabled": enabled, **timed, "first_result": first, "episodes": episodes}


def compare(without: Mapping[str, Any], with_: Mapping[str, Any]) -> dict[str, float | None]:
    """Give how many times as long a training took with episodes: whole, until the first result, and after it.

    Until the first result the evaluator starts, imports and loads; afterwards it only runs episodes. A part that had no
    step is None.

    Args:
        without: What ``train`` gave without episodes.
        with_: The same steps with them.
    """
    ends = np.array([0.0, *with_["ends"]]), np.array([0.0, *without["ends"]])
    first = with_["first_result"]
    split = len(ends[0]) - 1 if first is None else int(np.searchsorted(ends[0], first, side="right")) - 1
    start, steady = (
        [part[end] - part[begin] for part in ends] for begin, end in ((0, split), (split, len(ends[0]) - 1))
    )
    return {
        "whole": with_["seconds"] / without["seconds"],
        "start": float(start[0] / start[1]) if split else None,
        "steady": float(steady[0] / steady[1]) if split < len(ends[0]) - 1 else None,
    }


def summary(pairs: Sequence[Mapping[str, float | None]]) -> dict[str, dict[str, Any]]:
    """Give mean, 95 % interval (Student's t, of two pairs or more) and single values of each ratio that was found."""
    found = {}
    for part in ("whole", "start", "steady"):
        values = [value for pair in pairs if (value := pair[part]) is not None]
        if values:
            interval = student_mean(values)
            found[part] = {"mean": statistics.mean(values), "interval": interval and list(interval), "values": values}
    return found


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
    pairs = []
    for pair in range(options.pairs):
        without, with_ = sorted(runs[2 * pair : 2 * pair + 2], key=lambda run: bool(run["enabled"]))
        pairs.append(compare(without, with_))
    found = summary(pairs)
    facts = {"ratios": found, "pairs": pairs, "runs": runs, "steps": options.steps}
    write_json(options.out / "hardware_rollouts.json", {**facts, "machine": machine()})
    for part, name in PARTS.items():
        if part in found:
            mean, interval = found[part]["mean"], found[part]["interval"]
            sure = f"[{interval[0]:.3f}, {interval[1]:.3f}]" if interval else "one pair, no interval"
            sys.stdout.write(f"{name}: {mean:.3f} times as long with episodes ({sure})\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
