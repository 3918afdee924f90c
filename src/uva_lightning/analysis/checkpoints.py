"""Which checkpoints are compared, and how much of their training went into video."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from uva_lightning.commands.errors import UserError
from uva_lightning.commands.rollout import CHECKPOINTS, find_checkpoint
from uva_lightning.evaluation.contenders import called
from uva_lightning.model.stored import facts, read, weights_file
from uva_lightning.module import UVAModule
from uva_lightning.results import sha256
from uva_lightning.types import DataSpec

STEPS = 100
"""Batches before a checkpoint over which shares of objectives are taken: some samplers change them."""
ROWS = 64
"""Samples of such a batch."""


@dataclass(frozen=True)
class Subject:
    """A checkpoint.

    Args:
        run: Name of its run, or the one that was given.
        path: Where it lies.
        step: Optimizer steps of its training; 0 where the file does not tell.
        spec: Contract with its data.
        sha256: Of the weights.
    """

    run: str
    path: Path
    step: int
    spec: DataSpec
    sha256: str

    @property
    def name(self) -> str:
        """A row of the tables."""
        return f"{self.run} {self.step}"


def gather(runs: str, ckpts: str) -> list[Subject]:
    """Find checkpoints.

    Args:
        runs: Folders of runs, all of whose checkpoints are taken; several with commas between, each as NAME=PATH.
        ckpts: Checkpoints, likewise; the same name may stand before several.

    Returns:
        Run by run, in the order of their steps, each step once.

    Raises:
        UserError: There is nothing, or checkpoints have different contracts.
    """
    found: list[Subject] = []
    for name, path in _named(runs):
        files = sorted(path.glob(f"{CHECKPOINTS}/*.ckpt")) or sorted(path.glob("*.ckpt"))
        if not files:
            raise UserError(
                f"{path} has no checkpoints, expected the folder of a run, with {CHECKPOINTS}/*.ckpt in it; name files "
                "with --ckpts."
            )
        found += [_subject(name or path.resolve().name, file) for file in files]
    for name, path in _named(ckpts):
        find_checkpoint(path)
        found.append(_subject(name or called(str(path)), path))
    if not found:
        raise UserError("Nothing is to be analysed, expected a run: uva analyze runs/quickstart, or --ckpts FILE,FILE.")
    order = list(dict.fromkeys(one.run for one in found))
    kept: dict[tuple[str, int], Subject] = {}
    for one in sorted(found, key=lambda one: (order.index(one.run), one.step)):
        same = kept.setdefault((one.run, one.step), one)
        if same.sha256 != one.sha256 and one.path.stem != "last" and same.path.stem != "last":
            raise UserError(
                f"{same.path} and {one.path} are both step {one.step} of '{one.run}' but have other weights; give each "
                "run a name of its own: NAME=PATH."
            )
    _refuse_mixed(list(kept.values()))
    return list(kept.values())


def training(module: UVAModule, step: int) -> dict[str, Any]:
    """Tell how much of the training before ``step`` went into video.

    Returns:
        ``video_share``, the share of samples whose objective predicts video; ``video_weight``, the sum over these
        objectives of share, weight and the balancer's factor, by which the video loss stands in the loss, or None where
        the balancer changes it; and ``objectives``.
    """
    objectives = module.sampler.objectives
    needed = set().union(*(objective.eligible() for objective in objectives.values()))
    present = {name: torch.ones(ROWS, dtype=torch.bool) for name in needed}
    before = range(max(0, step - STEPS), max(1, step))
    plans = [module.sampler(number, present) for number in before]
    shares = {name: sum(plan.share[name] for plan in plans) / len(plans) for name in objectives}
    views = [name for name in module.cameras if name in module.heads]
    weight: float | None = 0.0
    for name, objective in objectives.items():
        for view in views:
            if shares[name] and view in objective.predicts and weight is not None:
                factor = module.balancer.constant(view)
                weight = None if factor is None else weight + shares[name] * objective.weight * factor
    seeing = [name for name, objective in objectives.items() if set(views) & set(objective.predicts)]
    return {
        "video_share": sum(shares[name] for name in seeing),
        "video_weight": weight,
        "objectives": {
            name: {"share": shares[name], "weight": objective.weight, "predicts": list(objective.predicts)}
            for name, objective in objectives.items()
        },
    }


def _subject(run: str, path: Path) -> Subject:
    checkpoint = read(path)
    spec = DataSpec(**facts(checkpoint["contract"]))
    return Subject(run, path.resolve(), int(checkpoint.get("global_step", 0)), spec, sha256(weights_file(path)))


def _named(given: str) -> Iterable[tuple[str, Path]]:
    for one in (part.strip() for part in given.split(",")):
        if not one:
            continue
        name, equals, value = one.partition("=")
        named = equals and "/" not in name
        yield (name, Path(value)) if named else ("", Path(one))


def _refuse_mixed(subjects: list[Subject]) -> None:
    first = subjects[0]
    mine = asdict(first.spec)
    for other in subjects[1:]:
        theirs = asdict(other.spec)
        if wrong := [name for name in mine if name != "action_meaning" and mine[name] != theirs[name]]:
            raise UserError(
                f"{first.path} was trained with {wrong[0]} = {mine[wrong[0]]}, {other.path} with {theirs[wrong[0]]}: "
                "one table compares models of the same data; analyse them apart."
            )
