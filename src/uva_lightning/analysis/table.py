"""From what was measured to columns, one number per checkpoint, and how the columns go together."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import numpy as np
from numpy.typing import NDArray

from uva_lightning.analysis.capture import LATENT
from uva_lightning.analysis.episodes import AHEAD
from uva_lightning.analysis.latents import ALL
from uva_lightning.analysis.probe import CONTACT, POSE, VELOCITY
from uva_lightning.analysis.run import LATENTS, SUCCESS, UNTRAINED, VIDEO

Row = Mapping[str, Any]
LEAST_RELATED = 4
"""Checkpoints from which on it is said how columns go together."""


@dataclass(frozen=True)
class Cell:
    """A number of one checkpoint.

    Args:
        value: The number.
        interval: Its 95 % interval, where there is one.
        beside: The same of the model before its training, where that was measured.
    """

    value: float
    interval: tuple[float, float] | None = None
    beside: float | None = None


@dataclass(frozen=True)
class Column:
    """A measure.

    Args:
        name: Short name.
        meaning: What it is, with its unit.
        cells: One per checkpoint; None where it was not measured.
    """

    name: str
    meaning: str
    cells: tuple[Cell | None, ...]


def columns(rows: Sequence[Row]) -> list[Column]:
    """Give all columns that have a number, from cause to effect."""
    found = []
    for name, meaning, cell in _MEASURES:
        cells = tuple(cell(row) for row in rows)
        if any(one is not None for one in cells):
            found.append(Column(name, meaning, cells))
    return found


def related(found: Sequence[Column]) -> list[tuple[str, str, float, int]]:
    """Give Spearman's rank correlation of each pair of columns, over checkpoints that have both.

    Returns:
        Names, correlation and number of checkpoints; pairs of which one column never changes are left out.
    """
    pairs = []
    for number, one in enumerate(found):
        for other in found[number + 1 :]:
            both = [(a.value, b.value) for a, b in zip(one.cells, other.cells, strict=True) if a and b]
            if len(both) < LEAST_RELATED:
                continue
            ranks = np.stack([_ranks(np.array(values)) for values in zip(*both, strict=True)])
            first, second = ranks - ranks.mean(axis=1, keepdims=True)
            if scale := float(np.linalg.norm(first) * np.linalg.norm(second)):
                pairs.append((one.name, other.name, float(first @ second) / scale, len(both)))
    return pairs


def _ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rank; ties share the mean of their ranks."""
    below, same = (compared(values[:, None], values).sum(axis=0) for compared in (np.less, np.equal))
    ranks: NDArray[np.float64] = below + (same + 1) / 2
    return ranks


def grouped(part: Row | None, group: str, ending: str = "", layer: str = LATENT, pooling: str = ALL) -> float | None:
    """Give the mean of the scores of a group of targets.

    Args:
        part: ``latents`` or ``untrained`` of a row.
        group: Of targets.
        ending: ``AHEAD`` for those at the end of the horizon.
        layer: Name of the layer.
        pooling: See ``latents.probe``.
    """
    targets = {} if part is None else part["layers"][layer]
    scores = [
        one["pooled"][pooling]["value"]
        for name, one in targets.items()
        if one["group"] == group and name.endswith(AHEAD) == bool(ending) and one["pooled"][pooling]
    ]
    return fmean(scores) if scores else None


def _probe(group: str, ending: str = "") -> Callable[[Row], Cell | None]:
    def cell(row: Row) -> Cell | None:
        value, before = (grouped(row.get(part), group, ending) for part in (LATENTS, UNTRAINED))
        return None if value is None else Cell(value, None, before)

    return cell


def _attention(name: str, invert: bool = False) -> Callable[[Row], Cell | None]:
    def mean(part: Row | None) -> float | None:
        if part is None:
            return None
        value = fmean(head for layer in part["attention"]["layers"].values() for head in layer[name])
        return 1 - value if invert else value

    def cell(row: Row) -> Cell | None:
        value = mean(row.get(LATENTS))
        return None if value is None else Cell(value, None, mean(row.get(UNTRAINED)))

    return cell


def _of(part: str, *keys: str) -> Callable[[Row], Cell | None]:
    def cell(row: Row) -> Cell | None:
        found: Any = row.get(part)
        for key in keys:
            found = None if found is None else found.get(key)
        if found is None:
            return None
        if isinstance(found, Mapping):
            return Cell(found["value"], found["interval"] and tuple(found["interval"]))
        return Cell(float(found))

    return cell


def _plain(measure: str) -> Callable[[Row], Cell | None]:
    def cell(row: Row) -> Cell | None:
        scenarios = (row.get(SUCCESS) or {}).get("scenarios", {})
        plain = next((one for name, one in scenarios.items() if ":" not in name), None)
        return None if plain is None else Cell(plain[measure], tuple(plain[f"{measure}_interval"]))

    return cell


_SCORE, _SOLVED = "mean of the maximum reward", "share of solved episodes"
_MEASURES: tuple[tuple[str, str, Callable[[Row], Cell | None]], ...] = (
    (
        "video weight",
        "by which the video loss stands in the loss: share x weight x factor",
        _of("training", "video_weight"),
    ),
    ("video share", "samples whose objective predicts video", _of("training", "video_share")),
    ("video loss", "of the video head on held-out windows, no future visible", _of(VIDEO, "loss")),
    ("PSNR", "of the last frame generated, dB", _of(VIDEO, "psnr")),
    ("distance", "Frechet distance of generated clips, random features; no FVD", _of(VIDEO, "distance")),
    ("object pose", "linear probe of Z, all tokens: R2, mean of its targets", _probe(POSE)),
    ("contact", "likewise, area under the curve", _probe(CONTACT)),
    ("velocity", "likewise, R2", _probe(VELOCITY)),
    ("pose ahead", "likewise, object pose at the end of the horizon", _probe(POSE, AHEAD)),
    ("entropy", "of attention, mean of all heads; 1 is uniform", _attention("entropy")),
    ("other frames", "share of attention that leaves a token's own frame slot", _attention("same", invert=True)),
    ("score", _SCORE, _plain("score")),
    ("changed", f"{_SCORE}, mean of the visual changes", _of(SUCCESS, "changed")),
    ("change", "what the visual changes cost, start by start", _of(SUCCESS, "change")),
    ("success", _SOLVED, _plain("success")),
    ("success changed", f"{_SOLVED}, mean of the visual changes", _of(SUCCESS, "success changed")),
)
