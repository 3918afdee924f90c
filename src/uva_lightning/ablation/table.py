"""From the numbers of all runs to means with intervals, paired differences and ranks that ties share."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from uva_lightning.ablation.plan import ALL
from uva_lightning.metrics.comparison import HIGHER, LOWER
from uva_lightning.metrics.intervals import Interval, student_mean

Results = Mapping[str, Mapping[int, Mapping[str, Any]]]
"""Content of ``result.json`` by variant and seed."""
OVERALL, TRAINED = "all losses", "trained losses"
LOSS, FUNCTION, SUMMARY = "loss", "function", "summary"
PERCENT = 100.0


@dataclass(frozen=True)
class Cell:
    """What one variant got in one measure.

    Args:
        values: One per seed.
        gain: Mean of the paired differences to the experiment as it is, positive where the variant is better.
        interval: Of the mean of the values; none with a single seed.
        gain_interval: Of the mean of the paired differences; none with a single seed.
    """

    values: tuple[float, ...]
    gain: float
    interval: Interval | None
    gain_interval: Interval | None

    @property
    def mean(self) -> float:
        """Mean over the seeds."""
        return fmean(self.values)

    @property
    def verdict(self) -> int:
        """1 or -1 where the interval of the differences has only better or only worse ones, else 0."""
        if self.gain_interval is None:
            return 0
        return int(self.gain_interval.low > 0) - int(self.gain_interval.high < 0)


@dataclass(frozen=True)
class Column:
    """One measure.

    Args:
        name: Short name.
        kind: ``LOSS``, ``FUNCTION`` or ``SUMMARY``.
        measure: What is measured, with its unit.
        sign: ``HIGHER`` or ``LOWER`` is better.
        cells: By variant.
        ranked: Whether the variants can be compared with each other.
    """

    name: str
    kind: str
    measure: str
    sign: float
    cells: Mapping[str, Cell]
    ranked: bool = True

    @property
    def ranks(self) -> list[list[str]]:
        """Variants in groups, the best first; see ``groups``."""
        gains = {name: (cell.gain, cell.gain_interval) for name, cell in self.cells.items()}
        return groups(gains) if self.ranked else []


def groups(gains: Mapping[str, tuple[float, Interval | None]]) -> list[list[str]]:
    """Rank by mean gain; a variant shares the rank of the best of a group whose interval overlaps with its own.

    Args:
        gains: Mean and interval by variant; no interval overlaps with everything.
    """
    ranked: list[list[str]] = []
    for name in sorted(gains, key=lambda name: -gains[name][0]):
        leader = gains[ranked[-1][0]][1] if ranked else None
        if ranked and overlap(leader, gains[name][1]):
            ranked[-1].append(name)
        else:
            ranked.append([name])
    return ranked


def overlap(one: Interval | None, other: Interval | None) -> bool:
    """Tell whether two intervals have a value in common; nothing is known without one."""
    return one is None or other is None or (one.low <= other.high and other.low <= one.high)


def columns(results: Results, trained: Mapping[str, Sequence[str]]) -> list[Column]:
    """Compute every measure of every variant.

    Args:
        results: Of all variants with the same seeds; ``all`` is among them.
        trained: Objectives that each variant is trained on.

    Returns:
        The two summaries, the losses, then the functions.
    """
    some = next(iter(results[ALL].values()))
    found = _summaries(results, trained)
    for kind, key in ((LOSS, "losses"), (FUNCTION, "functions")):
        for name, one in some[key].items():
            values = {
                variant: [result[key][name]["value"] for result in by_seed.values()]
                for variant, by_seed in results.items()
            }
            found.append(Column(name, kind, one["measure"], one["sign"], cells(values, one["sign"])))
    return found


def cells(values: Mapping[str, Sequence[float]], sign: float) -> dict[str, Cell]:
    """Pair each variant with ``all``, seed by seed."""
    made = {}
    for name, own in values.items():
        gains = [sign * (value - base) for value, base in zip(own, values[ALL], strict=True)]
        made[name] = Cell(tuple(own), fmean(gains), student_mean(own), student_mean(gains))
    return made


def _summaries(results: Results, trained: Mapping[str, Sequence[str]]) -> list[Column]:
    """Sum the losses up, over all objectives and over those that a variant is trained on.

    Losses have different units, so the logarithms of their ratios to those of ``all`` with the same seed are averaged:
    over the terms of an objective, then over the objectives. A loss that is not positive everywhere has no ratio and is
    left aside.
    """
    objectives = trained[ALL]
    shares: dict[str, dict[str, list[float]]] = {}
    for variant, by_seed in results.items():
        for seed, result in by_seed.items():
            ratios = _ratios(result["losses"], results[ALL][seed]["losses"], _positive(results))
            for name in objectives:
                terms = [ratio for key, ratio in ratios.items() if key.partition("/")[0] == name]
                shares.setdefault(variant, {}).setdefault(name, []).append(fmean(terms) if terms else 0.0)

    def change(variant: str, names: Sequence[str]) -> list[float]:
        seeds = range(len(results[variant]))
        return [PERCENT * math.expm1(fmean(shares[variant][name][seed] for name in names)) for seed in seeds]

    overall = {variant: change(variant, objectives) for variant in results}
    own = {variant: change(variant, trained[variant]) for variant in results}
    meaning = "mean change of the held-out losses of {}, %"
    return [
        Column(OVERALL, SUMMARY, meaning.format("all objectives"), LOWER, cells(overall, LOWER)),
        Column(TRAINED, SUMMARY, meaning.format("the objectives trained on"), LOWER, cells(own, LOWER), ranked=False),
    ]


def _positive(results: Results) -> set[str]:
    every = [result["losses"] for by_seed in results.values() for result in by_seed.values()]
    return {key for key in every[0] if all(losses[key]["value"] > 0 for losses in every)}


def _ratios(losses: Mapping[str, Any], base: Mapping[str, Any], names: set[str]) -> dict[str, float]:
    return {key: math.log(losses[key]["value"] / base[key]["value"]) for key in losses if key in names}


def as_json(found: Sequence[Column]) -> list[dict[str, Any]]:
    """Give all columns as plain values."""
    return [
        {
            "name": column.name,
            "kind": column.kind,
            "measure": column.measure,
            "better": "higher" if column.sign == HIGHER else "lower",
            "ranks": column.ranks,
            "variants": {
                name: {
                    "mean": cell.mean,
                    "interval": cell.interval,
                    "gain": cell.gain,
                    "gain_interval": cell.gain_interval,
                    "values": cell.values,
                }
                for name, cell in column.cells.items()
            },
        }
        for column in found
    ]
