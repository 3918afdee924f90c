"""Stages of training in one run, such as UVA's two: video first, then everything (section 3.5)."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import accumulate

from torch import Tensor

from uva_lightning.global_batch import GlobalBatch
from uva_lightning.objective import Objective
from uva_lightning.sampler import ObjectiveSampler, Plan


@dataclass(frozen=True)
class Stage:
    """Part of a curriculum.

    Args:
        shares: Relative share of each objective; those that are left out wait.
        steps: Batches of this stage; null, for the last one only, is all that are left.
    """

    shares: dict[str, float]
    steps: int | None = None


class Curriculum(ObjectiveSampler):
    """Serve objectives in shares that change from stage to stage.

    Within a stage the shares hold as they do with ``ObjectiveSampler``. A head that no objective of a stage trains
    keeps its weights there.

    Args:
        objectives: Objectives by name.
        stages: Stages by a name of your choice, in their order.
        only: Train this stage alone, as one of several runs; ``trainer.max_steps`` is then its length.
        seed: Seed of the assignment.
    """

    def __init__(
        self, objectives: Mapping[str, Objective], stages: dict[str, Stage], only: str | None = None, seed: int = 0
    ) -> None:
        if only is not None and only not in stages:
            raise ValueError(f"only is '{only}', expected one of the stages {', '.join(stages) or '(there are none)'}.")
        chosen = dict(stages) if only is None else {only: Stage(stages[only].shares)}
        self._check(objectives, chosen)
        shares = [dict.fromkeys(objectives, 0.0) | stage.shares for stage in chosen.values()]
        self._samplers = [ObjectiveSampler(objectives, part, seed + number) for number, part in enumerate(shares)]
        super().__init__(objectives, shares[0], seed)
        lengths = [stage.steps or 0 for stage in chosen.values()]
        self.starts = tuple(accumulate(lengths[:-1], initial=0))

    @property
    def trained(self) -> list[str]:
        """See the base class."""
        trained = {name for sampler in self._samplers for name in sampler.trained}
        return [name for name in self.objectives if name in trained]

    def __call__(self, step: int, present: Mapping[str, Tensor], whole: GlobalBatch | None = None) -> Plan:
        """See the base class; the stage follows from the step alone."""
        stage = bisect_right(self.starts, step) - 1
        return self._samplers[stage](step - self.starts[stage], present, whole)

    def check(self, sets: Mapping[str, Mapping[str, Tensor]]) -> bool:
        """See the base class; every stage is looked at before the first begins."""
        alike = [sampler.check(sets) for sampler in self._samplers]
        return all(alike)

    @staticmethod
    def _check(objectives: Mapping[str, Objective], stages: Mapping[str, Stage]) -> None:
        if not stages:
            raise ValueError("The curriculum has no stages, expected at least one; set model.sampler.stages.")
        for number, (name, stage) in enumerate(stages.items(), start=1):
            if unknown := set(stage.shares) - set(objectives):
                raise ValueError(
                    f"Stage '{name}' has shares of {sorted(unknown)}, but the objectives are {sorted(objectives)}; "
                    "rename or remove them."
                )
            if number < len(stages) and (stage.steps is None or stage.steps < 1):
                raise ValueError(f"Stage '{name}' has {stage.steps} steps, expected at least 1: another one follows.")
            if number == len(stages) and stage.steps is not None:
                raise ValueError(
                    f"Stage '{name}' has {stage.steps} steps, but it is the last and goes on to trainer.max_steps; "
                    "leave them out."
                )
