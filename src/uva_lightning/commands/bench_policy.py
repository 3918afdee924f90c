"""``uva bench policy``: how long a model takes to decide and to imagine, stage by stage."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import torch

from uva_lightning.benchmarks.base_model import random_model
from uva_lightning.benchmarks.decisions import MILLISECONDS, PAPER, PAPER_DEVICE, Run, Scene, instruction_of, measure
from uva_lightning.benchmarks.machine import MIB, machine, peak_bytes
from uva_lightning.benchmarks.peak import TERA, Peak, device_peak
from uva_lightning.commands.checks import check_least, check_writable, chosen_device
from uva_lightning.commands.errors import UserError
from uva_lightning.model.checkpoint import load_module
from uva_lightning.module import UVAModule
from uva_lightning.policy.engine import native_dtype
from uva_lightning.policy.policy import UVAPolicy
from uva_lightning.results import write_json

FAST, PLAIN = "fast", "plain"
EXPERIMENT = "configs/pusht.yaml"
PLAIN_STEPS = 100
PLAIN_CALLS = 3
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
TYPED = dict[str, Any]


def bench_policy(
    ckpt: Path | None = None,
    experiment: str = EXPERIMENT,
    batch: int = 1,
    repeats: int = 10,
    steps: int | str = 16,
    video: int = 0,
    execute: int = 8,
    dtype: Literal["auto", "float32", "bfloat16"] = "auto",
    device: str = "cpu",
    compile: bool = False,
    baseline: bool = False,
    json: Path | None = None,
) -> None:
    """Measure decisions of a policy: cold and warm, p50, p95 and p99 of each stage, beside the table of the paper.

    The policy decides every few control steps; frames that it has seen are not encoded again.

    Args:
        ckpt: Checkpoint; random weights of the experiment's size where left out.
        experiment: Config whose model is built where there is no checkpoint; KL-16 gets random weights too.
        batch: Environments in one call.
        repeats: Warm calls.
        steps: Denoising steps of the heads.
        video: Rounds of video generation, such as 8, which is then measured; 0 measures decisions.
        execute: Control steps between two decisions.
        dtype: Of the matrix products; auto takes bfloat16 where the processor has it.
        device: Where the model runs.
        compile: Compile for fixed shapes first.
        baseline: Run the plain path in turns with it, at most three warm calls: float32, every frame of the history
            encoded in each call, 100 denoising steps, nothing kept; and give the ratio.
        json: File for the numbers; speedup is the ratio of the medians.
    """
    check_least(1, batch=batch, repeats=repeats, execute=execute)
    check_least(0, video=video)
    if json is not None:
        check_writable(json)
    where = chosen_device(device)
    module = _model(ckpt, experiment, execute).to(where).eval()
    chosen = native_dtype(module.device) if dtype == "auto" else DTYPES[dtype]
    fast = UVAPolicy(module, chosen, steps=dict.fromkeys(module.heads, steps), compile=compile)
    runs = [Run(FAST, fast), *([Run(PLAIN, plain_policy(module))] if baseline else [])]
    calls = {FAST: repeats, PLAIN: min(repeats, PLAIN_CALLS)}
    measure(runs, _function(video), Scene(fast, batch, instruction_of(fast)), execute, calls)
    settings = {
        "weights": "random" if ckpt is None else str(ckpt),
        "parameters": sum(parameter.numel() for parameter in module.parameters()),
        "function": f"video generation in {video} rounds" if video else "one chunk of actions",
        "batch": batch,
        "steps": str(steps),
        "execute": execute,
        "dtype": str(chosen).removeprefix("torch."),
        "device": where,
        "compiled": compile,
        "threads": torch.get_num_threads(),
    }
    said = described(runs, settings, device_peak(module.device, chosen))
    sys.stdout.write(shown(runs, said))
    if json is not None:
        write_json(json, said)


def _model(ckpt: Path | None, experiment: str, execute: int) -> UVAModule:
    """Build what is measured.

    Raises:
        UserError: Two models are named, or the model decides on fewer actions than are run.
    """
    if ckpt is not None and experiment != EXPERIMENT:
        raise UserError(f"ckpt is {ckpt} and experiment is {experiment}, expected one model; leave one of them out.")
    module = random_model(experiment) if ckpt is None else load_module(ckpt)[0]
    if execute > (most := module.spec.horizon):
        raise UserError(f"execute is {execute}, expected 1 to {most}, the actions in a chunk; set --execute.")
    return module


def _function(rounds: int) -> Callable[[UVAPolicy], object]:
    """Give what is measured: a decision, or rounds of video generation."""
    return (lambda policy: policy.imagine(iterations=rounds)) if rounds else UVAPolicy.act


def plain_policy(module: UVAModule) -> UVAPolicy:
    """Give the policy that decides as the official code: in float32, in 100 steps, and keeps nothing."""
    return UVAPolicy(module, torch.float32, steps=dict.fromkeys(module.heads, PLAIN_STEPS), fast=False)


def described(runs: list[Run], settings: TYPED, peak: Peak) -> TYPED:
    """Put everything into what the JSON holds."""
    said: TYPED = {"command": shlex.join(["uva", *sys.argv[1:]]), "machine": machine(), **settings}
    said |= {run.what: run.described() for run in runs}
    seconds, done = runs[0].quantiles("total")[0] / MILLISECONDS, runs[0].flops
    said[FAST] |= {
        "tflops_per_s": done / seconds / TERA,
        "peak_tflops_per_s": peak.flops_per_s / TERA,
        "peak_source": peak.source,
        "share_of_peak": peak.share(done, seconds),
    }
    said["peak_memory_mib"] = {
        "process": peak_bytes() / MIB,
        "gpu": torch.cuda.max_memory_allocated() / MIB if torch.cuda.is_available() else 0.0,
    }
    if len(runs) > 1:
        said["speedup"] = float(runs[1].quantiles("total")[0] / runs[0].quantiles("total")[0])
    said["paper_ms"] = {"device": PAPER_DEVICE, **dict(PAPER.values())}
    return said


def shown(runs: list[Run], said: TYPED) -> str:
    """Lay the numbers out for people."""
    where, memory = said["machine"], said["peak_memory_mib"]
    lines = [
        f"{where['gpu'] if said['device'] != 'cpu' else where['processor']}, {where['cores']} cores, "
        f"{where['memory_gib']} GiB, torch {where['torch']}, {said['threads']} threads",
        f"{said['parameters'] / 1e6:.1f} M parameters ({said['weights']}), {said['function']}, batch {said['batch']}, "
        f"a call every {said['execute']} control steps",
    ]
    for run in runs:
        how = "every frame encoded, 100 steps, nothing kept, float32" if run.what == PLAIN else _how(said)
        lines += ["", f"{run.what} path: {how}; {len(run.warm)} warm calls"]
        lines.append(f"  {'stage, ms':<16}{'cold':>10}{'p50':>10}{'p95':>10}{'p99':>10}   paper, {PAPER_DEVICE}")
        for stage in run.stages():
            p50, p95, p99 = run.quantiles(stage)
            paper = f"   {PAPER[stage][1]:.0f} ({PAPER[stage][0]})" if stage in PAPER else ""
            lines.append(f"  {stage:<16}{run.cold.get(stage, 0.0):>10.1f}{p50:>10.1f}{p95:>10.1f}{p99:>10.1f}{paper}")
    own = said[FAST]
    lines += [
        "",
        f"the fast path: {runs[0].flops / TERA:.2f} TFLOP, {own['tflops_per_s']:.2f} TFLOP/s, "
        f"{own['share_of_peak']:.0%} of the device's {own['peak_tflops_per_s']:.2f} ({own['peak_source']})",
    ]
    if "speedup" in said:
        lines += [f"the fast path is {said['speedup']:.2f} times faster than the plain path (p50 of the total)"]
    lines.append(f"peak memory: process {memory['process']:.0f} MiB, GPU {memory['gpu']:.0f} MiB")
    return "\n".join(lines) + "\n"


def _how(said: TYPED) -> str:
    compiled = ", compiled" if said["compiled"] else ""
    return f"{said['dtype']}, {said['steps']} denoising steps{compiled}"
