"""What ``results.json`` of an evaluation holds: every number with its episodes, seeds, interval and origin."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from uva_lightning.benchmarks.machine import machine
from uva_lightning.evaluation.contenders import Contender
from uva_lightning.evaluation.families import METHOD as OF_FAMILIES
from uva_lightning.evaluation.families import families
from uva_lightning.evaluation.run import Outcome
from uva_lightning.evaluation.suite import Scenario
from uva_lightning.metrics.intervals import bootstrap_mean
from uva_lightning.results import versions
from uva_lightning.rollouts import RolloutResult

FORMAT = "uva_lightning evaluation 1"
METHOD = (
    "score: mean of the maximum reward with its 95 % bootstrap interval; success: share of solved episodes with its "
    "95 % Wilson interval; jerk: mean length of the third difference of the positions that were run, over the period "
    "cubed, averaged over episodes, with its 95 % bootstrap interval; difference: mean over the seeds, paired, with "
    "its 95 % bootstrap interval; groups: mean over the scenarios of their scores, with the 95 % "
    "bootstrap interval over all of their episodes"
)


def content(
    scenarios: Sequence[Scenario], contenders: Sequence[Contender], outcome: Outcome, films: Mapping[str, Any]
) -> dict[str, Any]:
    """Give all that was measured.

    Args:
        scenarios: What was played.
        contenders: Who played; the first one is what the others are compared with.
        outcome: What came of it.
        films: Paths of the films by scenario and contender, relative to the folder.
    """
    first = contenders[0].name
    found: dict[str, Any] = {}
    for scenario in scenarios:
        results = outcome.results.get(scenario.name, {})
        against = outcome.results.get(scenario.against or "", {})
        rows = {}
        for name, result in results.items():
            rows[name] = {**_numbers(result), "films": films.get(scenario.name, {}).get(name, [])}
            if name in against:
                rows[name]["change"] = difference(result, against[name])
            if name != first and first in results:
                rows[name]["difference"] = difference(result, results[first])
        found[scenario.name] = {
            "env": scenario.env,
            "latency": scenario.latency,
            "continued": scenario.continued,
            "against": scenario.against,
            "protocol": scenario.protocol,
            "paper": dict(scenario.paper),
            "results": rows,
            "families": families(contenders, results),
        }
    return {
        "played": outcome.played,
        "kept": outcome.kept,
        "machine": machine(),
        "versions": versions(),
        "method": f"{METHOD}; {OF_FAMILIES}",
        "compared_with": first,
        "contenders": {one.name: {"place": one.place, "execute": one.execute, **one.facts()} for one in contenders},
        "scenarios": found,
        "groups": groups(scenarios, outcome),
        "left_out": [dict(zip(("scenario", "contender", "why"), row, strict=True)) for row in outcome.left_out],
    }


def groups(scenarios: Sequence[Scenario], outcome: Outcome) -> dict[str, dict[str, Any]]:
    """Give the mean over the scenarios of each group, by contender; of those who have played all of them."""
    found: dict[str, dict[str, Any]] = {}
    for group in dict.fromkeys(scenario.group for scenario in scenarios if scenario.group):
        members = [outcome.results.get(scenario.name, {}) for scenario in scenarios if scenario.group == group]
        found[group] = {
            name: {
                "scenarios": len(members),
                "score": sum(one[name].score for one in members) / len(members),
                "score_interval": list(bootstrap_mean([e.score for one in members for e in one[name].episodes])),
            }
            for name in members[0]
            if all(name in one for one in members)
        }
    return found


def difference(result: RolloutResult, other: RolloutResult) -> dict[str, Any]:
    """Compare scores seed by seed: positive where the first one is better."""
    theirs = {episode.seed: episode.score for episode in other.episodes}
    gains = [episode.score - theirs[episode.seed] for episode in result.episodes if episode.seed in theirs]
    if not gains:
        return {"n": 0, "mean": None, "interval": None}
    return {"n": len(gains), "mean": sum(gains) / len(gains), "interval": list(bootstrap_mean(gains))}


def _numbers(result: RolloutResult) -> dict[str, Any]:
    record = result.record()
    kept = ("score", "score_interval", "success", "success_interval", "jerk", "jerk_interval", "seeds", "episodes")
    return {"n": len(result.episodes), **{name: record[name] for name in kept}}
