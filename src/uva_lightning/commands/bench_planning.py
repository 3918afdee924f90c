"""``uva bench planning``: what planning by forward dynamics is worth, beside the policy alone and the simulator."""

from __future__ import annotations

import shlex
import sys
import time
from pathlib import Path
from typing import Any

from uva_lightning.benchmarks.judgement import Judgement
from uva_lightning.benchmarks.machine import machine
from uva_lightning.benchmarks.planning import BOUND, Results, compare, markdown, summary
from uva_lightning.commands.checks import check_least, chosen_device
from uva_lightning.commands.errors import UserError
from uva_lightning.commands.rollout import RESULTS, find_checkpoint, named_weights, run_folder
from uva_lightning.model.checkpoint import load_module
from uva_lightning.policy.engine import native_dtype
from uva_lightning.policy.windows import WindowPolicy
from uva_lightning.results import versions, write_json
from uva_lightning.rollouts import FIRST_TEST_SEED
from uva_lightning.video_files import write_mp4
from uva_lightning.whole_files import whole

CLASSES = "block_push_rr,block_push_rg,block_push_gr,block_push_gg"
TABLE = "planning.md"
APART = 5.0
"""A decision matters where the true rewards of the proposals differ by more px (standard deviation)."""


def bench_planning(
    ckpt: Path,
    envs: str = CLASSES,
    episodes: int = 25,
    seed: int = FIRST_TEST_SEED,
    proposals: int = 16,
    execute: int = 8,
    bound: bool = True,
    videos: int = 1,
    out: Path | None = None,
    device: str = "auto",
    set: str | None = None,
) -> None:
    """Compare the policy alone, the planner, and the planner with the true simulator, from the same starts.

    Writes planning.md, results.json and films after each way to act. UVA's table has 100 proposals and runs 6 actions.

    Args:
        ckpt: Checkpoint of a training run, or folder of uva import-checkpoint.
        envs: Environments with a fixed goal, with commas between; those of the paper's table where left out.
        episodes: Starts, the same ones in every environment and for everyone.
        seed: Seed of the first start; the others count up.
        proposals: Chunks that a planner chooses from.
        execute: Actions of a chunk that are run before the policy decides again.
        bound: Also plan with the true simulator, which no imagination can beat for long.
        videos: Episodes of everything to film.
        out: Folder for the results; planning in the run's folder where left out.
        device: Where the model runs; auto takes the GPU where there is one.
        set: Data set of a mixture that is like the environments; the only one with actions where left out.
    """
    check_least(1, episodes=episodes, proposals=proposals)
    check_least(0, videos=videos)
    names = _names(envs)
    find_checkpoint(ckpt)
    module = load_module(ckpt)[0].to(chosen_device(device)).eval()
    policy = WindowPolicy(module, seed, native_dtype(module.device), set)
    seeds, begin, folder = range(seed, seed + episodes), time.monotonic(), out or run_folder(ckpt) / "planning"
    content = {
        "envs": names,
        "seeds": list(seeds),
        "proposals": proposals,
        "execute": execute,
        "checkpoint": named_weights(ckpt),
        "machine": machine(),
        "versions": versions(),
        "command": shlex.join(["uva", *sys.argv[1:]]),
    }
    table, judgement = "", Judgement(APART)
    for results in compare(policy, names, seeds, proposals, execute, judgement, bound, videos):
        content |= {"seconds": time.monotonic() - begin, "judgement": judgement.row() if BOUND in results else None}
        table = _write(folder, results, policy.spec.rate_hz, content, str(judgement) if BOUND in results else "")
    sys.stdout.write(f"{episodes} starts, {proposals} proposals, {execute} actions a decision\n\n{table}\n\n{folder}\n")


def _write(folder: Path, results: Results, rate_hz: float, content: dict[str, Any], judgement: str) -> str:
    """Write what has been played so far; gives the table, and what is said below it."""
    newest = list(results)[-1]
    _write_films(folder, {newest: results[newest]}, rate_hz)
    rows = summary(results)
    episodes = {way: {env: one.record()["episodes"] for env, one in found.items()} for way, found in results.items()}
    write_json(folder / RESULTS, {"ways": rows, **content, "episodes": episodes})
    table = markdown(rows) + (f"\n\n{judgement}" if judgement else "")
    with whole(folder / TABLE) as part:
        part.write_text(table + "\n")
    return table


def _write_films(folder: Path, results: Results, rate_hz: float) -> None:
    for way, found in results.items():
        label = "_".join(way.replace(",", "").split())
        for env, result in found.items():
            for start, frames in result.frames.items():
                write_mp4(folder / f"{env}_{start}_{label}.mp4", frames, rate_hz)


def _names(envs: str) -> list[str]:
    """Split the list, and refuse environments that cannot be planned in before any time is spent."""
    from uva_lightning.envs import goal_score, make

    names = [name.strip() for name in envs.split(",") if name.strip()]
    if not names:
        raise UserError(f"envs is empty, expected environments with commas between, such as {CLASSES}; set --envs.")
    for name in names:
        try:
            make(name).close()
            goal_score(name)
        except ValueError as error:
            raise UserError(str(error)) from error
    return names
