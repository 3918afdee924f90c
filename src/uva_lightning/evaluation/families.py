"""Trainings that belong together, such as one per seed, counted as one method beyond the luck of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from uva_lightning.evaluation.contenders import Contender
from uva_lightning.metrics.intervals import Interval, bootstrap_mean, student_mean
from uva_lightning.rollouts import RolloutResult

METHOD = (
    "families: mean over trainings of the mean of the maximum reward, with its 95 % Student interval; differences: "
    "paired by training with their 95 % Student interval, and by start with their 95 % bootstrap interval"
)


def families(contenders: Sequence[Contender], results: Mapping[str, RolloutResult]) -> dict[str, Any]:
    """Sum up one scenario by family.

    Args:
        contenders: All; those without a family are left aside.
        results: By contender.

    Returns:
        By family: its trainings with their scores, mean and interval; and how it differs from the first family, over
        the trainings that both have. One interval is about other trainings from the same starts, the other about other
        starts with the same trainings.
    """
    found: dict[str, dict[str, RolloutResult]] = {}
    for contender in contenders:
        if contender.family and contender.name in results:
            found.setdefault(contender.family, {})[contender.training] = results[contender.name]
    rows = {}
    for name, members in found.items():
        scores = [result.score for result in members.values()]
        rows[name] = {
            "trainings": list(members),
            "scores": scores,
            "score": float(np.mean(scores)),
            "interval": _listed(student_mean(scores)),
            "success": float(np.mean([result.success for result in members.values()])),
        }
        first = next(iter(found.values()))
        if shared := [training for training in members if members is not first and training in first]:
            rows[name]["difference"] = _difference(
                [members[training] for training in shared], [first[training] for training in shared]
            )
    return rows


def _difference(ours: Sequence[RolloutResult], theirs: Sequence[RolloutResult]) -> dict[str, Any]:
    """Pair trainings and starts; all have played the same starts."""
    gains = np.array([_scores(one) for one in ours]) - np.array([_scores(one) for one in theirs])  # [training, start]
    each = gains.mean(axis=1)
    return {
        "n": len(each),
        "mean": float(gains.mean()),
        "by_training": each.tolist(),
        "interval": _listed(student_mean(each)),
        "starts": gains.shape[1],
        "interval_of_starts": _listed(bootstrap_mean(gains.mean(axis=0))),
    }


def _scores(result: RolloutResult) -> list[float]:
    return [episode.score for episode in result.episodes]


def _listed(interval: Interval | None) -> list[float] | None:
    return None if interval is None else list(interval)
