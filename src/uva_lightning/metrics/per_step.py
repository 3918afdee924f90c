"""Errors of every sample at every step of the horizon, over all processes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric

from uva_lightning.metrics.intervals import bootstrap_columns
from uva_lightning.metrics.outcomes import joined


class PerStep(Metric, ABC):
    """One number for each sample and step, kept until the end: 8 bytes each."""

    title: str
    """What a table calls it, with its unit."""
    full_state_update = False
    values: list[Tensor] | Tensor
    steps: Tensor

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.set_dtype(torch.float64)  # a process without samples then sends nothing of the same kind
        self.add_state("values", [], dist_reduce_fx="cat")
        self.add_state("steps", torch.tensor(0), dist_reduce_fx="max")

    @abstractmethod
    def measured(self, predicted: Tensor, real: Tensor) -> Tensor:
        """Give the number of each sample and step, f[n, h], of two tensors [n, h, ...]."""

    def update(self, predicted: Tensor, real: Tensor) -> None:
        """Take samples.

        Raises:
            ValueError: Shapes differ, or have another number of steps than before.
        """
        if predicted.shape != real.shape:
            raise ValueError(
                f"What is predicted has shape {tuple(predicted.shape)}, what is real {tuple(real.shape)}, expected the "
                "same; compare the same samples and steps."
            )
        values = self.measured(predicted, real).detach().double()
        if int(self.steps) not in (0, values.shape[1]):
            raise ValueError(f"Samples have {values.shape[1]} steps, expected {int(self.steps)} as those before.")
        self.steps = torch.tensor(values.shape[1], device=values.device)
        if isinstance(self.values, list):
            self.values.append(values.flatten())

    def samples(self) -> Tensor:
        """Give what this process has, f64[n, h]."""
        return joined(self.values).unflatten(0, (-1, max(1, int(self.steps))))

    def compute(self) -> dict[str, Any]:
        """Give ``n``, ``mean`` over samples and steps, ``per_step`` means, and 95 % bootstrap intervals over samples.

        Raises:
            ValueError: There are no samples, or a number is not finite.
        """
        values = self.samples().cpu().numpy()
        if not len(values) or not np.isfinite(values).all():
            raise ValueError(
                f"{self.title}: {np.isfinite(values).all(axis=-1).sum()} of {len(values)} samples are finite, expected "
                "at least one and all of them."
            )
        whole, *steps = bootstrap_columns(np.column_stack((values.mean(axis=1), values)))
        return {
            "n": len(values),
            "mean": float(values.mean()),
            "interval": list(whole),
            "per_step": values.mean(axis=0).tolist(),
            "per_step_intervals": [list(interval) for interval in steps],
        }


class ActionError(PerStep):
    """Distance between actions f[n, h, a], in the unit of the data.

    Args:
        order: 2 for the Euclidean distance, 1 for the sum of absolute differences.
    """

    higher_is_better = False

    def __init__(self, order: int = 2, **options: Any) -> None:
        super().__init__(**options)
        if order not in (1, 2):
            raise ValueError(f"order is {order}, expected 1 or 2.")
        self.order, self.title = order, f"L{order} error of actions, in the unit of the data"

    def measured(self, predicted: Tensor, real: Tensor) -> Tensor:
        """See the base class."""
        return torch.linalg.vector_norm(predicted.double() - real.double(), ord=self.order, dim=-1)
