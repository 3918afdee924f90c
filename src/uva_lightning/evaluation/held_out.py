"""Checkpoints on held-out windows of their data, without a simulator: frames, clips, actions and poses."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from uva_lightning.ablation.page import grid
from uva_lightning.commands.errors import UserError
from uva_lightning.evaluation.checkpoints import Checkpoint
from uva_lightning.evaluation.contenders import Contender
from uva_lightning.evaluation.journal import Journal, key_of
from uva_lightning.metrics.comparison import HeldOut
from uva_lightning.metrics.fvd import I3D, RandomVideoFeatures, VideoFeatures
from uva_lightning.metrics.held_out import measure
from uva_lightning.metrics.video_quality import LPIPS
from uva_lightning.model.checkpoint import load_module
from uva_lightning.results import sha256, versions

SHOWN_STEPS = (1, 2, 4, 8, 16, 32)
"""Steps of the horizon that the report shows; results.json has all."""


@dataclass(frozen=True)
class Measuring:
    """What is measured on held-out windows, by suites that do.

    Args:
        windows: Windows, evenly spaced over the held-out episodes.
        rounds: Rounds of generation; the paper has 1 and 8.
        i3d: TorchScript file of I3D, for the FVD of the literature; without it there is only the distance in random
            features.
        lpips: TorchScript file of an LPIPS network; without it there is no LPIPS.
    """

    windows: int = 256
    rounds: int = 1
    i3d: Path | None = None
    lpips: Path | None = None

    def __post_init__(self) -> None:
        for name in ("windows", "rounds"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, expected at least 1; set --play.held.{name}.")

    def features(self) -> list[VideoFeatures]:
        """Give what distances between clips are measured in.

        Raises:
            UserError: A file is not there.
        """
        try:
            if self.lpips is not None:
                LPIPS(self.lpips)  # now, not after an hour
            return [RandomVideoFeatures(), *([] if self.i3d is None else [I3D(self.i3d)])]
        except ValueError as error:
            raise UserError(str(error)) from error

    def facts(self) -> dict[str, Any]:
        """Say all that the numbers follow from."""
        files = {name: getattr(self, name) for name in ("i3d", "lpips")}
        hashes = {name: None if path is None else sha256(path) for name, path in files.items()}
        return {"windows": self.windows, "rounds": self.rounds, **hashes}


def held_out(
    contenders: Sequence[Contender],
    data: Path | None,
    set: str | None,
    measuring: Measuring,
    features: Sequence[VideoFeatures],
    journal: Journal,
) -> dict[str, Any]:
    """Measure all checkpoints; what the journal has is not measured again.

    Args:
        contenders: Checkpoints, and others that are passed over: a server has no functions but its policy.
        data: Data with held-out episodes; those of each checkpoint's training where left out.
        set: Data set of a mixture.
        measuring: What is measured.
        features: Its features.
        journal: Holds what is done, and takes what is new.

    Returns:
        By contender what ``metrics.held_out.measure`` gives, or ``skipped`` with the reason.
    """
    found = dict[str, Any]()
    for contender in contenders:
        if isinstance(contender, Checkpoint):
            try:
                windows, where = _windows(contender, data, set, measuring.windows)
            except (ValueError, OSError) as error:
                found[contender.name] = {"skipped": str(error)}
                continue
            facts = {"held_out": _hash(windows), "contender": contender.facts(), **measuring.facts()}
            key = key_of({**facts, "versions": versions()})
            if key not in journal.known:
                numbers = measure(contender.policy, windows, features, measuring.lpips, measuring.rounds)
                journal.add(key, numbers)
            found[contender.name] = {"data": where, **journal.known[key]}
    return found


def _windows(contender: Checkpoint, data: Path | None, set: str | None, count: int) -> tuple[HeldOut, str]:
    source = load_module(Path(contender.place))[1].chosen(set)
    if data is not None:
        source.move_to(data)
    if not source.path.exists():
        raise ValueError(f"There are no data at {source.path}, expected those of the training; set --data.")
    return HeldOut.from_data(source, count), str(source.path)


def _hash(windows: HeldOut) -> str:
    """Hash all that windows hold."""
    digest = hashlib.blake2b(digest_size=16)
    for entries in (*windows.observation.values(), windows.future, {"action": windows.action}):
        for name, values in entries.items():
            digest.update(f"{name}{values.dtype}{values.shape}".encode())
            digest.update(values.tobytes())
    return digest.hexdigest()


def section(found: Mapping[str, Any]) -> str:
    """Write the part of the report.

    Args:
        found: What ``held_out`` gave.
    """
    parts = ["\n## Held-out windows\n"] if found else []
    for name, row in found.items():
        if "skipped" in row:
            parts.append(f"{name}: not measured. {row['skipped']}\n")
            continue
        parts.append(
            f"{name}: {row['windows']} windows of {row['data']}, camera '{row['camera']}', {row['rounds']} rounds of "
            f"generation. Actions: {row['action_meaning'] or 'own units'}.\n"
        )
        parts += [_table(row["video"], "frame"), _table(row["actions"], "step"), _distances(row["frechet"])]
        parts += [f"* Left out, {who}: {why}" for who, why in row["left_out"].items()]
    return "\n".join(parts)


def _table(rows: Mapping[str, Any], step: str) -> str:
    measured = [(who, one) for who, measures in rows.items() for one in measures.values()]
    if not measured:
        return ""
    length = max(len(one["per_step"]) for _, one in measured)
    shown = [number for number in SHOWN_STEPS if number < length] + [length]
    lines = [
        [
            who,
            one["title"],
            f"{one['mean']:.3f} ({one['interval'][0]:.3f} to {one['interval'][1]:.3f})",
            *(f"{one['per_step'][number - 1]:.3f}" for number in shown),
        ]
        for who, one in measured
    ]
    return grid(["function", "measure", "mean", *(f"{step} {number}" for number in shown)], lines) + "\n"


def _distances(found: Mapping[str, Any]) -> str:
    lines = [
        [title, who, str(row["n"]), f"{row['distance']:.4g}"]
        for title, functions in found.items()
        for who, rows in functions.items()
        for row in rows
    ]
    return grid(["distance between clips", "function", "clips", ""], lines) + "\n" if lines else ""
