"""The report of an evaluation as Markdown."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from uva_lightning.ablation.page import grid
from uva_lightning.evaluation.held_out import section

NOTHING = "–"


def markdown(content: Mapping[str, Any]) -> str:
    """Write the page.

    Args:
        content: What ``results.json`` holds.
    """
    scenarios, machine = content["scenarios"], content["machine"]
    names = list(content["contenders"])
    counts = sorted({row["n"] for one in scenarios.values() for row in one["results"].values()})
    kept = f", {content['kept']} of them by an earlier call" if content["kept"] else ""
    each = f" ({' or '.join(map(str, counts))} of each scenario{kept})" if counts else ""
    parts = [
        f"# Evaluation: {content['suite']}\n",
        f"`{content['command']}`\n",
        f"{content['played'] + content['kept']} episodes{each} in {content['seconds'] / 60:.1f} min; "
        f"{content['crashes']} workers had to be replaced. {machine['processor']}, {machine['cores']} cores, "
        f"GPU {machine['gpu']}, torch {machine['torch']}, uva_lightning {machine['uva_lightning']}.\n",
        "Brackets: 95 % intervals, bootstrap for scores and differences, Wilson for shares.\n",
    ]
    if scenarios:
        parts += [
            f"## Before: are simulator and data alike?\n\n{_replay(content['replay'])}\n",
            "## Score\n\nMean of the maximum reward of an episode. ![scores](scores.png)\n",
            _table(scenarios, names, lambda row: _with(row["score"], row["score_interval"])),
            "\n## Share of solved episodes\n",
            _table(scenarios, names, lambda row: _with(row["success"], row["success_interval"])),
        ]
    for group, rows in content["groups"].items():
        cells = [
            [name, str(row["scenarios"]), _with(row["score"], row["score_interval"])] for name, row in rows.items()
        ]
        parts += (
            [f"\n## {group}\n\nMean over its scenarios.\n", grid(["", "scenarios", "score"], cells)] if rows else []
        )
    if any(row["jerk"] is not None for one in scenarios.values() for row in one["results"].values()):
        parts += ["\n## Jerk\n\nOf the positions that were run, in their unit per s³; an expert's is not known.\n"]
        parts += [_table(scenarios, names, _jerk)]
    changed = {name: one for name, one in scenarios.items() if one["against"]}
    if changed:
        parts += ["\n## Change\n\nFrom the same starts without perturbation or latency, seed by seed.\n"]
        parts += [_table(changed, names, lambda row: _change(row.get("change")))]
    if scenarios and len(names) > 1:
        parts += [f"\n## Difference to {content['compared_with']}\n\nFrom the same starts, seed by seed.\n"]
        parts += [_table(scenarios, names[1:], lambda row: _change(row.get("difference")))]
    parts += [_latencies(scenarios, names), *_families(scenarios)]
    parts += [section(content["held_out"])]
    parts += [_published(scenarios), _protocols(scenarios), _who(content["contenders"]), _films(scenarios)]
    parts += [_list("Left out", [f"{x['scenario']}, {x['contender']}: {x['why']}" for x in content["left_out"]])]
    parts += [_list("Missing", [f"{name}: {why}" for name, why in content["missing"].items()])]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(part for part in parts if part))


def _table(scenarios: Mapping[str, Any], names: Sequence[str], cell: Any) -> str:
    rows = [
        [name, *(cell(one["results"][name]) if name in one["results"] else NOTHING for one in scenarios.values())]
        for name in names
    ]
    return grid(["", *scenarios], rows)


def _families(scenarios: Mapping[str, Any]) -> list[str]:
    """Count the trainings of a family together."""
    names = list(dict.fromkeys(name for one in scenarios.values() for name in one["families"]))
    if not names:
        return []

    def table(rows: Sequence[str], cell: Callable[[Any], str]) -> str:
        shown = {name: {"results": one["families"]} for name, one in scenarios.items()}
        return _table(shown, rows, cell)

    every = [row for one in scenarios.values() for row in one["families"].values()]
    trainings = ", ".join(dict.fromkeys(training for row in every for training in row["trainings"]))
    parts = [
        f"\n## Over trainings\n\nMean over the trainings {trainings}; 95 % interval over them (Student's t).\n",
        table(names, lambda row: _over(row["score"], row["interval"], ".3f")),
    ]
    if names[1:]:
        parts += [f"\nDifference to {names[0]}, training by training; 95 % interval over trainings (Student's t).\n"]
        parts += [table(names[1:], lambda row: _differs(row, "interval"))]
        parts += ["\nThe same difference; 95 % interval over starts, for these trainings (bootstrap).\n"]
        parts += [table(names[1:], lambda row: _differs(row, "interval_of_starts"))]
    return parts


def _differs(row: Mapping[str, Any], interval: str) -> str:
    found = row.get("difference")
    return NOTHING if found is None else _over(found["mean"], found[interval], "+.3f")


def _over(value: float, interval: Sequence[float] | None, form: str) -> str:
    return f"{value:{form}}" + ("" if interval is None else f" ({interval[0]:{form}} to {interval[1]:{form}})")


def _with(value: float, interval: Sequence[float]) -> str:
    return f"{value:.3f} ({interval[0]:.3f} to {interval[1]:.3f})"


def _jerk(row: Mapping[str, Any]) -> str:
    if row["jerk"] is None:
        return NOTHING
    low, high = row["jerk_interval"]
    return f"{row['jerk']:.4g} ({low:.4g} to {high:.4g})"


def _change(found: Mapping[str, Any] | None) -> str:
    if found is None or found["mean"] is None:
        return NOTHING
    return f"{found['mean']:+.3f} ({found['interval'][0]:+.3f} to {found['interval'][1]:+.3f})"


def _replay(replay: Mapping[str, Any]) -> str:
    if "skipped" in replay:
        return f"Not checked: {replay['skipped']}"
    own = "" if replay["own_score"] is None else f", recorded with {replay['own_score']:.3f}"
    return (
        f"{replay['n']} demonstrations of {replay['data']}, replayed in {replay['env']} through the same normaliser, "
        f"reach {_with(replay['score'], replay['score_interval'])}{own}."
    )


def _published(scenarios: Mapping[str, Any]) -> str:
    methods = list(dict.fromkeys(method for one in scenarios.values() for method in one["paper"]))
    if not methods:
        return ""
    shown = {name: one for name, one in scenarios.items() if one["paper"]}
    rows = [
        [method, *(f"{one['paper'][method]:.2f}" if method in one["paper"] else NOTHING for one in shown.values())]
        for method in methods
    ]
    return f"\n## Published scores\n\nOther models and training; for orientation.\n\n{grid(['', *shown], rows)}"


def _protocols(scenarios: Mapping[str, Any]) -> str:
    names: dict[str, list[str]] = {}
    for name, one in scenarios.items():
        names.setdefault(one["protocol"], []).append(name)
    return _list("Protocol", [f"{'; '.join(found)}: {text}" for text, found in names.items() if text])


def _latencies(scenarios: Mapping[str, Any], names: Sequence[str]) -> str:
    """Lay scenarios that differ in latency below one another."""
    if not any(one["latency"] for one in scenarios.values()):
        return ""
    rows = [
        [
            name,
            one["env"],
            f"{one['latency']}{', continued' if one['continued'] else ''}",
            _with(row["score"], row["score_interval"]),
            _with(row["success"], row["success_interval"]),
            _jerk(row),
        ]
        for name in names
        for one in scenarios.values()
        if (row := one["results"].get(name)) is not None
    ]
    return "\n## By control steps that a decision takes\n\n" + grid(
        ["", "environment", "latency", "score", "solved", "jerk"], rows
    )


def _who(contenders: Mapping[str, Any]) -> str:
    lines = []
    for name, facts in contenders.items():
        told = facts["place"] or facts["what"]
        sha = f", sha256 {facts['sha256'][:16]}" if "sha256" in facts else ""
        sha += f", as {_actor(facts['actor'])}" if "actor" in facts else ""
        contract = facts.get("contract")
        sees = (
            f"; sees {contract['frames']} frames of {', '.join(contract['cameras'])} at {contract['image_size']} px, "
            f"chunks of {contract['horizon']} at {contract['rate_hz']:g} Hz ({contract['action_meaning']})"
            if contract
            else ""
        )
        lines.append(f"{name}: {facts['kind']}, {told}{sha}{sees}; runs {facts['execute']} actions of each chunk")
    return _list("Who played", lines)


def _actor(entry: Mapping[str, Any]) -> str:
    """Write a class with those of its options that are not left open."""
    given = {name: value for name, value in (entry.get("init_args") or {}).items() if value is not None}
    shown = {k: _actor(v) if isinstance(v, Mapping) and "class_path" in v else v for k, v in given.items()}
    return f"{entry['class_path'].rpartition('.')[2]}({', '.join(f'{k}={v}' for k, v in shown.items())})"


def _films(scenarios: Mapping[str, Any]) -> str:
    lines = []
    for name, one in scenarios.items():
        for who, row in one["results"].items():
            links = ", ".join(f"[{path.rpartition('_')[2].removesuffix('.mp4')}]({path})" for path in row["films"])
            lines += [f"{name}, {who}: {links}"] if links else []
    return _list("Films, by seed", lines)


def _list(title: str, lines: Sequence[str]) -> str:
    return f"\n## {title}\n\n" + "".join(f"* {line}\n" for line in lines) if lines else ""
