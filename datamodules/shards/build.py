"""Write a folder of shards with several processes; after a kill the same call goes on, and the result is the same."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import threading
import warnings
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor
from tqdm.auto import tqdm

from uva_lightning.datamodules.faults import Broken, Faults
from uva_lightning.datamodules.shards.files import LOCK, amount, digest, only_writer, written
from uva_lightning.datamodules.shards.index import INDEX, NUMBERS, PLAN, Episode, Index, Origin, Shard
from uva_lightning.datamodules.shards.writer import (
    Sampler,
    Tick,
    shard_json,
    shard_name,
    whole_episodes,
    write_shard,
)
from uva_lightning.datamodules.store import EpisodeStore
from uva_lightning.whole_files import remove_parts

OVERHEAD = 2048
"""Bytes that a tar needs for an episode besides its numbers, at most per file of it."""


@dataclass
class Job:
    """What is to be written.

    Args:
        out: Folder of the shards.
        origin: What they follow from.
        sampler: Makes what they hold.
        step_bytes: Size of a step, about.
        ticks: Frames worked on for each step.
        unit: What the progress bar calls it.
        extra: Further files beside the shards: tensors by name.
        faults: Takes episodes that cannot be read.
    """

    out: Path
    origin: Origin
    sampler: Sampler
    step_bytes: int
    ticks: int
    unit: str
    extra: Mapping[str, Mapping[str, Tensor]]
    faults: Faults


def build(job: Job, store: EpisodeStore, devices: Sequence[str]) -> Index:
    """Write all shards that are missing, then the index.

    Args:
        job: What is to be written.
        store: The episodes.
        devices: Where each process works.

    Raises:
        ValueError: The folder belongs to other data or has another writer.
        OSError: There is not enough room.
        Broken: An episode cannot be read, and the user did not say to skip it.
    """
    with only_writer(job.out):
        if (job.out / INDEX).is_file():
            index = Index.load((job.out / INDEX).read_text(), str(job.out))
            refuse_other(index.origin, job.origin, job.out)
            _refuse_cut(index, job.out)
            _tidy(job.out)
            return index
        _begin(job)
        plan = list(spread(store.lengths.tolist(), job.step_bytes, job.origin.shard_mb))
        done = _done(job.out, len(plan))
        _check_room(job, store, plan, done)
        with tqdm(total=store.steps * job.ticks, unit=job.unit, desc=job.out.name, mininterval=1) as bar:
            bar.update(sum(episode.length for shard in done.values() for episode in shard.episodes) * job.ticks)
            missing = {number: episodes for number, episodes in enumerate(plan) if number not in done}
            alone = len(devices) == 1 or len(missing) <= 1
            parts = _here(job, store, missing, bar.update) if alone else _apart(job, missing, devices, bar)
            for number, shard in parts:
                done[number] = shard
        job.faults.report(job.out, sum(len(shard.episodes) for shard in done.values()))
        return _finish(job, store, [done[number] for number in sorted(done)])


def spread(lengths: Sequence[int], step_bytes: int, shard_mb: float) -> Iterator[list[int]]:
    """Put whole episodes together until a shard is full; what does not fit begins the next one."""
    shard, size = list[int](), 0.0
    for episode, length in enumerate(lengths):
        own = length * step_bytes + 8 * OVERHEAD
        if shard and size + own > shard_mb * 1e6:
            yield shard
            shard, size = [], 0.0
        shard.append(episode)
        size += own
    yield shard


def _refuse_cut(index: Index, out: Path) -> None:
    """Refuse finished shards of which one was lost or cut off since.

    Raises:
        Broken: The size of a file is not that of the index.
    """
    for shard in index.shards:
        file = out / shard.name
        size = file.stat().st_size if file.is_file() else 0
        if size != shard.size:
            raise Broken(
                f"{file} has {size} bytes, expected {shard.size} as index.json says; copy it again, or delete {out} "
                "and make it anew."
            )


def refuse_other(found: Origin, wanted: Origin, out: Path) -> None:
    """Compare what shards follow from.

    Raises:
        ValueError: They differ.
    """
    old, new = json.loads(json.dumps(asdict(found))), json.loads(json.dumps(asdict(wanted)))
    if old == new:
        return
    what = next(name for name in new if old[name] != new[name])
    was, is_ = old[what], new[what]
    if isinstance(was, dict) and isinstance(is_, dict):
        key = next(key for key in {**was, **is_} if was.get(key) != is_.get(key))
        what, was, is_ = f"{what}.{key}", was.get(key), is_.get(key)
    raise ValueError(
        f"{out} holds shards with {what} = {was}, but this is {is_}: they come from another source, tokenizer or "
        "setting; name another folder, or remove this one."
    )


def _begin(job: Job) -> None:
    plan = job.out / PLAN
    remove_parts(job.out)
    if plan.is_file():
        refuse_other(Origin(**json.loads(plan.read_text())), job.origin, job.out)
        return
    if other := sorted(entry.name for entry in job.out.iterdir() if entry.name != LOCK):
        raise ValueError(f"{job.out} holds {', '.join(other[:3])}, expected an empty folder; name another one.")
    with written(plan) as part:
        part.write_text(json.dumps(asdict(job.origin), indent=1, sort_keys=True))


def _done(out: Path, shards: int) -> dict[int, Shard]:
    """Find the shards that are whole, and delete any other."""
    found: dict[int, Shard] = {}
    for number in range(shards):
        path, about = out / shard_name(number), _about(out, number)
        if about.is_file():
            shard = Shard.of(json.loads(about.read_text()))
            there = path.is_file() and path.stat().st_size == shard.size and digest(path) == shard.hash
            if there or not shard.episodes:
                found[number] = shard
                continue
        about.unlink(missing_ok=True)
        path.unlink(missing_ok=True)
    return found


def _check_room(job: Job, store: EpisodeStore, plan: Sequence[Sequence[int]], done: Mapping[int, Shard]) -> None:
    left = [episode for number, episodes in enumerate(plan) if number not in done for episode in episodes]
    needed = int(store.lengths[left].sum()) * job.step_bytes + len(left) * 8 * OVERHEAD if left else 0
    free = shutil.disk_usage(job.out).free
    told = (
        f"{len(plan)} shards, {len(done)} done; {amount(needed)} to write to {job.out}, where {amount(free)} are free"
    )
    if needed > free:
        raise OSError(f"{told}, expected room for all; free some, or name a folder on another disk.")
    tqdm.write(f"{told}.")


def _here(job: Job, store: EpisodeStore, missing: Mapping[int, list[int]], tick: Tick) -> Iterator[tuple[int, Shard]]:
    """Write shards in this process."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # sums may round differently with more, and the bytes must not depend on the processes
    try:
        for number, episodes in missing.items():
            yield number, _write(job, number, episodes, store, tick)
    finally:
        torch.set_num_threads(threads)


def _apart(job: Job, missing: Mapping[int, list[int]], devices: Sequence[str], bar: Any) -> Iterator[tuple[int, Shard]]:
    """Write shards in one process for each device, started anew: CUDA and threads do not survive a fork."""
    spawn = multiprocessing.get_context("spawn")
    counter, places = spawn.Value("q", 0), spawn.SimpleQueue()
    for device in devices:
        places.put(device)
    count = min(len(devices), len(missing))
    with ProcessPoolExecutor(count, spawn, _start, (job, places, counter)) as pool:
        waiting: dict[Future[tuple[Shard, list[str]]], int] = {
            pool.submit(_work, number, episodes): number for number, episodes in missing.items()
        }
        try:
            while waiting:
                ready, _ = wait(waiting, timeout=0.5, return_when=FIRST_COMPLETED)
                bar.update(counter.value - _seen(bar, counter.value))
                for future in ready:
                    shard, faults = future.result()
                    for fault in faults:
                        job.faults.add(Broken(fault))
                    yield waiting.pop(future), shard
        except BrokenProcessPool as error:
            raise OSError(
                f"A process that wrote shards in {job.out} was ended from outside, perhaps for want of memory; the "
                "shards that are done are kept: the same command goes on from there, with fewer --workers."
            ) from error
        finally:
            pool.shutdown(cancel_futures=True)


def _seen(bar: Any, count: int) -> int:
    """Give what the bar was last told of the counter, and remember the new count."""
    last = getattr(bar, "seen", 0)
    bar.seen = count
    return int(last)


_JOB: dict[str, Any] = {}
"""What a process of ``_apart`` works with."""


def _start(job: Job, places: Any, counter: Any) -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:  # a writer whose parent was killed must not write beside its successor
        threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    warnings.simplefilter("ignore")  # the parent has told them
    _JOB.update(job=job, device=places.get(), counter=counter)


def _end_with(parent: Any) -> None:
    parent.join()
    os._exit(1)


def _work(number: int, episodes: list[int]) -> tuple[Shard, list[str]]:
    torch.set_num_threads(1)
    job, counter = _JOB["job"], _JOB["counter"]
    if "store" not in _JOB:
        _JOB["store"] = job.sampler.open(_JOB["device"])

    def tick(count: int) -> None:
        with counter.get_lock():
            counter.value += count

    job.faults.found.clear()
    shard = _write(job, number, episodes, _JOB["store"], tick)
    return shard, [str(fault) for fault in job.faults.found]


def _write(job: Job, number: int, episodes: Sequence[int], store: EpisodeStore, tick: Tick) -> Shard:
    """Write a shard, and then beside it that it is whole."""
    kept = whole_episodes(episodes, store, job.faults)
    path = job.out / shard_name(number)
    shard = write_shard(path, kept, job.sampler, store, tick) if kept else Shard(path.name, 0, "", ())
    with written(_about(job.out, number)) as part:
        part.write_text(shard_json(shard))
    return shard


def _finish(job: Job, store: EpisodeStore, shards: Sequence[Shard]) -> Index:
    """Write what all shards share, and last the index."""
    episodes = [episode for shard in shards for episode in shard.episodes]
    files: dict[str, tuple[int, str]] = {}
    for name, tensors in {NUMBERS: _numbers(job.sampler, store, episodes), **job.extra}.items():
        path = job.out / name
        with written(path) as part:
            part.write_bytes(save({key: value.contiguous() for key, value in tensors.items()}))
        files[name] = (path.stat().st_size, digest(path))
    index = Index(job.origin, files, tuple(shard for shard in shards if shard.episodes))
    with written(job.out / INDEX) as part:
        part.write_text(index.dump())
    _tidy(job.out)
    return index


def _tidy(out: Path) -> None:
    """Delete what only served to go on after a kill; that may also come between the index and this."""
    remove_parts(out)
    for about in out.glob("shard-*.tar.json"):
        about.unlink()
    (out / PLAN).unlink(missing_ok=True)


def _numbers(sampler: Sampler, store: EpisodeStore, episodes: Sequence[Episode]) -> dict[str, Tensor]:
    """Collect the numbers of all episodes: they are read at once, also where the shards lie far away."""
    numbers = [episode.number for episode in episodes]
    kept = np.concatenate([np.arange(store.begins[number], store.ends[number]) for number in numbers])
    tensors = {f"state.{name}": torch.from_numpy(values[kept]) for name, values in store.state.items()}
    if store.action is not None:
        tensors["action"] = torch.from_numpy(store.action[kept])
    vectors = [vector for number in numbers if (vector := sampler.text(number)) is not None]
    if vectors:
        tensors["text"] = torch.from_numpy(np.stack(vectors))
    return tensors


def _about(out: Path, number: int) -> Path:
    return out / f"{shard_name(number)}.json"
