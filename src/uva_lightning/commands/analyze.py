"""``uva analyze``: what exactly does video supervision help? Checkpoints in one table and plot."""

from __future__ import annotations

import os
import shlex
import sys
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

from uva_lightning.analysis.checkpoints import Subject, gather
from uva_lightning.analysis.page import markdown
from uva_lightning.analysis.plot import draw
from uva_lightning.analysis.probe import LEAST_EPISODES
from uva_lightning.analysis.run import Analysis, Asked, changes_of
from uva_lightning.analysis.table import columns, related
from uva_lightning.benchmarks.machine import machine
from uva_lightning.commands.checks import check_data, check_least, chosen_device
from uva_lightning.commands.errors import UserError, hint
from uva_lightning.commands.extras import install_command
from uva_lightning.commands.long_work import alone, stopping_on_sigterm
from uva_lightning.commands.rollout import run_folder
from uva_lightning.envs.perturb import EDITS
from uva_lightning.envs.vector import Workers
from uva_lightning.evaluation.journal import Journal
from uva_lightning.results import versions, write_json
from uva_lightning.whole_files import whole

FORMAT = "uva_lightning analysis 1"
NAME, JOURNAL, LOCK = "analysis", "journal.jsonl", ".lock"


def analyze(
    runs: str = "",
    ckpts: str = "",
    out: Path | None = None,
    env: str = "pusht",
    changes: str = "",
    episodes: int = 20,
    probes: int = 40,
    windows: int = 256,
    data: Path | None = None,
    device: str = "auto",
    workers: int = 0,
    set: str | None = None,
) -> None:
    """Measure checkpoints and write analysis.md, analysis.json and analysis.png.

    For each of them: weight and share of the video objectives, held-out video loss and quality, linear probes of every
    layer, where attention goes, and scores with and without visual changes. What is done is kept in the folder: the
    same command goes on where it was killed, and measures only what is new when there are more checkpoints.

    Args:
        runs: Folder of a run, all of whose checkpoints are taken; several with commas between, NAME=PATH,NAME=PATH.
        ckpts: Single checkpoints, likewise.
        out: Folder; analysis in the first run's folder where left out.
        env: Environment to probe and to play in.
        changes: Visual changes, with commas between; where left out those that the environment draws.
        episodes: Starts that are played of the environment and of each change; 0 plays nothing.
        probes: Episodes of the environment's expert to probe on, 8 or more; 0 probes nothing.
        windows: Held-out windows to measure video on; 64 or more for a Frechet distance, 0 leaves video out.
        data: Where held-out windows are taken from; the data of the first checkpoint's training where left out.
        device: Where the models run; auto takes the GPU where there is one.
        workers: Processes that simulate; 0 takes one per core.
        set: Data set of a mixture that is like the environment; the only one with actions where left out.
    """
    check_data(data)
    check_least(0, episodes=episodes, probes=probes, windows=windows, workers=workers)
    if 0 < probes < LEAST_EPISODES:
        raise UserError(f"probes is {probes}, expected at least {LEAST_EPISODES}, or 0 for none; set --probes.")
    subjects = gather(runs, ckpts)
    offered = changes_of(env) if probes or episodes else ()  # refuses an environment that is not there
    chosen = tuple(one.strip() for one in changes.split(",") if one.strip()) or (offered if episodes else ())
    known = list(dict.fromkeys((*offered, *EDITS)))
    if episodes and (unknown := [one for one in chosen if one not in known]):
        raise UserError(f"'{env}' has no change '{unknown[0]}'.{hint(unknown[0], known)}")
    asked = Asked(env, chosen, episodes, probes, windows, chosen_device(device), set)
    folder = out or run_folder(subjects[0].path) / NAME
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        stack.enter_context(alone(folder / LOCK, "uva analyze"))
        stack.enter_context(stopping_on_sigterm())
        journal = stack.enter_context(Journal(folder / JOURNAL))
        pool = stack.enter_context(Workers(workers or os.cpu_count() or 1)) if episodes else None
        analysis = Analysis(asked, folder, journal, data)
        rows = analysis(subjects, pool)
    _write(folder, subjects, asked, rows, analysis.left_out)


def _write(
    folder: Path, subjects: list[Subject], asked: Asked, rows: list[dict[str, Any]], left_out: dict[str, str]
) -> None:
    found = columns(rows)
    content = {
        "format": FORMAT,
        "command": shlex.join(["uva", *sys.argv[1:]]),
        "asked": asdict(asked),
        "contract": asdict(subjects[0].spec),
        "machine": machine(),
        "versions": versions(),
        "columns": [asdict(column) for column in found],
        "related": [dict(zip(("one", "other", "spearman", "n"), pair, strict=True)) for pair in related(found)],
        "rows": rows,
        "left_out": left_out,
    }
    write_json(folder / f"{NAME}.json", content)
    page = markdown(content, found)
    with whole(folder / f"{NAME}.md") as part:
        part.write_text(page)
    sys.stdout.write(f"\n{page}\n")
    files = [f"{NAME}.md", f"{NAME}.json"]
    try:
        with whole(folder / f"{NAME}.png") as part:
            draw(rows, found, part)
        files.append(f"{NAME}.png")
    except ImportError as error:
        sys.stdout.write(f"No plot: {error}; install it with {install_command('matplotlib')}\n")
    sys.stdout.write(f"{', '.join(files)} are in {folder}\n")
