"""What planning is worth, start by start: policy, planner, and planner with the true simulator (UVA section 4.5)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from uva_lightning.metrics.intervals import bootstrap_mean, bootstrap_ratio
from uva_lightning.metrics.outcomes import joined

WAYS = ("policy", "planned", "bound")


class PlanningGain(Metric):
    """Mean gain of the planner over the policy, and the share that it is of the gain with the true simulator."""

    higher_is_better = True
    full_state_update = False

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.set_dtype(torch.float64)  # a process without starts then sends nothing of the same kind
        for way in WAYS:
            self.add_state(way, [], dist_reduce_fx="cat")

    def update(self, policy: Tensor, planned: Tensor, bound: Tensor | None = None) -> None:
        """Take starts, f[n] each: success or score of each way to act from the same starts, in the same order.

        Raises:
            ValueError: There are not as many of each.
        """
        given = {"policy": policy, "planned": planned} | ({} if bound is None else {"bound": bound})
        counts = {way: values.numel() for way, values in given.items()}
        if len(set(counts.values())) > 1:
            raise ValueError(f"The ways have {counts} starts, expected the same starts for each.")
        for way, values in given.items():
            getattr(self, way).append(values.detach().double().flatten())

    def compute(self) -> dict[str, Any]:
        """Give the gains in the unit of what was taken.

        Returns:
            ``n``; ``gain`` and ``gain_interval``, a bootstrap over the starts; and where there is a bound
            ``bound_gain``, ``bound_gain_interval``, ``share``, its part that was reached, and ``share_interval``. The
            share is None where the bound gains nothing, and its interval where it is not sure to gain something.

        Raises:
            ValueError: There are no starts, or the bound is known for a part of them.
        """
        policy, planned, bound = (joined(getattr(self, way)).cpu().numpy() for way in WAYS)
        if not len(policy) or len(bound) not in (0, len(policy)):
            raise ValueError(
                f"There are {len(policy)} starts and {len(bound)} of the bound, expected at least one, and the bound "
                "for all or none."
            )
        gain = planned - policy
        found = {"n": len(gain), "gain": float(gain.mean()), "gain_interval": list(bootstrap_mean(gain))}
        if not len(bound):
            return found
        most = bound - policy
        interval = bootstrap_ratio(gain, most)
        return {
            **found,
            "bound_gain": float(most.mean()),
            "bound_gain_interval": list(bootstrap_mean(most)),
            "share": float(gain.mean() / most.mean()) if most.mean() > 0 else None,
            "share_interval": None if interval is None else list(interval),
        }
