"""How the losses of several objectives become one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from uva_lightning.sampler import Plan

Terms = dict[tuple[str, str], Tensor]
"""Mean loss of each (objective, term), a scalar."""


def split_terms(plan: Plan, losses: Mapping[str, Tensor]) -> Terms:
    """Split the per-sample losses of the heads by objective.

    Args:
        plan: Who serves what.
        losses: f32[rows of the head] per modality.
    """
    terms: Terms = {}
    for modality, rows in plan.predicts.items():
        owners = torch.full((len(plan.order),), -1)
        for k, (name, part) in enumerate(plan.served.items()):
            if modality in plan.objectives[name].predicts:
                owners[part] = k
        owners = owners[rows]
        for k, name in enumerate(plan.served):
            mine = (owners == k).to(losses[modality].device)
            if modality in plan.objectives[name].predicts:
                terms[name, modality] = losses[modality][mine].mean()
    return terms


class Balancer(nn.Module, ABC):
    """Weigh the terms of one step."""

    def forward(self, plan: Plan, terms: Terms) -> Tensor:
        """Sum the terms, each by its objective's share of the batch, its weight and the balancer's factor."""
        total = torch.zeros((), device=next(iter(terms.values())).device)
        factors = self.factors(terms)
        for (name, term), loss in terms.items():
            part = plan.served[name]
            share = (part.stop - part.start) / len(plan.order)
            total = total + share * plan.objectives[name].weight * factors[name, term] * loss
        return total

    @abstractmethod
    def factors(self, terms: Terms) -> Mapping[tuple[str, str], Tensor | float]:
        """Give the factor on each term."""


class FixedWeights(Balancer):
    """The objectives' own weights, nothing else: hard to beat when they are right (Kurin 2022; Xin 2022).

    Args:
        terms: Factor per head, e.g. ``{video: 0.5}``; 1 for those not named.
    """

    def __init__(self, terms: dict[str, float] | None = None) -> None:
        super().__init__()
        self.terms = terms or {}

    def factors(self, terms: Terms) -> Mapping[tuple[str, str], Tensor | float]:
        """See the base class."""
        return {key: self.terms.get(key[1], 1.0) for key in terms}


class LossScale(Balancer):
    """Divide each term by its running mean, so that all count alike whatever their units.

    Args:
        decay: Of the running mean, in [0, 1).
    """

    def __init__(self, decay: float = 0.99) -> None:
        super().__init__()
        if not 0 <= decay < 1:
            raise ValueError(f"decay is {decay}, expected a number in [0, 1); 0.99 averages about 100 steps.")
        self.decay = decay
        self._scales: dict[tuple[str, str], float] = {}

    def factors(self, terms: Terms) -> Mapping[tuple[str, str], Tensor | float]:
        """See the base class; the first value of a term is its first scale. Validation moves no scale."""
        values = {key: float(loss.detach()) for key, loss in terms.items()}
        scales = {key: self._scales.get(key, value) for key, value in values.items()}
        if self.training:
            scales = {key: self.decay * scales[key] + (1 - self.decay) * value for key, value in values.items()}
            self._scales |= scales
        return {key: 1.0 / max(scale, torch.finfo(torch.float32).tiny) for key, scale in scales.items()}

    def get_extra_state(self) -> dict[str, float]:
        """Give the running means for the checkpoint."""
        return {"\t".join(key): value for key, value in self._scales.items()}

    def set_extra_state(self, state: dict[str, float]) -> None:
        """Take the running means from a checkpoint."""
        self._scales = {(key.split("\t")[0], key.split("\t")[1]): value for key, value in state.items()}
