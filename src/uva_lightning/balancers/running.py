"""What balancers share that go by statistics: the terms of a step, and numbers kept from step to step."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from uva_lightning.balance import Balancer, Key, Terms
from uva_lightning.sampler import Plan

_SEPARATOR = "\t"


@dataclass(frozen=True)
class Served:
    """The terms of a step that have samples, on whichever process.

    Attributes:
        keys: (objective, term) of each.
        means: f32[k], mean over the samples of all processes, the same on each.
        shares: f32[k], share of the objective in the samples of all processes.
        amounts: f32[k], share times weight: how much a term counts before it is weighed.
        losses: Scalars with a graph; the average of their gradients over the processes is that of ``means``.
        latent: Z, [b, t, s, d], of this process's rows.
    """

    keys: list[Key]
    means: Tensor
    shares: Tensor
    amounts: Tensor
    losses: list[Tensor]
    latent: Tensor

    @classmethod
    def of(cls, plan: Plan, terms: Terms, latent: Tensor) -> Served | None:
        """Collect them; none where nothing has samples."""
        keys = [key for key in terms if plan.share[key[0]] > 0]
        if not keys:
            return None
        means = torch.stack([terms[key].mean.detach().float() for key in keys])
        shares = torch.tensor([[plan.share[name], plan.objectives[name].weight] for name, _ in keys])
        share, weight = shares.to(means.device, non_blocking=True).unbind(dim=1)
        return cls(keys, means, share, share * weight, [terms[key].loss for key in keys], latent)


class RunningBalancer(Balancer):
    """Weigh terms by numbers that are kept from step to step, in the checkpoint too.

    A subclass names what it keeps in ``keeps`` and implements ``weigh``. Terms without samples in a step keep their
    numbers. All comes from means over the samples of all processes, so every process has the same factors; nothing
    waits for the device.
    """

    keeps: ClassVar[tuple[str, ...]] = ()
    """Names of the numbers that each term has."""

    def __init__(self) -> None:
        super().__init__()
        self._kept: dict[str, dict[Key, Tensor]] = {name: {} for name in self.keeps}
        self.batches = 0
        """Batches trained on so far."""

    @abstractmethod
    def weigh(self, served: Served) -> Tensor:
        """Give the factor of each term, f32[k]; NaN stands for 1. Only ``self.training`` may change what is kept."""

    def factors(self, plan: Plan, terms: Terms, latent: Tensor) -> Mapping[Key, Tensor | float]:
        """See the base class; terms without samples have the factor 1, and count nothing anyway."""
        neutral: dict[Key, Tensor | float] = dict.fromkeys(terms, 1.0)
        served = Served.of(plan, terms, latent)
        if served is None:
            return neutral
        factors = torch.nan_to_num(self.weigh(served).detach(), nan=1.0)
        self.batches += self.training
        return neutral | dict(zip(served.keys, factors.unbind(), strict=True))

    def recall(self, name: str, served: Served, unknown: float = torch.nan) -> Tensor:
        """Give what is kept of each term of the step, f32[k], and ``unknown`` where there is nothing yet."""
        kept, device = self._kept[name], served.means.device
        values = [kept[key].to(device) if key in kept else served.means.new_tensor(unknown) for key in served.keys]
        return torch.stack(values)

    def keep(self, name: str, served: Served, values: Tensor) -> None:
        """Keep f32[k], one number for each term of the step."""
        self._kept[name].update(zip(served.keys, values.detach().unbind(), strict=True))

    def get_extra_state(self) -> dict[str, Any]:
        """Give for the checkpoint what is kept."""
        kept = {
            name: {_SEPARATOR.join(key): float(value) for key, value in values.items() if not value.isnan()}
            for name, values in self._kept.items()
        }
        return {"batches": self.batches, **kept}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Take it from a checkpoint."""
        self.batches = state["batches"]
        for name in self.keeps:
            pairs = [(*key.split(_SEPARATOR), value) for key, value in state[name].items()]
            self._kept[name] = {(objective, term): torch.tensor(value) for objective, term, value in pairs}


def positive(values: Tensor) -> Tensor:
    """Say which numbers are finite and above 0, bool[k]: a loss that is not says nothing about scale or progress."""
    return values.isfinite() & (values > 0)


def mean_one(values: Tensor) -> Tensor:
    """Scale f32[k] so that the mean of those that are not NaN is 1."""
    return values / values.nanmean()
