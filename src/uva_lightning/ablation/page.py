"""The table as Markdown, which can be read in a terminal, too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from uva_lightning.ablation.table import FUNCTION, LOSS, OVERALL, SUMMARY, Cell, Column
from uva_lightning.metrics.comparison import HIGHER
from uva_lightning.metrics.intervals import Interval

BETTER, WORSE = "▲", "▼"
_MARKS = {1: f" {BETTER}", 0: "", -1: f" {WORSE}"}


def markdown(content: Mapping[str, Any], found: Sequence[Column]) -> str:
    """Write the page.

    Args:
        content: What ``ablation.json`` holds.
        found: All measures.
    """
    seeds, machine = content["seeds"], content["machine"]
    overall = next(column for column in found if column.name == OVERALL)
    order = [(rank, name) for rank, group in enumerate(overall.ranks, start=1) for name in group]
    parts = [
        f"# Ablation of {content['experiment']}\n",
        f"`{content['command']}`\n",
        f"{len(order)} variants, {len(seeds)} seeds ({', '.join(map(str, seeds))}), {content['steps']} steps each; "
        f"{content['windows']} held-out windows, {content['starts']} starts. {machine['processor']}, "
        f"{machine['cores']} cores, torch {machine['torch']}, uva_lightning {machine['uva_lightning']}.\n",
        "Brackets: 95 % interval of the mean over the seeds (Student's t). "
        f"{BETTER} better, {WORSE} worse than `all` with the same seeds, where the interval of the paired differences "
        "leaves 0 out. Variants share a rank where these intervals overlap with that of the best one of the rank.\n",
    ]
    if len(seeds) == 1:
        parts.append("With a single seed there are no intervals, and all variants share one rank.\n")
    parts.append("## Ranking\n\nMean change of the held-out losses against `all`, lower is better.\n")
    summaries = [column for column in found if column.kind == SUMMARY]
    head = ["rank", "variant", "all objectives, %", "objectives it trains, %"]
    rows = [[str(rank), name, *(_cell(c.cells[name], "{:+.2f}") for c in summaries)] for rank, name in order]
    parts.append(grid(head, rows))
    for kind, title in ((LOSS, "Held-out losses, lower is better"), (FUNCTION, "Functions")):
        chosen = [column for column in found if column.kind == kind]
        if chosen:
            head = ["variant", *(column.name for column in chosen)]
            rows = [[name, *(_cell(c.cells[name], "{:#.4g}") for c in chosen)] for _, name in order]
            parts.append(f"\n## {title}\n\n{grid(head, rows)}")
        if kind == FUNCTION and chosen:
            parts.append("\n" + "".join(f"* {c.name}: {c.measure}, {_better(c)} is better\n" for c in chosen))
    if content["left_out"]:
        reasons = "".join(f"* {name}: {why}\n" for name, why in content["left_out"].items())
        parts.append(f"\n## Left out\n\n{reasons}")
    return "\n".join(parts)


def grid(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Write a Markdown table whose columns are aligned."""
    widths = [max(len(row[k]) for row in (head, *rows)) for k in range(len(head))]

    def line(row: Sequence[str]) -> str:
        return "| " + " | ".join(f"{text:<{width}}" for text, width in zip(row, widths, strict=True)) + " |\n"

    return line(head) + line(["-" * width for width in widths]) + "".join(line(row) for row in rows)


def _cell(cell: Cell, form: str) -> str:
    return form.format(cell.mean) + _bracket(cell.interval, form) + _MARKS[cell.verdict]


def _bracket(interval: Interval | None, form: str) -> str:
    return "" if interval is None else f" ({form.format(interval.low)} to {form.format(interval.high)})"


def _better(column: Column) -> str:
    return "higher" if column.sign == HIGHER else "lower"
