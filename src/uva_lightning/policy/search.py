"""Search around proposals: draw more chunks near the promising ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from uva_lightning.policy.proposals import Candidates, Judge, OwnSamples, Proposals
from uva_lightning.policy.windows import WindowObservation, WindowPolicy

if TYPE_CHECKING:
    from uva_lightning.policy.imagination import Envs


class Search(Proposals):
    """Rounds of chunks drawn around the promising ones.

    Deviations are random mixtures of those among the chunks of the round before. So they keep the correlations of what
    a policy proposes, between steps and between joints, and need no scale of their own.

    Args:
        start: The first round; eight samples of the policy if not given.
        count: Chunks drawn in each further round.
        rounds: Further rounds.
        spread: Factor on the deviations.
    """

    def __init__(self, start: Proposals | None = None, count: int = 16, rounds: int = 2, spread: float = 1.0) -> None:
        for name, value in (("count", count), ("rounds", rounds)):
            if value < 1:
                raise ValueError(f"{name} is {value}, expected at least 1.")
        if spread <= 0:
            raise ValueError(f"spread is {spread}, expected more than 0; 1 keeps that of the round before.")
        self.start = OwnSamples() if start is None else start
        self.count, self.rounds, self.spread = count, rounds, spread

    def enter(self, envs: Envs) -> None:
        """See the base class."""
        super().enter(envs)
        self.start.enter(envs)

    def reset(self, seed: int) -> None:
        """See the base class."""
        self.start.reset(seed)


class CrossEntropy(Search):
    """Cross-entropy method (Rubinstein 1999): draw around the mean of the best, keep these, and so on.

    Args:
        start: The first round; eight samples of the policy if not given.
        count: Chunks drawn in each further round.
        rounds: Further rounds.
        spread: Factor on the deviations, which are those among the best.
        elites: The best of a round.
    """

    def __init__(
        self,
        start: Proposals | None = None,
        count: int = 16,
        rounds: int = 2,
        spread: float = 1.0,
        elites: int = 4,
    ) -> None:
        super().__init__(start, count, rounds, spread)
        if elites < 2:
            raise ValueError(f"elites is {elites}, expected at least 2: deviations are those among them.")
        self.elites = elites

    def search(
        self, policy: WindowPolicy, observation: WindowObservation, judge: Judge, rngs: Sequence[Generator]
    ) -> Candidates:
        """See the base class."""
        actions, scores = self.start.search(policy, observation, judge, rngs)
        if len(actions) < self.elites:
            raise ValueError(f"elites is {self.elites} of {len(actions)} proposals; expected no more than there are.")
        for _ in range(self.rounds):
            best = np.argsort(-scores, axis=0, kind="stable")[: self.elites]  # i64[e, b]
            elite = np.take_along_axis(actions, best[..., None, None], axis=0)
            drawn = _around(elite.mean(axis=0), elite, self.count, self.spread, rngs)
            actions = np.concatenate([elite, drawn])
            scores = np.concatenate([np.take_along_axis(scores, best, axis=0), judge(drawn)])
        return Candidates(actions, scores)


class PathIntegral(Search):
    """Model-predictive path integral control (Williams et al. 2017): the mean of all, weighted by their promise.

    Args:
        start: The first round; eight samples of the policy if not given.
        count: Chunks drawn around the mean in each further round.
        rounds: Further rounds.
        spread: Factor on the deviations; they are halved from round to round.
        temperature: Of the weights, in standard deviations of the scores; near 0 the best one alone counts.
    """

    def __init__(
        self,
        start: Proposals | None = None,
        count: int = 16,
        rounds: int = 2,
        spread: float = 0.5,
        temperature: float = 0.3,
    ) -> None:
        super().__init__(start, count, rounds, spread)
        if temperature <= 0:
            raise ValueError(f"temperature is {temperature}, expected more than 0.")
        self.temperature = temperature

    def search(
        self, policy: WindowPolicy, observation: WindowObservation, judge: Judge, rngs: Sequence[Generator]
    ) -> Candidates:
        """See the base class; there is one chunk to choose from, the mean."""
        first, scores = self.start.search(policy, observation, judge, rngs)
        mean, spread = self._mean(first, scores), self.spread
        for _ in range(self.rounds):
            drawn = np.concatenate([mean[None], _around(mean, first, self.count, spread, rngs)])
            scores = judge(drawn)
            mean, spread = self._mean(drawn, scores), spread / 2
        return Candidates(mean[None], np.zeros((1, len(mean))))

    def _mean(self, actions: NDArray[np.float32], scores: NDArray[np.float64]) -> NDArray[np.float32]:
        """Give f32[b, h, a] of f32[k, b, h, a]."""
        scale = self.temperature * scores.std(axis=0)
        lead = scores - scores.max(axis=0)
        weights = np.exp(np.divide(lead, scale, out=np.zeros_like(lead), where=scale > 0))
        weights /= weights.sum(axis=0)
        mean: NDArray[np.float32] = np.einsum("kb,kbha->bha", weights, actions).astype(np.float32)
        return mean


def _around(
    mean: NDArray[np.float32], samples: NDArray[np.float32], count: int, spread: float, rngs: Sequence[Generator]
) -> NDArray[np.float32]:
    """Draw chunks f32[count, b, h, a] around f32[b, h, a] with the covariance of f32[n, b, h, a]."""
    deviations = samples - samples.mean(axis=0)
    weights = np.stack([rng.standard_normal((count, len(samples))) for rng in rngs], axis=1)  # f64[count, b, n]
    drawn = np.einsum("kbn,nbha->kbha", weights, deviations) * (spread / max(1, len(samples) - 1) ** 0.5)
    around: NDArray[np.float32] = (mean + drawn).astype(np.float32)
    return around
