"""``uva replay``: do demonstrations reach their own score on the way that a policy's actions take?"""

from __future__ import annotations

import importlib
import os
import pkgutil
import shlex
import sys
from dataclasses import replace as replaced
from pathlib import Path

import numpy as np
from tqdm.auto import tqdm

from uva_lightning import evaluation
from uva_lightning.action_space import ActionSpace
from uva_lightning.commands.checks import check_writable
from uva_lightning.commands.errors import UserError
from uva_lightning.commands.rollout import find_checkpoint
from uva_lightning.datamodules.base import RobotDataModule
from uva_lightning.envs.vector import Workers
from uva_lightning.evaluation.recordings import Recordings, recordings_of
from uva_lightning.evaluation.replay import Replayed
from uva_lightning.evaluation.replay import replay as play
from uva_lightning.model.checkpoint import load_module
from uva_lightning.normalize import Limits
from uva_lightning.results import versions, write_json

FORMAT = "uva_lightning replay 1"


def replay(
    data: Path,
    env: str = "pusht",
    json: Path | None = None,
    ckpt: Path | None = None,
    set: str | None = None,
    episodes: int = 0,
    execute: int = 8,
    workers: int = 0,
) -> int:
    """Replay demonstrations in a simulator as if a policy acted so: cut into chunks, normalised and back.

    Finds flipped signs, rotations and pictures, wrong normalisers and shifted actions before a policy is scored.

    Args:
        data: Demonstrations.
        env: Environment, such as pusht.
        json: File for the numbers.
        ckpt: Checkpoint whose datamodule and normaliser are used; those of the environment where left out.
        set: Data set of a mixture that is like the environment; the only one with actions where left out.
        episodes: Replay only so many, evenly spaced; 0 takes all.
        execute: Actions of each chunk that are run before the next one is taken.
        workers: Processes that simulate; 0 takes one per core.

    Returns:
        0; 1 where something is wrong.
    """
    for name, value in (("episodes", episodes), ("workers", workers)):
        if value < 0:
            raise UserError(f"{name} is {value}, expected 0 or more.")
    if json is not None:
        check_writable(json)
    recordings = opened(env, data)
    module, space = pipeline(recordings, ckpt, set)
    with Workers(workers or os.cpu_count() or 1) as pool:
        result = checked(pool, recordings, module, space, episodes, execute)
        crashes = pool.crashes
    if json is not None:
        source = {"data": str(data), "checkpoint": None if ckpt is None else str(ckpt), "crashes": crashes}
        command = shlex.join(["uva", *sys.argv[1:]])
        write_json(json, {"format": FORMAT, **result.record(), **source, "versions": versions(), "command": command})
    sys.stdout.write(summary(result))
    return int(bool(result.faults()))


def opened(env: str, data: Path) -> Recordings:
    """Find out how demonstrations of an environment begin."""
    for module in pkgutil.iter_modules(evaluation.__path__, f"{evaluation.__name__}."):
        importlib.import_module(module.name)
    return recordings_of(env, data)


def pipeline(recordings: Recordings, ckpt: Path | None, set: str | None) -> tuple[RobotDataModule, ActionSpace]:
    """Give what reads the demonstrations and what normalises their actions, as in the training of a checkpoint.

    Args:
        recordings: The demonstrations.
        ckpt: Checkpoint; without one the range of each dimension becomes [-1, 1].
        set: Data set of a mixture.
    """
    if ckpt is None:
        return recordings.data(), ActionSpace(Limits())
    find_checkpoint(ckpt)
    module, every = load_module(ckpt)
    data = every.chosen(set)
    data.symmetry = data.augment = None
    data.reading = replaced(data.reading, episodes=None)
    data.move_to(recordings.path)
    return data, module.actions.of(module.spec.chosen(set))


def checked(
    pool: Workers, recordings: Recordings, data: RobotDataModule, space: ActionSpace, episodes: int, execute: int
) -> Replayed:
    """Replay some demonstrations, evenly spaced, or all for 0.

    Args:
        pool: Simulates.
        recordings: The demonstrations.
        data: Reads them.
        space: How the model sees actions.
        episodes: How many.
        execute: Actions of each chunk that are run.
    """
    recorded = recordings.recorded
    chosen = spaced(len(recorded), episodes)
    with tqdm(total=len(chosen), desc=f"replay of {recordings.env}", unit="episode", leave=False) as bar:
        return play(pool, recordings.env, data, space, recorded, chosen, execute, lambda done: bar.update(done))


def spaced(total: int, count: int) -> list[int]:
    """Choose ``count`` of ``total`` demonstrations, evenly spaced; all for 0."""
    chosen: list[int] = np.linspace(0, total - 1, min(count or total, total)).astype(int).tolist()
    return chosen


def summary(result: Replayed) -> str:
    """Say what came of it."""
    numbers = result.record()
    own = numbers["own_score"]
    low, high = numbers["score_interval"]
    lines = [
        f"{result.env}: {numbers['n']} demonstrations replayed, score {result.score:.3f} ({low:.3f} to {high:.3f})"
        + ("" if own is None else f"; recorded with {own:.3f}")
    ]
    lines += [
        f"state '{name}': first values differ by {share:.2%} of the range" for name, share in result.states.items()
    ]
    lines += [
        f"pictures of '{camera}': {found['as_recorded']:.2f} of 255 apart, {found['look']}"
        for camera, found in numbers["pictures"].items()
    ]
    lines += [f"WRONG: {fault}" for fault in result.faults()] or ["ok: a policy can be scored here"]
    return "\n".join(lines) + "\n"
