"""Dynamic weight average."""

from __future__ import annotations

import torch
from torch import Tensor

from uva_lightning.balancers.running import RunningBalancer, Served, positive


class DWA(RunningBalancer):
    """Give more weight to terms whose loss falls more slowly (Liu, Johns and Davison 2019).

    With ``L`` the mean loss of an interval, the factor of term ``i`` of ``K`` is
    ``K * exp(r_i / temperature) / sum_j exp(r_j / temperature)``, where ``r = L[last] / L[before last]``. The paper's
    intervals are epochs; here they are so many batches, since an epoch of a large set may never end. All factors are 1
    in the first two intervals, as in the paper.

    Args:
        every: Batches of an interval, at least 1.
        temperature: The higher, the more alike are the factors; positive.
    """

    keeps = ("sum", "count", "last", "before")

    def __init__(self, every: int = 500, temperature: float = 2.0) -> None:
        super().__init__()
        if every < 1:
            raise ValueError(f"every is {every}, expected at least 1 batch; 500 averages over the noise of a batch.")
        if not temperature > 0:
            raise ValueError(f"temperature is {temperature}, expected a positive number; the paper has 2.0.")
        self.every, self.temperature = every, temperature

    def weigh(self, served: Served) -> Tensor:
        """See the base class."""
        ratio = self.recall("last", served) / self.recall("before", served)
        if self.training:
            valid = positive(served.means)
            self.keep("sum", served, self.recall("sum", served, 0.0) + served.means.where(valid, 0.0))
            self.keep("count", served, self.recall("count", served, 0.0) + valid)
            if (self.batches + 1) % self.every == 0:
                self._close()
        return averaged(ratio, self.temperature)

    def _close(self) -> None:
        """End an interval, for all terms that it had: the others keep their last two."""
        total, count, last, before = (self._kept[name] for name in self.keeps)
        for key in [*total]:
            mean = total[key] / count[key]  # NaN where no value was usable
            known = last.get(key, torch.full_like(mean, torch.nan)).to(mean.device)
            older = before.get(key, torch.full_like(mean, torch.nan)).to(mean.device)
            last[key], before[key] = mean.where(~mean.isnan(), known), known.where(~mean.isnan(), older)
            del total[key], count[key]


def averaged(ratio: Tensor, temperature: float) -> Tensor:
    """Turn f32[k], the ratio of a loss to that before it, into factors with mean 1; NaN stays out."""
    logits = (ratio / temperature).where(ratio.isfinite(), -torch.inf)
    known = ratio.isfinite()
    factors = known.sum() * torch.softmax(logits, dim=0)
    return factors.where(known, torch.nan)
