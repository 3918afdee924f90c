"""The facts of a data set, for people and as JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from uva_lightning.datamodules.base import RobotDataModule
from uva_lightning.datamodules.frames import ChosenFrames, Frames, JoinedFrames
from uva_lightning.datamodules.pictures import Flipped, Resized
from uva_lightning.datamodules.store import EpisodeStore
from uva_lightning.datamodules.windows import Windows

LATENT_BYTES = 256 * 32 * 2
"""A frame's latents as kl-f16 gives them at 256 px: 256 tokens, 16 means and 16 log-variances, half precision."""
ROWS = 1_000_000
"""Steps that statistics are taken of, evenly spaced where there are more."""
INSTRUCTIONS = 20
"""Instructions that are listed, the most frequent ones."""
STATISTICS = ("min", "1%", "mean", "std", "99%", "max")


def collect(data: RobotDataModule) -> dict[str, Any]:
    """Give the facts of a data set; no picture is read.

    Returns:
        Plain values that JSON can hold.
    """
    store, spec = data.store, data.spec
    rate = recorded_rate(data)
    return {
        "class": type(data).__name__,
        "path": str(data.path),
        "layout": layout(data),
        "identity": store.identity,
        "episodes": store.episodes,
        "left_out": len(data.faults.found),
        "steps": store.steps,
        "hours": store.steps / rate / 3600,
        "lengths": dict(zip(("min", "median", "max"), np.quantile(store.lengths, (0, 0.5, 1)).tolist(), strict=True)),
        "rate_hz": rate,
        "window_rate_hz": spec.rate_hz,
        "cameras": {camera: _camera(frames) for camera, frames in store.video.items()},
        "action": {"width": spec.action_dim, "meaning": spec.action_meaning, "recorded": store.action is not None},
        "numbers": {name: statistics(values) for name, values in store.numbers().items()},
        "transform": None if data.transform is None else type(data.transform).__name__,
        "instructions": dict(Counter(store.instructions or []).most_common()),
        "conventions": dict(spec.conventions),
        "split": _split(data, store),
        "latents_mib": store.steps * len(store.video) * _variants(data) * LATENT_BYTES / 2**20,
    }


def recorded_rate(data: RobotDataModule) -> float:
    """Give the rate of the recordings in Hz; the window may take only every n-th step of them."""
    return data.spec.rate_hz * data.window.every


def layout(data: RobotDataModule) -> str:
    """Say in which layout the data lie, where it is one of those that the package knows."""
    from uva_lightning.datamodules.layouts import LAYOUTS

    path = data.recordings()[0]
    known = [name for name in (data.fields or LAYOUTS) if name in LAYOUTS and LAYOUTS[name].matches(path)]
    return known[0] if known else "its own"


def innermost(frames: Frames) -> Frames:
    """Find the pictures as they are stored, below what is done to them when they are read."""
    while True:
        if isinstance(frames, JoinedFrames):
            frames = frames.parts[0]
        elif isinstance(frames, (ChosenFrames, Flipped, Resized)):
            frames = frames.source
        else:
            return frames


def statistics(values: NDArray[np.float32]) -> dict[str, list[float]]:
    """Describe each column of f32[n, w] by its smallest, mean, largest values and so on."""
    rows = values[:: -(-len(values) // ROWS)]
    low, high = np.quantile(rows, (0.01, 0.99), axis=0)
    columns = (values.min(0), low, rows.mean(0, dtype=np.float64), rows.std(0, dtype=np.float64), high, values.max(0))
    return {name: [float(number) for number in column] for name, column in zip(STATISTICS, columns, strict=True)}


def table(facts: Mapping[str, Any]) -> str:
    """Lay the facts out as text."""
    lengths, split = facts["lengths"], facts["split"]
    action = f"[{facts['action']['width']}] {facts['action']['meaning']}".rstrip()
    rows = [
        ("data set", f"{facts['class']} from {facts['path']}, layout: {facts['layout']}"),
        ("episodes", f"{facts['episodes']}{_left_out(facts)}; {facts['steps']} steps, {facts['hours']:.2f} hours"),
        ("lengths", f"{lengths['min']:g} to {lengths['max']:g} steps, median {lengths['median']:g}"),
        ("rate", f"{facts['rate_hz']:g} Hz{_every(facts)}"),
        *((f"camera {name}", _camera_words(camera)) for name, camera in facts["cameras"].items()),
        ("action", action if facts["action"]["recorded"] else f"{action}, but none is recorded"),
        *((f"({what})", value) for what, value in facts["conventions"].items()),
        ("split", f"{split['train_episodes']} episodes train, {split['val_episodes']} validate (seed {split['seed']})"),
        ("windows", split["windows"]),
        ("latents", f"{facts['latents_mib']:.0f} MiB in memory, at 16 KiB a frame (kl-f16 at 256 px)"),
        *_instructions(facts["instructions"]),
        *(
            [("numbers", "as recorded; a window's are made of them by " + facts["transform"])]
            if facts["transform"]
            else []
        ),
    ]
    width = max(len(name) for name, _ in rows) + 2
    return "".join(f"{name:<{width}}{words}\n" for name, words in rows) + _numbers(facts["numbers"])


def _variants(data: RobotDataModule) -> int:
    """Count what is encoded of each frame: as recorded, mirrored, and under each draw of augmentation."""
    return (1 if data.symmetry is None else 2) * (1 + data.encoding.variants)


def _camera(frames: Frames) -> dict[str, Any]:
    source = innermost(frames)
    lazy = not isinstance(source, np.ndarray)
    return {
        "stored": list(source.shape[1:3]),
        "delivered": list(frames.shape[1:3]),
        "lazy": lazy,
        "mib_in_memory": 0.0 if lazy else float(np.prod(frames.shape)) / 2**20,
    }


def _split(data: RobotDataModule, store: EpisodeStore) -> dict[str, Any]:
    try:
        held_out = data.val_episodes()
    except ValueError as error:
        return {"train_episodes": store.episodes, "val_episodes": 0, "seed": data.seed, "windows": f"none: {error}"}
    training = sorted(set(range(store.episodes)) - set(held_out))
    try:
        train, val = (len(Windows(store.ends, data.window, part)) for part in (training, held_out))
        mirrored = "" if data.symmetry is None else ", and as many mirrored"
        windows = f"{train} of {data.window.length} steps train{mirrored}, {val} validate"
    except ValueError as error:
        windows = f"none: {error}"
    return {"train_episodes": len(training), "val_episodes": len(held_out), "seed": data.seed, "windows": windows}


def _left_out(facts: Mapping[str, Any]) -> str:
    return f" ({facts['left_out']} broken ones left out)" if facts["left_out"] else ""


def _every(facts: Mapping[str, Any]) -> str:
    same = facts["rate_hz"] == facts["window_rate_hz"]
    return "" if same else f", windows at {facts['window_rate_hz']:g} Hz"


def _camera_words(camera: Mapping[str, Any]) -> str:
    height, width = camera["stored"]
    side, _ = camera["delivered"]
    kept = "read when asked for" if camera["lazy"] else f"{camera['mib_in_memory']:.0f} MiB in memory"
    return f"{height} x {width} px stored, {side} x {side} px delivered; {kept}"


def _instructions(counts: Mapping[str, int]) -> list[tuple[str, str]]:
    if not counts:
        return [("instructions", "none")]
    rows = [(f"instruction x {count}", sentence) for sentence, count in list(counts.items())[:INSTRUCTIONS]]
    more = len(counts) - len(rows)
    return rows + ([("instructions", f"and {more} more")] if more else [])


def _numbers(numbers: Mapping[str, Mapping[str, list[float]]]) -> str:
    names = [f"{name}[{column}]" for name, columns in numbers.items() for column in range(len(columns["min"]))]
    width = max(map(len, names), default=0) + 2
    head = f"\n{'':<{width}}" + "".join(f"{statistic:>11}" for statistic in STATISTICS) + "\n"
    rows = [values for columns in numbers.values() for values in zip(*columns.values(), strict=True)]
    body = (
        f"{name:<{width}}" + "".join(f"{value:>11.4g}" for value in values) + "\n"
        for name, values in zip(names, rows, strict=True)
    )
    return head + "".join(body)
