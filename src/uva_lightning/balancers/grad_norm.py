"""Gradient norms on the shared latent, drawn to one another."""

from __future__ import annotations

import torch
from torch import Tensor

from uva_lightning.balancers.latent import norms
from uva_lightning.balancers.running import RunningBalancer, Served, positive


class GradNorm(RunningBalancer):
    """Let all terms reach the trunk with gradients of about the same size (Chen et al. 2018).

    ``G_i = w_i * n_i`` is the norm of term ``i``'s gradient on the latent Z, over the samples of all processes, and
    ``r_i = (L_i / L_i[first]) / mean_j(L_j / L_j[first])`` says how far it is behind (section 3). The weight ``w_i``,
    1 at first, moves until ``G_i = T_i = mean_j(G_j) * r_i ** alpha`` (equation 1), and the weights keep their sum.

    Two things differ from the paper, not the point at which the weights come to rest. They go down
    ``sum_i (log G_i - log T_i) ** 2 / 2`` by ``log w`` instead of ``sum_i |G_i - T_i|`` by Adam, that is
    ``w_i <- w_i * (T_i / G_i) ** rate``: they stay positive, no unit matters and there is no optimizer to keep. And
    ``n_i`` is multiplied by the root of the objective's share: Z has a row for each sample, and a mean over fewer
    samples has a larger norm on it, though not on the weights of the trunk.

    Shares and weights still multiply the result, and say what is to count more.

    Args:
        alpha: How strongly those that are behind are pulled, not negative; 0 makes all norms alike.
        rate: Share of the way, in logarithms, that a weight goes in one batch, in (0, 1].
    """

    keeps = ("weight", "first")

    def __init__(self, alpha: float = 1.5, rate: float = 0.025) -> None:
        super().__init__()
        if not alpha >= 0:
            raise ValueError(f"alpha is {alpha}, expected 0 or more; the paper has 0.12 to 1.5.")
        if not 0 < rate <= 1:
            raise ValueError(f"rate is {rate}, expected a number in (0, 1]; 0.025 follows over about 40 batches.")
        self.alpha, self.rate = alpha, rate

    def weigh(self, served: Served) -> Tensor:
        """See the base class; validation takes no gradients.

        Raises:
            ValueError: The latent has no gradients, or a term does not depend on it.
        """
        weights = self.recall("weight", served, 1.0)
        if self.training:
            first = self.recall("first", served)
            first = first.where(~first.isnan(), served.means.where(positive(served.means), torch.nan))
            sizes = norms(served, type(self).__name__) * served.shares.sqrt()
            weights = drawn(weights, sizes, served.means / first, self.alpha, self.rate)
            self.keep("first", served, first)
            self.keep("weight", served, weights)
        return weights


def drawn(weights: Tensor, norms: Tensor, ratios: Tensor, alpha: float, rate: float) -> Tensor:
    """Draw the weighted norms towards their targets.

    Args:
        weights: f32[k], of the terms.
        norms: f32[k], of the gradients of the terms without their weights.
        ratios: f32[k], of each loss to its first value.
        alpha: Power of the relative ratio in the target.
        rate: Share of the way.

    Returns:
        f32[k] with the same sum; a term whose norm or ratio is not positive and finite keeps its weight.
    """
    valid = positive(norms) & positive(ratios)
    sizes, ratios = (weights * norms).where(valid, torch.nan), ratios.where(valid, torch.nan)
    targets = sizes.nanmean() * (ratios / ratios.nanmean()) ** alpha
    moved = (weights * (targets / sizes) ** rate).where(valid, 0.0)
    total = weights.where(valid, 0.0).sum()
    return (moved * total / moved.sum()).where(valid, weights)
