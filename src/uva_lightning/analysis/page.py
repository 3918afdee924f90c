"""The analysis as Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from uva_lightning.ablation.page import grid
from uva_lightning.analysis.capture import LATENT
from uva_lightning.analysis.episodes import AHEAD
from uva_lightning.analysis.latents import ALL, MEAN, TOKENS
from uva_lightning.analysis.run import LATENTS, UNTRAINED
from uva_lightning.analysis.table import Cell, Column, related
from uva_lightning.evaluation.page import NOTHING

Row = Mapping[str, Any]
STRONG = 0.7
"""Rank correlation from which on a pair of columns is listed."""


def markdown(content: Mapping[str, Any], found: Sequence[Column]) -> str:
    """Write the page.

    Args:
        content: What ``analysis.json`` holds.
        found: Its columns.
    """
    rows, machine, asked = content["rows"], content["machine"], content["asked"]
    names = [f"{row['run']} {row['step']}" for row in rows]
    parts = [
        "# Analysis: video, latent, attention and success\n",
        f"`{content['command']}`\n",
        f"{len(rows)} checkpoints in '{asked['env']}': {asked['windows']} held-out windows, {asked['probes']} episodes "
        f"to probe, {asked['episodes']} starts per scenario. {machine['processor']}, {machine['cores']} cores, GPU "
        f"{machine['gpu']}, torch {machine['torch']}, uva_lightning {machine['uva_lightning']}.\n",
        "![analysis](analysis.png)\n",
        "(Round) brackets: 95 % bootstrap interval over episodes. [Square] brackets: the same model before training.\n",
        grid(
            ["checkpoint", *(column.name for column in found)],
            [[name, *(_cell(column.cells[k]) for column in found)] for k, name in enumerate(names)],
        ),
        "\n" + "".join(f"* {column.name}: {column.meaning}\n" for column in found),
        _related(found),
        *(_probes(rows, names, pooling) for pooling in (ALL, MEAN)),
        _layers(rows),
        _attention(rows),
        _scenarios(rows, names),
    ]
    if content["left_out"]:
        parts.append("\n## Left out\n\n" + "".join(f"* {what}: {why}\n" for what, why in content["left_out"].items()))
    return "\n".join(part for part in parts if part).replace("\n\n\n", "\n\n")


def _cell(cell: Cell | None) -> str:
    if cell is None:
        return NOTHING
    bracket = "" if cell.interval is None else " ({:.3g} to {:.3g})".format(*cell.interval)
    beside = "" if cell.beside is None else f" [{cell.beside:.3g}]"
    return f"{cell.value:.3g}{bracket}{beside}"


def _related(found: Sequence[Column]) -> str:
    pairs = related(found)
    if not pairs:
        return ""
    strong = sorted((pair for pair in pairs if abs(pair[2]) >= STRONG), key=lambda pair: -abs(pair[2]))
    lines = "".join(f"* {one} and {other}: {value:+.2f} ({count})\n" for one, other, value, count in strong)
    return (
        "\n## What goes together\n\nSpearman's rank correlation over the checkpoints (their number in brackets), where "
        f"it is {STRONG} or more either way, {len(strong)} of {len(pairs)} pairs. Checkpoints of one run are not "
        "independent: everything that changes in training goes together with the step.\n\n"
        f"{lines or f'* none{chr(10)}'}"
    )


def _probes(rows: Sequence[Row], names: Sequence[str], pooling: str) -> str:
    """Show every target at Z."""
    measured = [(name, row) for name, row in zip(names, rows, strict=True) if row.get(LATENTS)]
    if not measured:
        return ""
    targets = list(measured[0][1][LATENTS]["layers"][LATENT])
    what = {ALL: "all tokens side by side", MEAN: "mean of all tokens"}[pooling]
    parts = [f"\n## Probes of Z, {what}\n"]
    for ahead in (False, True):
        shown = [target for target in targets if target.endswith(AHEAD) == ahead]
        body = []
        for name, row in measured:
            own, before = (row[part] and row[part]["layers"][LATENT] for part in (LATENTS, UNTRAINED))
            body.append([name, *(_score(own[t], pooling) + _before(before, t, pooling) for t in shown)])
        parts += [f"{'At the end of the horizon' if ahead else 'Now'}:\n", grid(["checkpoint", *shown], body)]
    return "\n".join(parts)


def _score(target: Row, pooling: str) -> str:
    found = target["pooled"][pooling]
    if found is None:
        return NOTHING
    low, high = found["interval"]
    return f"{found['value']:.2f} ({low:.2f} to {high:.2f})"


def _before(layer: Row | None, target: str, pooling: str) -> str:
    found = None if layer is None else layer[target]["pooled"][pooling]
    return "" if found is None else f" [{found['value']:.2f}]"


def _layers(rows: Sequence[Row]) -> str:
    """Show the way of the present state through the layers of each run's last checkpoint."""
    parts = []
    for run, row in _last(rows).items():
        layers = row[LATENTS]["layers"]
        shown = [target for target in layers[LATENT] if not target.endswith(AHEAD)]
        before = row[UNTRAINED]
        body = []
        for name, layer in layers.items():
            told = None if before is None or name == TOKENS else before["layers"][name]
            body += [
                [f"{name}, {pooling}", *(_score(layer[t], pooling) + _before(told, t, pooling) for t in shown)]
                for pooling in (MEAN, ALL)
            ]
        parts.append(f"\n## Layers of {run}, step {row['step']}\n\n{grid(['layer', *shown], body)}")
    return "\n".join(parts)


def _attention(rows: Sequence[Row]) -> str:
    parts = []
    for run, row in _last(rows).items():
        found = row[LATENTS]["attention"]["layers"]
        kinds = ("entropy", "same", "earlier", "later", "prefix")
        body = [
            [f"{name}, head {head + 1}", *(f"{layer[kind][head]:.3f}" for kind in kinds)]
            for name, layer in found.items()
            for head in range(len(layer["entropy"]))
        ]
        head = ["head", "entropy", "own frame slot", "earlier ones", "later ones", "prefix tokens"]
        parts.append(f"\n## Attention of {run}, step {row['step']}\n\n{grid(head, body)}")
    return "\n".join(parts)


def _scenarios(rows: Sequence[Row], names: Sequence[str]) -> str:
    played = [(name, row["success"]["scenarios"]) for name, row in zip(names, rows, strict=True) if row.get("success")]
    if not any(scenarios for _, scenarios in played):
        return ""
    shown = list(dict.fromkeys(scenario for _, scenarios in played for scenario in scenarios))
    body = [
        [name, *(_cell(_played(scenarios[one])) if one in scenarios else NOTHING for one in shown)]
        for name, scenarios in played
    ]
    return f"\n## Scores\n\n{grid(['checkpoint', *shown], body)}"


def _played(scenario: Row) -> Cell:
    low, high = scenario["score_interval"]
    return Cell(scenario["score"], (low, high))


def _last(rows: Sequence[Row]) -> dict[str, Row]:
    """Give the last probed checkpoint of each run."""
    return {row["run"]: row for row in rows if row.get(LATENTS)}
