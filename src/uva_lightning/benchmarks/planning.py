"""What planning is worth: the policy, the planner and its bound on the same starts (UVA section 4.5)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from uva_lightning.benchmarks.judgement import Judgement, Watched
from uva_lightning.metrics.intervals import Interval, bootstrap_mean
from uva_lightning.metrics.planning_gain import PlanningGain
from uva_lightning.policy.planner import Planner
from uva_lightning.policy.windows import WindowPolicy
from uva_lightning.rollouts import Actor, RolloutResult, run_rollouts

POLICY, TYPICAL, PLANNED, BOUND = (
    "policy alone",
    "most typical proposal",
    "planner, forward dynamics",
    "planner, simulator",
)
Results = Mapping[str, Mapping[str, RolloutResult]]
"""By way to act and by environment, all on the same seeds."""


def ways(policy: WindowPolicy, proposals: int, bound: bool, judgement: Judgement) -> dict[str, Callable[[str], Actor]]:
    """Give the ways to act that are compared, by name, each made anew for an environment.

    Args:
        policy: Trained model.
        proposals: Chunks that every planner chooses from.
        bound: Also plan with the true simulator, beside which the model imagines the same chunks.
        judgement: Takes how that compares.
    """
    from uva_lightning.envs import goal_score

    made: dict[str, Callable[[str], Actor]] = {
        POLICY: lambda env: policy,
        TYPICAL: lambda env: Planner(policy, proposals=proposals, margin=math.inf),
        PLANNED: lambda env: Planner(policy, proposals=proposals),
    }
    if bound:
        made[BOUND] = lambda env: Planner(policy, proposals=proposals, imagination=Watched(goal_score(env), judgement))
    return made


def compare(
    policy: WindowPolicy,
    envs: Sequence[str],
    seeds: Sequence[int],
    proposals: int,
    execute: int,
    judgement: Judgement,
    bound: bool = True,
    record: int = 0,
) -> Iterator[Results]:
    """Play every environment from the same starts in every way; gives all that was played after each way.

    Args:
        policy: Trained model.
        envs: Environments with a goal that imagined frames can be judged by.
        seeds: Starts.
        proposals: Chunks that every planner chooses from.
        execute: Actions of a chunk that are run before it decides again.
        judgement: Takes how imagined and true rewards compare, where the bound is played.
        bound: Also plan with the true simulator.
        record: Episodes of each to record.
    """
    played: dict[str, Mapping[str, RolloutResult]] = {}
    for name, make in ways(policy, proposals, bound, judgement).items():
        played[name] = {env: run_rollouts(make(env), env, policy.spec, seeds, execute, record) for env in envs}
        yield dict(played)


def summary(results: Results) -> dict[str, Any]:
    """Sum up success by way: per environment, over all of them, and the gain over the policy alone.

    Intervals are 95 % Wilson per environment. Over all, a start counts as the mean of its environments, since these
    share it, and intervals are bootstraps over the starts; gains are paired, start by start, see ``PlanningGain``.
    """
    alone, bound = _by_start(results[POLICY]), _by_start(results[BOUND]) if BOUND in results else None
    return {name: _row(found, alone, bound) for name, found in results.items()}


def _row(found: Mapping[str, RolloutResult], alone: Tensor, bound: Tensor | None) -> dict[str, Any]:
    starts, gain = _by_start(found), PlanningGain()
    gain.update(alone, starts, bound)
    return {
        "envs": {env: {"success": one.success, "interval": list(one.success_interval)} for env, one in found.items()},
        "success": float(starts.mean()),
        "interval": list(bootstrap_mean(starts.numpy())),
        **gain.compute(),
        "score": float(np.mean([one.score for one in found.values()])),
    }


def _by_start(found: Mapping[str, RolloutResult]) -> Tensor:
    """Share of the environments that were solved, for every start: f64[n]."""
    solved = [[float(episode.success) for episode in one.episodes] for one in found.values()]
    return torch.tensor(solved, dtype=torch.float64).mean(dim=0)


def markdown(rows: Mapping[str, Any]) -> str:
    """Write the summary as a table."""
    envs = list(next(iter(rows.values()))["envs"])
    bound = [f"share of the gain of {BOUND}"] if BOUND in rows else []
    head = ["success", *envs, "mean", "gain over the policy", *bound]
    lines = [head, ["---"] * len(head)]
    for name, row in rows.items():
        cells = [_cell(row["envs"][env]["success"], row["envs"][env]["interval"]) for env in envs]
        gain = "" if name == POLICY else _cell(row["gain"], row["gain_interval"], "+.2f")
        share = [] if not bound else [_share(row) if name in (TYPICAL, PLANNED) else ""]
        lines.append([name, *cells, _cell(row["success"], row["interval"]), gain, *share])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _share(row: Mapping[str, Any]) -> str:
    if row["share"] is None:
        return "the bound gains nothing"
    if row["share_interval"] is None:
        return f"{row['share']:.2f} (the bound's gain is not sure)"
    return _cell(row["share"], row["share_interval"])


def _cell(value: float, interval: Sequence[float] | Interval, form: str = ".2f") -> str:
    low, high = interval
    return f"{value:{form}} ({low:{form}} to {high:{form}})"
