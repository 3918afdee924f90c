"""Learned variances."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from uva_lightning.balance import Balancer, Key, Terms
from uva_lightning.objective import Objective
from uva_lightning.sampler import Plan


class UncertaintyWeighting(Balancer):
    """Learn how noisy each term is, and weigh it by that (Kendall, Gal and Cipolla 2018, section 3.2).

    Each term has a log-variance ``s``, a parameter trained with the model: the loss is the sum of share times weight
    times ``exp(-s) * L + s``. That is twice the paper's ``L / (2 sigma^2) + log sigma`` with ``s = log sigma^2``, so
    that all factors are 1 at first, where ``s = 0``. It comes to rest at ``exp(s) = L``, whatever share and weight.

    The log-variances move no faster than the optimizer's learning rate per step; between losses of different orders of
    magnitude ``LossScale`` is quicker. They are of one dimension, so weight decay leaves them alone.

    Args:
        own_terms: Names of the terms that an objective adds by its ``loss_terms``, by the objective's name.
    """

    def __init__(self, own_terms: dict[str, list[str]] | None = None) -> None:
        super().__init__()
        self.own_terms: Mapping[str, Sequence[str]] = own_terms or {}
        self.log_variances = nn.Parameter(torch.zeros(0))
        self._places: dict[Key, int] = {}

    def bind(self, objectives: Mapping[str, Objective]) -> None:
        """See the base class.

        Raises:
            ValueError: ``own_terms`` names an objective that there is not.
        """
        if unknown := set(self.own_terms) - set(objectives):
            raise ValueError(
                f"own_terms of UncertaintyWeighting names {sorted(unknown)}, but the objectives are "
                f"{sorted(objectives)}; rename or remove."
            )
        keys = [(name, m) for name, o in objectives.items() for m in (*o.predicts, *self.own_terms.get(name, ()))]
        self._places = {key: place for place, key in enumerate(sorted(set(keys)))}
        self.log_variances = nn.Parameter(torch.zeros(len(self._places)))

    def forward(self, plan: Plan, terms: Terms, latent: Tensor) -> Tensor:
        """See the base class; the log-variances are in the sum, too."""
        total = super().forward(plan, terms, latent)
        for key in terms:
            amount = plan.share[key[0]] * plan.objectives[key[0]].weight
            total = total + amount * self.log_variances[self._places[key]]
        return total

    def factors(self, plan: Plan, terms: Terms, latent: Tensor) -> Mapping[Key, Tensor | float]:
        """See the base class.

        Raises:
            ValueError: A term has no log-variance.
        """
        if unknown := [key for key in terms if key not in self._places]:
            objective, term = unknown[0]
            raise ValueError(
                f"UncertaintyWeighting has no variance for the term '{term}' of objective '{objective}'; name it: "
                f"model.balancer.init_args.own_terms={{{objective}: [{term}]}}."
            )
        values = (-self.log_variances.float()).exp()
        return {key: values[self._places[key]] for key in terms}
