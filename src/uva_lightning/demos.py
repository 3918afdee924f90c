"""Record demonstrations of the scripted expert: ``uva demos pusht --episodes 200 --out data/pusht``.

Episode ``i`` depends on ``seed + i`` alone, so the number of workers, an interruption or a later enlargement change
nothing. The folder holds ``meta.json`` and one ``episode_000123.npz`` per episode (see ``Episode``).
"""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import signal
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from tqdm.auto import tqdm

from uva_lightning.whole_files import remove_parts, whole

FORMAT = "uva_lightning demos 1"
META = "meta.json"
RETRY_STRIDE = 1_000_000
"""Added to the seed of an episode when the expert did not solve it; keeps clear of all evaluation seeds."""
MAX_TRIES = 20
MIN_STEPS = 32
"""Shorter episodes are dropped: they do not hold one window of 16 past and 16 future steps."""
BYTES_PER_EPISODE = 70_000
"""Rough size of an episode on disk, for the message about a full disk."""


@runtime_checkable
class Demonstrable(Protocol):
    """An environment with a scripted expert; ``recorded`` and ``recorded_once`` name what is kept of its ``info``."""

    recorded: ClassVar[tuple[str, ...]]
    recorded_once: ClassVar[tuple[str, ...]]

    def demonstrate(self, candidates: int, seed: int) -> Iterator[tuple[float, float]]:
        """Yield targets of the agent without end; the caller steps by each and stops when content."""
        ...

    def render(self) -> NDArray[np.uint8]:
        """Draw the scene."""
        ...


@dataclass(frozen=True)
class Recipe:
    """What an episode follows from, as stored in ``meta.json``.

    Args:
        env: Environment: ``pusht``, ``pusht_m`` or ``block_push``.
        seed: Seed of the first episode.
        candidates: Pushes that Push-T's expert tries before each decision; that of block pushing tries none.
    """

    env: str
    seed: int
    candidates: int


@dataclass(frozen=True)
class DemoReport:
    """What ``write_demos`` did: episodes in the folder, of which new, and starts that the expert did not solve."""

    episodes: int
    new: int
    rejected: int


def write_demos(
    env: str,
    out: Path,
    episodes: int = 200,
    seed: int = 0,
    workers: int | None = None,
    candidates: int = 100,
) -> DemoReport:
    """Record episodes, on all cores; finished ones in the folder are kept.

    Args:
        env: Environment: ``pusht``, ``pusht_m`` or ``block_push``.
        out: Folder, made where absent.
        episodes: Number of episodes in the folder afterwards.
        seed: Seed of the first episode.
        workers: Processes; all cores where left out.
        candidates: Pushes that Push-T's expert tries before each decision; that of block pushing tries none.

    Returns:
        Counts of episodes; only solved ones are stored.

    Raises:
        ValueError: The folder holds demonstrations of another recipe, or a number is out of range.
        OSError: The disk is full or a worker was killed; stored episodes are whole, the same command goes on.
    """
    workers = (os.cpu_count() or 1) if workers is None else workers
    for name, value, low in (("episodes", episodes, 1), ("seed", seed, 0), ("workers", workers, 1)):
        if value < low:
            raise ValueError(f"{name} is {value}, expected at least {low}.")
    if seed + episodes > RETRY_STRIDE:
        raise ValueError(f"seed + episodes is {seed + episodes}, expected at most {RETRY_STRIDE}; lower the seed.")
    recipe = Recipe(env, seed, candidates)
    with _full_disk_explained(out, episodes):
        _prepare(out, recipe, episodes)
        missing = [number for number in range(episodes) if not episode_path(out, number).exists()]
        with tqdm(total=episodes, initial=episodes - len(missing), unit="episode", desc=f"{env} demos") as bar:
            for _ in _record_all(out, recipe, missing, min(workers, max(1, len(missing)))):
                bar.update()
    rejected = sum(_rejected(out, recipe, number) for number in range(episodes))
    tqdm.write(
        f"{episodes} episodes in {out}, {len(missing)} of them new; {rejected} starts were left out as unsolved."
    )
    return DemoReport(episodes, len(missing), rejected)


def episode_path(folder: Path, number: int) -> Path:
    """Name the file of an episode."""
    return folder / f"episode_{number:06d}.npz"


def play(recipe: Recipe, number: int) -> dict[str, NDArray[Any]]:
    """Play one episode; ``frames[i]``, ``agent[i]`` and the like precede ``action[i]``, ``reward[i]`` follows it.

    Returns:
        ``action`` f32[T, 2] and ``agent`` f32[T, 2] in px, ``reward`` f32[T], ``frames`` u8[T, 96, 96, 3], ``seed``
        i64, and what the environment records: for Push-T ``block`` f32[T, 3] and ``goal`` f32[3] (x, y in px, angle in
        rad), for block pushing ``blocks`` f32[T, 2, 3].

    Raises:
        ValueError: The environment has no expert, or the expert solved none of 20 starts.
    """
    from uva_lightning import envs

    env = envs.make(recipe.env)
    game = env.unwrapped
    if not isinstance(game, Demonstrable):
        raise ValueError(f"There is no expert for '{recipe.env}', expected an environment with 'demonstrate'.")
    for attempt in range(MAX_TRIES):
        seed = recipe.seed + number + attempt * RETRY_STRIDE
        observation, info = env.reset(seed=seed)
        rows: list[dict[str, Any]] = []
        for target in game.demonstrate(recipe.candidates, seed):
            action = np.array(target, dtype=np.float32)
            row = {"action": action, **observation, **{name: info[name] for name in game.recorded}}
            row["frames"] = game.render()
            observation, reward, solved, out_of_time, info = env.step(action)
            rows.append({**row, "reward": reward})
            if solved or out_of_time:
                break
        if solved and len(rows) >= MIN_STEPS:
            arrays = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
            floats = {name: value.astype(np.float32) for name, value in arrays.items() if name != "frames"}
            once = {name: np.array(info[name], dtype=np.float32) for name in game.recorded_once}
            return {**floats, "frames": arrays["frames"], **once, "seed": np.array(seed, dtype=np.int64)}
    raise ValueError(
        f"The expert solved none of {MAX_TRIES} starts of episode {number} with {recipe.candidates} candidates; "
        "expected one; raise candidates to 100."
    )


def _record(out: Path, recipe: Recipe, number: int) -> int:
    with whole(episode_path(out, number)) as part, part.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **play(recipe, number))
    return number


def _record_all(out: Path, recipe: Recipe, numbers: list[int], workers: int) -> Iterator[int]:
    """Yield numbers as their files are finished."""
    if workers == 1:
        for number in numbers:
            yield _record(out, recipe, number)
        return
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _ignore_interrupts)
    try:
        tasks: list[Future[int]] = [pool.submit(_record, out, recipe, number) for number in numbers]
        for task in as_completed(tasks):
            yield task.result()
    except BrokenProcessPool as error:
        raise ChildProcessError(
            f"A worker of {workers} ended unexpectedly, expected all to stay; memory may be short: "
            "run the same command again with fewer workers, finished episodes are kept."
        ) from error
    except ValueError as error:
        raise ValueError(str(error)) from error  # said here, in the process that the user sees
    finally:
        pool.shutdown(cancel_futures=True)  # after Ctrl-C the episodes under way are finished, about a second each


def _ignore_interrupts() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides


def _prepare(out: Path, recipe: Recipe, episodes: int) -> None:
    """Make the folder and its meta.json, or compare them with what is asked for."""
    from uva_lightning import envs

    envs.make(recipe.env).close()  # fails here, before a folder is made, where the name or a package is missing
    out.mkdir(parents=True, exist_ok=True)
    remove_parts(out)
    asked: dict[str, Any] = {"format": FORMAT, **asdict(recipe)}
    meta = out / META
    if meta.exists():
        found = json.loads(meta.read_text())
        for name, value in asked.items():
            if found.get(name) != value:
                raise ValueError(
                    f"{out} holds demonstrations with {name}={found.get(name)}, asked for {name}={value}; "
                    "give another folder, or the same values to go on."
                )
        if found["episodes"] > episodes:
            raise ValueError(
                f"{out} is meant for {found['episodes']} episodes, asked for {episodes}; "
                "give another folder, or at least as many to go on."
            )
    elif any(out.iterdir()):
        raise ValueError(f"{out} is not empty and has no {META}, expected a new folder or one of this command.")
    with whole(meta) as part:
        part.write_text(json.dumps({**asked, "episodes": episodes}, indent=2) + "\n")


def _rejected(out: Path, recipe: Recipe, number: int) -> int:
    with np.load(episode_path(out, number), allow_pickle=False) as file:
        return (int(file["seed"]) - recipe.seed - number) // RETRY_STRIDE


@contextmanager
def _full_disk_explained(out: Path, episodes: int) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        need = episodes * BYTES_PER_EPISODE // 1_000_000 + 1
        done = len(list(out.glob("episode_*.npz")))
        raise OSError(
            f"The disk of {out} is full after {done} of {episodes} episodes, expected room for about {need} MB; "
            "free some and run the same command again, finished episodes are kept."
        ) from error
