"""One step of a sampler of the diffusion."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

from torch import Tensor

from uva_lightning.model.heads.schedule import Formulas, Index

Draw = Callable[[Tensor], Tensor]
"""Gives the scaled noise of a step for x f32[n, c]."""


class Update(ABC):
    """One step of a sampler."""

    def begin(self) -> Update:
        """Give what makes the steps of one sample; itself, unless a step needs to know of the step before."""
        return self

    @abstractmethod
    def __call__(
        self, schedule: Formulas, x: Tensor, output: tuple[Tensor, Tensor], index: Index, draw: Draw
    ) -> Tensor:
        """Go from step ``index`` to the one before.

        Args:
            schedule: Tables.
            x: f32[n, c].
            output: Estimated x0 and variance fraction, f32[n, c] each.
            index: Position in the schedule, a number or i64[1] as the tables demand.
            draw: Gives the step's noise.
        """


class Ancestral(Update):
    """DDPM's random walk with the learned variance, as UVA."""

    def __call__(
        self, schedule: Formulas, x: Tensor, output: tuple[Tensor, Tensor], index: Index, draw: Draw
    ) -> Tensor:
        """See the base class."""
        clean, fraction = output
        noise = draw(x) * (index > 0)
        return schedule.posterior_mean(clean, x, index) + (0.5 * schedule.log_variance(fraction, index)).exp() * noise


class DDIM(Update):
    """Deterministic steps, far fewer are enough (Song 2021)."""

    def __call__(
        self, schedule: Formulas, x: Tensor, output: tuple[Tensor, Tensor], index: Index, draw: Draw
    ) -> Tensor:
        """See the base class; nothing is drawn."""
        clean, _ = output
        noise = (x - schedule.signal[index] * clean) / schedule.noise[index]
        return schedule.previous_signal[index] * clean + schedule.previous_noise[index] * noise


class DPMSolver(Update):
    """DPM-Solver++(2M): deterministic, of second order by the estimate of the step before (Lu 2022, algorithm 2)."""

    def __init__(self) -> None:
        self._before: Tensor | None = None

    def begin(self) -> Update:
        """Forget the sample before."""
        return DPMSolver()

    def __call__(
        self, schedule: Formulas, x: Tensor, output: tuple[Tensor, Tensor], index: Index, draw: Draw
    ) -> Tensor:
        """See the base class; nothing is drawn."""
        clean, _ = output
        ahead = clean if self._before is None else clean + schedule.solver_slope[index] * (clean - self._before)
        self._before = clean
        return schedule.solver_of_x[index] * x + schedule.solver_of_clean[index] * ahead
