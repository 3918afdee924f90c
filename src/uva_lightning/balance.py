"""How the losses of several objectives become one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from uva_lightning.global_batch import GlobalBatch
from uva_lightning.model.heads.base import Errors
from uva_lightning.objective import Objective
from uva_lightning.sampler import Plan
from uva_lightning.types import Tokens, Visible

Key = tuple[str, str]
"""Name of an objective and of one of its terms: a predicted modality, or a loss of its own."""


class Term(NamedTuple):
    """One loss of one objective: the sum of its errors over all processes by the number of what was to be predicted.

    Args:
        loss: Scalar with graph; the average over processes of its gradients is the gradient of ``mean``.
        mean: Scalar without graph, the same in every process; 0 where nothing was to be predicted.
    """

    loss: Tensor
    mean: Tensor


Terms = dict[Key, Term]


class Step(NamedTuple):
    """What came of one batch.

    Args:
        plan: Who served what.
        terms: Loss of each (objective, term).
        latent: Z, [b, t, s, d], in the plan's order.
    """

    plan: Plan
    terms: Terms
    latent: Tensor


def collect_terms(
    plan: Plan, heads: Mapping[str, Errors], own: Mapping[Key, Tensor], whole: GlobalBatch | None = None
) -> Terms:
    """Take the means over the samples of all processes, which exchange sums and counts once.

    Args:
        plan: Who serves what.
        heads: Errors of the rows of each modality's head.
        own: f32[b] of objectives' own losses.
        whole: The batch of all processes; this one is alone if not given.
    """
    whole = whole or GlobalBatch(len(plan.order))
    parts: dict[Key, tuple[Tensor, Tensor]] = {}
    begin = dict.fromkeys(heads, 0)
    for name, rows in plan.served.items():
        for modality in plan.objectives[name].predicts:  # a head's rows are those of its objectives, one by one
            errors, first = heads[modality], begin[modality]
            begin[modality] = last = first + rows.stop - rows.start
            parts[name, modality] = (errors.sums[first:last].sum(), errors.counts[first:last].sum())
    for key, values in own.items():
        parts[key] = (values.sum(), values.new_full((), len(values)))
    if not parts:
        return {}
    sums, counts = (
        torch.stack([s.float() for s, _ in parts.values()]),
        torch.stack([c.float() for _, c in parts.values()]),
    )
    whole_sums, whole_counts = whole.sums(torch.cat((sums, counts))).chunk(2)
    whole_counts = whole_counts.clamp(min=1)
    losses, means = whole.world * sums / whole_counts, whole_sums / whole_counts  # DDP takes the mean of gradients
    return dict(zip(parts, map(Term, losses, means), strict=True))


def own_losses(plan: Plan, latent: Tensor, tokens: Tokens, seen: Visible) -> dict[Key, Tensor]:
    """Give the objectives' own losses, f32[b] each, also of no samples; arguments in the plan's order.

    Raises:
        ValueError: A loss is not one number per sample.
    """
    own: dict[Key, Tensor] = {}
    for name, rows in plan.served.items():
        samples = rows.stop - rows.start
        found = plan.objectives[name].loss_terms(latent[rows], tokens.rows(rows), seen.rows(rows))
        for term, values in sorted(found.items()):  # processes add them up by their place
            if values.shape != (samples,):
                raise ValueError(
                    f"Loss '{term}' of objective '{name}' has shape {list(values.shape)} for {samples} samples, "
                    f"expected [{samples}], one number per sample; return losses before their mean is taken."
                )
            own[name, term] = values
    return own


def means(plan: Plan, terms: Terms) -> dict[Key, Tensor]:
    """Give the mean of each term that has samples in some process."""
    return {key: term.mean for key, term in terms.items() if plan.share[key[0]] > 0}


class Balancer(nn.Module, ABC):
    """Weigh the terms of one step."""

    _used: Mapping[Key, Tensor] = {}  # factors that were computed, without their graph

    def bind(self, objectives: Mapping[str, Objective]) -> None:
        """Learn which objectives will be trained, by name; called once by the model, for parameters of each term."""

    def forward(self, plan: Plan, terms: Terms, latent: Tensor) -> Tensor:
        """Sum the terms, each by its objective's share of the whole batch, its weight and the balancer's factor.

        Args:
            plan: Who serves what, in this process and in all together.
            terms: Losses of this process, and their means over all of them.
            latent: Z, [b, t, s, d], of this process's rows, with graph.
        """
        total = latent.new_zeros((), dtype=torch.float32)
        factors = self.factors(plan, terms, latent)
        self._used = {key: factor.detach() for key, factor in factors.items() if isinstance(factor, Tensor)}
        for (name, term), (loss, _) in terms.items():
            total = total + plan.share[name] * plan.objectives[name].weight * factors[name, term] * loss
        return total

    def entries(self, plan: Plan, terms: Terms) -> dict[str, Tensor | float]:
        """Give for the log losses, factors of the last ``forward`` and shares, as ``<objective>/<what>``."""
        losses = {f"{name}/{term}": mean for (name, term), mean in means(plan, terms).items()}
        factors = {f"{name}/{term}_factor": factor for (name, term), factor in self._used.items()}
        return losses | factors | {f"{name}/share": share for name, share in plan.share.items()}

    def constant(self, term: str) -> float | None:
        """Give the factor on a term, where it is the same through all of training; None where it is not."""
        return None

    @abstractmethod
    def factors(self, plan: Plan, terms: Terms, latent: Tensor) -> Mapping[Key, Tensor | float]:
        """Give the factor on each term, the same in every process; arguments as ``forward``.

        A term of an objective whose ``plan.share`` is 0 has no samples in any process in this step: its mean is 0 and
        says nothing.
        """


class FixedWeights(Balancer):
    """The objectives' own weights, nothing else: hard to beat when they are right (Kurin 2022; Xin 2022).

    Args:
        terms: Factor per head, e.g. ``{video: 0.5}``; 1 for those not named.
    """

    def __init__(self, terms: dict[str, float] | None = None) -> None:
        super().__init__()
        self.terms = terms or {}

    def factors(self, plan: Plan, terms: Terms, latent: Tensor) -> Mapping[Key, Tensor | float]:
        """See the base class."""
        return {key: self.terms.get(key[1], 1.0) for key in terms}

    def constant(self, term: str) -> float | None:
        """See the base class."""
        return self.terms.get(term, 1.0)
