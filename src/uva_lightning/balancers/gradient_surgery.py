"""Conflicts between gradients, resolved by TorchJD."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from uva_lightning.balancers.latent import gramian
from uva_lightning.balancers.running import RunningBalancer, Served, mean_one


class GradientSurgery(RunningBalancer):
    """Weigh the terms so that a step helps all of them, by an aggregator of TorchJD (extra ``torchjd``).

    The aggregator gets the inner products of the terms' gradients, each times share and weight, on the table of
    positions that the trunk adds to the latent of every sample: the last parameter before the heads, through which all
    objectives meet. It gives one weight per term, which is scaled to a mean of 1 and then used for the whole model,
    heads included. Without any conflict ``UPGrad`` gives 1 to all.

    Args:
        weighting: An aggregator that goes by inner products and keeps nothing between steps, e.g.
            ``torchjd.aggregation.MGDAWeighting``; ``UPGradWeighting`` (Quinton and Rey 2024) if not given.
    """

    keeps = ("factor",)

    def __init__(self, weighting: nn.Module | None = None) -> None:
        super().__init__()
        self._weighting = [weighting or _upgrad()]  # in a list: it has nothing to train or to save
        _check(self._weighting[0])

    def weigh(self, served: Served) -> Tensor:
        """See the base class; validation takes no gradients and has the last factors.

        Raises:
            ValueError: The latent has no gradients, or a term does not depend on it.
        """
        factors = self.recall("factor", served)
        if not self.training:
            return factors
        products = gramian(served, type(self).__name__)
        size = products.diagonal().mean()
        if not size.isfinite() or size == 0:
            return factors
        factors = mean_one(_weights(self._weighting[0], products / size, self.batches)).to(factors)
        self.keep("factor", served, factors)
        return factors


def _weights(weighting: nn.Module, products: Tensor, seed: int) -> Tensor:
    """Ask for f64[k]; what is drawn at random, as PCGrad's order, is the same on every process and after a resume."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        weights: Tensor = weighting(products)
    return weights


def _upgrad() -> nn.Module:
    try:
        from torchjd.aggregation import UPGradWeighting
        from torchjd.linalg import QuadprogProjector

        # The default adds 1e-4 to a trace of 1, which hides conflicts of terms with gradients 100 times smaller.
        return UPGradWeighting(projector=QuadprogProjector(reg_eps=1e-10))
    except ImportError as error:
        raise ImportError(
            f"GradientSurgery needs TorchJD ({error}); run: pip install 'uva_lightning[torchjd]'"
        ) from error


def _check(weighting: nn.Module) -> None:
    """Try it on two gradients without conflict.

    Raises:
        ValueError: It keeps something between steps, or does not give one weight per term.
    """
    name = type(weighting).__name__
    if hasattr(weighting, "reset"):
        raise ValueError(
            f"{name} keeps numbers from step to step, which no checkpoint would have; expected an aggregator that does "
            "not, such as UPGradWeighting, MGDAWeighting or PCGradWeighting."
        )
    try:
        weights = _weights(weighting, torch.eye(2, dtype=torch.float64), 0)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(
            f"{name} cannot weigh by inner products ({error}), expected a class of torchjd.aggregation whose name ends "
            "in Weighting, such as UPGradWeighting."
        ) from error
    if not isinstance(weights, Tensor) or weights.shape != (2,):
        raise ValueError(
            f"{name} gives {getattr(weights, 'shape', weights)} for 2 terms, expected one weight for each; take a "
            "class of torchjd.aggregation whose name ends in Weighting, such as UPGradWeighting."
        )
