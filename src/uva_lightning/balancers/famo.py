"""Fast adaptive multitask optimization."""

from __future__ import annotations

import torch
from torch import Tensor

from uva_lightning.balancers.running import RunningBalancer, Served, mean_one, positive


class FAMO(RunningBalancer):
    """Let all losses fall at the same relative rate, from their values alone (Liu, Feng, Stone and Liu 2023).

    Each term has a logit ``w``, 0 at first, and ``z = softmax(w)``. Its factor is ``z / L``, scaled to a mean of 1
    over the terms: the step then goes down ``sum_i z_i log L_i``. After it, ``w <- w - rate * (J + decay * w)`` with
    ``J = z * (delta - sum_j z_j delta_j)``, the softmax's Jacobian times ``delta = log L(before) - log L(after)``: a
    term that fell more than the others gets less.

    ``L(after)`` is the loss of the next batch, so that no second forward pass is needed. That adds the difference
    between two batches to ``delta``; over the steps these differences cancel but for the first and the last, since the
    logits move by ``delta`` itself. For this reason they move as in the paper's algorithm and not by Adam as in the
    authors' code, which would divide each ``delta`` by its own size.

    Losses must be positive; a term that is not keeps its logit in that step and has the factor 1. The method knows
    nothing of shares and weights, which still multiply its factors, and works against them where they make some losses
    fall faster.

    Args:
        rate: Learning rate of the logits, positive.
        decay: Pulls the logits towards 0, not negative.
    """

    keeps = ("logit", "loss")

    def __init__(self, rate: float = 0.025, decay: float = 1e-3) -> None:
        super().__init__()
        if not rate > 0:
            raise ValueError(f"rate is {rate}, expected a positive number; the paper has 0.025.")
        if not decay >= 0:
            raise ValueError(f"decay is {decay}, expected 0 or more; the paper has 0.001.")
        self.rate, self.decay = rate, decay

    def weigh(self, served: Served) -> Tensor:
        """See the base class."""
        losses = served.means.where(positive(served.means), torch.nan)
        logits = self.recall("logit", served, 0.0)
        if self.training:
            before = self.recall("loss", served)
            logits = moved(logits, before.log() - losses.log(), self.rate, self.decay)
            self.keep("logit", served, logits)
            self.keep("loss", served, losses.where(~losses.isnan(), before))
        shown = logits.where(~losses.isnan(), -torch.inf)
        return mean_one(torch.softmax(shown, dim=0) / losses)


def moved(logits: Tensor, fall: Tensor, rate: float, decay: float) -> Tensor:
    """Move the logits f32[k] by how far each logarithm fell, f32[k]; those of which that is not known (NaN) stay."""
    known = ~fall.isnan()
    weights = torch.nan_to_num(torch.softmax(logits.where(known, -torch.inf), dim=0))
    fall = fall.where(known, 0.0)
    gradient = weights * (fall - (weights * fall).sum())
    return logits - (rate * (gradient + decay * logits)).where(known, 0.0)
