"""``uva bench train``: what the training steps of an experiment cost on this machine."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from uva_lightning.benchmarks.machine import machine
from uva_lightning.benchmarks.peak import TERA, Peak
from uva_lightning.commands.checks import check_writable
from uva_lightning.commands.configs import read_config, resolve_configs
from uva_lightning.commands.errors import UserError
from uva_lightning.commands.merge import merge_configs, split_configs
from uva_lightning.results import write_json

SCHEMA = 1
"""Of the JSON; grows when a key changes its meaning."""
ALWAYS = (
    "--trainer.logger=false",
    "--trainer.limit_val_batches=0",
    "--trainer.num_sanity_val_steps=0",
    "--trainer.enable_model_summary=false",
)
_ABOUT = """\
Measure training steps of an experiment, as uva fit runs them, without validation, checkpoints and logger.

  uva bench train --config configs/quickstart.yaml
  uva bench train --config configs/libero10.yaml --config configs/sizes/smoke.yaml \\
      --data.path runs/random/libero10 --data.generate RandomEpisodes

All options of uva fit work (uva fit --help lists them), among them --data.batch_size and --trainer.precision. Of an
experiment in stages the first is measured; lay configs/stages/joint.yaml over it for the second."""
_JSON = """\
keys of the JSON:
  schema, command, machine    version of these keys; what was measured, and where
  device, processes, strategy, precision, batch_size (of a process), accumulated (batches of an update)
  warmup, steps               updates of the weights before and during the measurement
  samples_per_s               of all processes; what follows is of the first one
  step_ms, parts_ms           time of an update, and of its parts, which are all of it
  flops_per_sample, parts_flops_per_sample    forward and backward, counted in the first batch
  flops_per_s, peak, mfu      FLOPs done, what the device could do and where that number is from, their ratio
  parameters, trained         number of weights
  memory_mib                  parameters, optimizer, average (of the weights), process (peak), growth (of the process
                              since before training), gpu (peak, 0 without)"""


def bench_train(argv: Sequence[str]) -> int:
    """Run ``uva bench train``.

    Args:
        argv: Command line after the name of the command.

    Returns:
        Exit status.

    Raises:
        UserError: The options cannot work; said before any work.
    """
    options, rest = _options().parse_known_args(list(argv))
    if options.steps < 1:
        raise UserError(f"steps is {options.steps}, expected 1 or more; set --steps 20.")
    if options.warmup < 1:
        raise UserError(f"warmup is {options.warmup}, expected 1 or more, the first step counts FLOPs; set --warmup 3.")
    if options.peak is not None and options.peak <= 0:
        raise UserError(f"peak is {options.peak:g}, expected TFLOP/s of the device, such as 989 for an H100.")
    if options.json is not None:
        check_writable(options.json)
    merged = merge_configs(resolve_configs(["train", *rest]))[1:]
    _check_data(merged)
    peak = None if options.peak is None else Peak(options.peak * TERA, "given with --peak")
    said = _measure(merged, options.warmup, options.steps, peak)
    if said is not None and options.json is not None:
        command = " ".join(["uva bench train", *argv])
        said = {"schema": SCHEMA, "command": command, "machine": machine(), **said}
        write_json(options.json, said)
    return 0


def _options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="uva bench train",
        usage="uva bench train --config FILE [options of uva fit] [options]",
        description=_ABOUT,
        epilog=_JSON,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--steps", type=int, default=20, help="updates of the weights that are measured (20)")
    parser.add_argument("--warmup", type=int, default=3, help="updates before, the first of which counts FLOPs (3)")
    parser.add_argument("--json", type=Path, help="file for the numbers")
    parser.add_argument(
        "--peak", type=float, help="TFLOP/s of the device; else from a table of GPUs, or measured by a matrix product"
    )
    return parser


def _check_data(argv: Sequence[str]) -> None:
    paths, rest = split_configs(argv)
    named = any(arg.partition("=")[0] == "--data" for arg in rest)
    if not named and not any(read_config(path).get("data") for path in paths):
        given = f"{paths[0]} has no 'data:'" if paths else "There is no --config"
        raise UserError(f"{given}, expected an experiment; set --config configs/quickstart.yaml.")


def _measure(argv: Sequence[str], warmup: int, steps: int, peak: Peak | None) -> dict[str, Any] | None:
    """Train, and print the table in the first process.

    Returns:
        What it said; nothing in the other processes.
    """
    from uva_lightning.benchmarks.training import Measured, add, described, legend, table
    from uva_lightning.commands.training import build

    cli = build([*argv, *ALWAYS, f"--trainer.max_steps={warmup + steps}"], "uva bench train")
    trainer, measured = cli.trainer, Measured(warmup, peak)
    add(trainer, measured)
    trainer.fit(cli.model, datamodule=cli.datamodule)
    if not trainer.is_global_zero:
        return None
    said = described(trainer, cli.model, measured)
    where = machine()
    device = where["gpu"] if said["device"].startswith("cuda") else where["processor"]
    sys.stdout.write(
        f"{device}, {where['cores']} cores, {where['memory_gib']} GiB, torch {where['torch']}\n"
        f"{said['processes']} process{'es' if said['processes'] > 1 else ''}, {said['precision']}, batches of "
        f"{said['batch_size']:g} samples{_accumulated(said)}, {said['trained'] / 1e6:.2f} M trained parameters; "
        f"{said['steps']} steps after {warmup}, {torch.get_num_threads()} threads\n\n"
        f"{table(said)}\n{legend(said['parts_ms'])}"
    )
    return said


def _accumulated(said: dict[str, Any]) -> str:
    return f", {said['accumulated']} to an update" if said["accumulated"] > 1 else ""
