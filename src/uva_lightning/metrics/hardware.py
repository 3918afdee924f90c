"""What episodes on an arm say about a policy. Every metric is of one process: only the first one has episodes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from uva_lightning.metrics.outcomes import SuccessRate
from uva_lightning.robot.operator import Label
from uva_lightning.robot.rollout import Ended

ABORTED = (Ended.FAULT, Ended.REJECTED)
"""Ends that nobody wanted."""
QUANTILES = (0.5, 0.95)


class EpisodeCounts(Metric):
    """How many episodes there were, of which kind, how long they took, and what was refused or clipped."""

    NAMES = ("episodes", "valid", "invalid", "aborted", "faults", "chunks", "rejected", "points", "clipped")
    duration: Tensor

    def __init__(self) -> None:
        super().__init__(sync_on_compute=False)
        for name in self.NAMES:
            self.add_state(name, torch.tensor(0), dist_reduce_fx="sum")
        self.add_state("duration", torch.tensor(0.0, dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, episode: Mapping[str, Any]) -> None:
        """Count an episode, as the evaluator describes it."""
        valid = episode["label"] != Label.INVALID
        found = {
            "episodes": 1,
            "valid": valid,
            "invalid": not valid,
            "aborted": episode["ended"] in ABORTED,
            "faults": episode["ended"] == Ended.FAULT,
            "chunks": episode["chunks"],
            "rejected": episode["rejected"],
            "points": episode["points"],
            "clipped": episode["clipped"],
        }
        for name, count in found.items():
            setattr(self, name, getattr(self, name) + int(count))
        self.duration += episode["duration"]

    def compute(self) -> dict[str, float]:
        """Give the counts, ``duration`` (mean, s), ``reject_rate`` of chunks and ``clip_rate`` of way-points."""
        counts = {name: float(getattr(self, name)) for name in self.NAMES}
        mean = float(self.duration) / max(1.0, counts["episodes"])
        rates = {
            "reject_rate": counts["rejected"] / max(1.0, counts["chunks"]),
            "clip_rate": counts["clipped"] / max(1.0, counts["points"]),
        }
        return {**counts, "duration": mean, **rates}


class Quantiles(Metric):
    """Median and 95 % quantile of numbers.

    Args:
        name: What they are.
    """

    values: list[Tensor]

    def __init__(self, name: str) -> None:
        super().__init__(sync_on_compute=False)
        self.name = name
        self.add_state("values", [], dist_reduce_fx="cat")

    def update(self, values: Sequence[float]) -> None:
        """Add numbers."""
        self.values.append(torch.tensor(list(values), dtype=torch.float64))

    def compute(self) -> dict[str, float]:
        """Give ``NAME_p50`` and ``NAME_p95``, and nothing where there are no numbers."""
        values = torch.cat(self.values) if self.values else torch.zeros(0)
        if not len(values):
            return {}
        found = torch.quantile(values, torch.tensor(QUANTILES, dtype=values.dtype))
        return {f"{self.name}_p{share * 100:.0f}": float(value) for share, value in zip(QUANTILES, found, strict=True)}


class FaultKinds(Metric):
    """How often the arm had which fault."""

    kinds: list[str]

    def __init__(self) -> None:
        super().__init__(sync_on_compute=False)
        self.kinds = []

    def update(self, episode: Mapping[str, Any]) -> None:
        """Count the fault of an episode that ended by one."""
        if episode["ended"] == Ended.FAULT:
            self.kinds.append(str(episode["reason"]).partition(":")[0])

    def compute(self) -> dict[str, float]:
        """Give ``fault/KIND`` for each kind that there was."""
        return {f"fault/{kind}": float(self.kinds.count(kind)) for kind in sorted(set(self.kinds))}

    def reset(self) -> None:
        """Forget all."""
        super().reset()
        self.kinds = []


LATENCIES = ("inference", "age", "late")


def measures(episodes: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Sum episodes of one checkpoint up, for the log: each name without its prefix."""
    rate, counts, kinds, jerk = SuccessRate(sync_on_compute=False), EpisodeCounts(), FaultKinds(), Quantiles("jerk")
    times = {name: Quantiles(f"latency_{name}") for name in LATENCIES}
    valid = [episode["label"] for episode in episodes if episode["label"] != Label.INVALID]
    rate.update(torch.tensor([label == Label.SUCCESS for label in valid], dtype=torch.bool))
    for episode in episodes:
        counts.update(episode)
        kinds.update(episode)
        jerk.update(episode["jerk"])
        for name, metric in times.items():
            metric.update(episode["latency"][name])
    found: dict[str, float] = {}
    if episodes:
        for part in (rate, counts, kinds, jerk, *times.values()):
            found |= part.compute()
    return found
