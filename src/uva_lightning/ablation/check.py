"""Does a new result say the same as an earlier one?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from uva_lightning.ablation.table import OVERALL, overlap
from uva_lightning.metrics.intervals import Interval

CLEAR, SAME, TURNED, OPPOSITE, UNKNOWN = "clear", "same order", "other order", "opposite", "not measured"
"""Clear again; the means in the same order, but the intervals overlap; the means in the other order, and the intervals
overlap; clearly in the other order; a variant or a measure is missing."""
ENOUGH = 0.9
"""Share of the ranking's statements whose order must be the same."""


@dataclass(frozen=True)
class Statement:
    """One variant is better than another by some measure: their intervals do not overlap.

    Args:
        measure: Name of it.
        better: Variant.
        worse: Variant.
        verdict: How the new result looks at it.
    """

    measure: str
    better: str
    worse: str
    verdict: str

    def __str__(self) -> str:
        """Say it in words."""
        return f"{self.measure}: {self.better} better than {self.worse}"


def statements(shipped: Mapping[str, Any], new: Mapping[str, Any]) -> list[Statement]:
    """Look at every pair of variants that the earlier result tells apart.

    Args:
        shipped: Content of the earlier ``ablation.json``.
        new: Content of the new one.
    """
    later = {column["name"]: column["variants"] for column in new["measures"]}
    found = []
    for column in shipped["measures"]:
        if column["ranks"]:
            for better, worse in _apart(column["variants"]):
                verdict = _verdict(later.get(column["name"], {}), better, worse)
                found.append(Statement(column["name"], better, worse, verdict))
    return found


def reproduced(found: list[Statement]) -> bool:
    """Tell whether nothing is said to the contrary, and the ranking by all losses is in the same order.

    A tenth of the ranking's statements may turn around with overlapping intervals: one in twenty intervals does not
    hold what it should.
    """
    ranking = [one.verdict for one in found if one.measure == OVERALL]
    same = sum(verdict in (CLEAR, SAME) for verdict in ranking)
    known = sum(verdict != UNKNOWN for verdict in ranking)
    contrary = any(one.verdict == OPPOSITE for one in found)
    return not contrary and (known > 0 or not ranking) and same >= ENOUGH * known


def report(found: list[Statement], shipped: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """Sum the comparison up in a few lines."""
    lines = [
        f"note: {name} is {new[name]} now, it was {shipped[name]}\n"
        for name in ("steps", "seeds", "windows", "starts")
        if shipped[name] != new[name]
    ]
    lines += ["note: the experiment's config differs\n"] if shipped["config"] != new["config"] else []
    for title, chosen in (
        ("ranking by all losses", [one for one in found if one.measure == OVERALL]),
        ("single measures", [one for one in found if one.measure != OVERALL]),
    ):
        counts = {
            verdict: sum(one.verdict == verdict for one in chosen)
            for verdict in (CLEAR, SAME, TURNED, OPPOSITE, UNKNOWN)
        }
        said = ", ".join(f"{count} {verdict}" for verdict, count in counts.items() if count) or "none"
        lines.append(f"{title}: {len(chosen)} statements; {said}\n")
    lines += [f"  {one.verdict}: {one}\n" for one in found if one.verdict in (TURNED, OPPOSITE)]
    lines.append("The ranking is reproduced.\n" if reproduced(found) else "The ranking is NOT reproduced.\n")
    return "".join(lines)


def _apart(variants: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Give pairs of variants whose intervals do not overlap, the better one first."""
    for pair in combinations(variants, 2):
        if not overlap(*(_interval(variants[name]) for name in pair)):
            better, worse = sorted(pair, key=lambda name: -variants[name]["gain"])
            yield better, worse


def _verdict(variants: Mapping[str, Any], better: str, worse: str) -> str:
    if better not in variants or worse not in variants:
        return UNKNOWN
    first, second = variants[better], variants[worse]
    same, together = first["gain"] > second["gain"], overlap(_interval(first), _interval(second))
    if same:
        return SAME if together else CLEAR
    return TURNED if together else OPPOSITE


def _interval(entry: Mapping[str, Any]) -> Interval | None:
    return None if entry["gain_interval"] is None else Interval(*entry["gain_interval"])
