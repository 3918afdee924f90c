"""Linear probes: how much of the true state a linear map reads off features, on episodes that it has not seen.

Ridge regression in closed form (Hoerl and Kennard 1970). Episodes are cut into folds, each held out once; the penalty
is chosen on further episodes of the others. Windows of one episode are never on both sides.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from uva_lightning.metrics.intervals import LEVEL

POSE, CONTACT, VELOCITY, ROBOT = "object pose", "contact", "velocity", "robot"
"""Groups of targets: of objects; flags; of all that moves; the robot's own pose, which the model may be told."""
FOLDS = 4
LEAST_EPISODES = 2 * FOLDS
PENALTIES = (1e-6, 1e-4, 1e-2, 0.1, 1.0, 10.0, 100.0, 1e3, 1e5)
"""Tried penalties, per window, on features of variance 1; the last one leaves hardly more than the mean."""
CHOOSING = 4
"""One in so many training episodes serves to choose the penalty."""
_RESAMPLES = 2000
_FLAT = 1e-9  # standard deviation below which a feature is left alone


@dataclass(frozen=True)
class Target:
    """Part of the true state.

    Args:
        name: What it is.
        values: f64[n, k], one row per window.
        group: What it is summed up with: ``POSE``, ``CONTACT``, ``VELOCITY`` or ``ROBOT``.
    """

    name: str
    values: NDArray[np.float64]
    group: str

    @property
    def flag(self) -> bool:
        """Whether it is 0 or 1 (k = 1)."""
        return self.group == CONTACT


@dataclass(frozen=True)
class Held:
    """Predictions of held-out windows by ``m`` probes.

    Args:
        predicted: f64[m, n, k].
        mean: f64[n, k], the mean of the training episodes: what is known without looking.
    """

    predicted: NDArray[np.float64]
    mean: NDArray[np.float64]


def held_out(features: Tensor, targets: Sequence[Target], episodes: NDArray[np.int64]) -> list[Held]:
    """Predict every window by probes that were fitted to other episodes.

    Args:
        features: f32[m, n, d], features of ``n`` windows for each of ``m`` probes.
        targets: What is probed, each with a penalty of its own.
        episodes: i64[n], episode of each window.

    Returns:
        One entry per target.

    Raises:
        ValueError: There are too few episodes, or a number is not finite.
    """
    numbers = np.unique(episodes)
    if len(numbers) < LEAST_EPISODES:
        raise ValueError(
            f"There are {len(numbers)} episodes to probe on, expected at least {LEAST_EPISODES}; set --probes."
        )
    if not bool(torch.isfinite(features).all()):
        raise ValueError("Features to probe are not all finite, expected finite numbers; the checkpoint has diverged.")
    y = torch.from_numpy(np.concatenate([target.values for target in targets], axis=1)).to(features.device)
    ends = np.cumsum([target.values.shape[1] for target in targets]).tolist()
    parts = [slice(end - target.values.shape[1], end) for target, end in zip(targets, ends, strict=True)]
    predicted, mean = y.new_zeros(len(features), *y.shape), torch.zeros_like(y)
    order = np.random.default_rng(0).permutation(numbers)
    for fold in np.array_split(order, FOLDS):
        rest = np.setdiff1d(order, fold)
        choosing = np.random.default_rng(1).permutation(rest)[::CHOOSING]
        fitting = np.setdiff1d(rest, choosing)
        inside, tried, rows, held = (
            torch.from_numpy(np.flatnonzero(np.isin(episodes, which))) for which in (fitting, choosing, rest, fold)
        )
        error = (_predict(features, y, inside, tried) - y[tried]).square().sum(dim=2)  # [p, m, k]
        last = _predict(features, y, rows, held)  # [p, m, n, k]
        for part in parts:
            best = error[..., part].sum(dim=-1).argmin(dim=0)  # [m]
            predicted[:, held, part] = last[best, torch.arange(len(best)), :, part]
        mean[held] = y[rows].mean(dim=0)
    return [Held(predicted[..., part].cpu().numpy(), mean[:, part].cpu().numpy()) for part in parts]


def score(
    target: Target, predicted: NDArray[np.float64], mean: NDArray[np.float64], episodes: NDArray[np.int64]
) -> Any:
    """Say how good the predictions f64[n, k] of one probe are, with a 95 % interval over episodes.

    Returns:
        For numbers ``r2``: 1 - squared error over that of the mean of the training episodes, 0 for that mean. For a
        flag ``auc``: share of pairs of a window with it and one without that are in the right order, 0.5 for the mean;
        and ``balanced``: mean share of both kinds that are on their side of the mean. ``interval`` belongs to the
        first. None where the target never changes.
    """
    found, over, under = _sums(target, predicted, mean, episodes)
    if found is None:
        return None
    times = _resampled(len(over))
    above, below = (times @ part if part.ndim == 1 else ((times @ part) * times).sum(axis=1) for part in (over, under))
    low, high = np.quantile(above[below > 0] / below[below > 0], [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return {**found, "interval": [float(low), float(high)]}


def value(
    target: Target, predicted: NDArray[np.float64], mean: NDArray[np.float64], episodes: NDArray[np.int64]
) -> float | None:
    """Give the number of ``score`` alone, in a fraction of the time."""
    found, _, _ = _sums(target, predicted, mean, episodes)
    return None if found is None else float(found["value"])


def _sums(
    target: Target, predicted: NDArray[np.float64], mean: NDArray[np.float64], episodes: NDArray[np.int64]
) -> tuple[Any, NDArray[np.float64], NDArray[np.float64]]:
    """Give the score, and by episode, or pair of episodes, the two sums whose ratio it is."""
    _, numbers = np.unique(episodes, return_inverse=True)
    if target.flag:
        return _flag(target.values[:, 0] > 0.5, predicted[:, 0] - mean[:, 0], numbers)
    errors = [np.square(target.values - guess).sum(axis=1) for guess in (predicted, mean)]
    left, whole = (np.bincount(numbers, error).astype(np.float64) for error in errors)
    if not whole.sum() > _FLAT:
        return None, left, whole
    return {"measure": "r2", "value": float(1 - left.sum() / whole.sum())}, whole - left, whole


def _flag(
    there: NDArray[np.bool_], raised: NDArray[np.float64], numbers: NDArray[np.int64]
) -> tuple[Any, NDArray[np.float64], NDArray[np.float64]]:
    """Compare windows with and without, by how far each prediction lies above the mean of its own fold."""
    one = np.eye(numbers.max() + 1)
    higher, lower = raised[there][:, None], raised[~there][None]
    right = (higher > lower) + 0.5 * (higher == lower)
    over, under = (
        one[numbers[there]].T @ right @ one[numbers[~there]],
        np.outer(*(one[numbers[x]].sum(axis=0) for x in (there, ~there))),
    )
    if not under.sum():
        return None, over, under
    balanced = ((raised[there] > 0).mean() + (raised[~there] <= 0).mean()) / 2
    return {"measure": "auc", "value": float(over.sum() / under.sum()), "balanced": float(balanced)}, over, under


@lru_cache(maxsize=4)
def _resampled(episodes: int) -> NDArray[np.float64]:
    """Draw how often each episode is in each bootstrap sample: f64[resamples, episodes], the same for all scores."""
    return (
        np.random.default_rng(0).multinomial(episodes, np.full(episodes, 1 / episodes), _RESAMPLES).astype(np.float64)
    )


def _predict(features: Tensor, y: Tensor, rows: Tensor, held: Tensor) -> Tensor:
    """Fit to ``rows`` and predict ``held``, for all penalties: f64[p, m, n, k]."""
    x = features[:, rows].double()
    mean, scale = x.mean(dim=1, keepdim=True), x.std(dim=1, keepdim=True)
    scale = torch.where(scale > _FLAT, scale, 1.0)
    x, level = (x - mean) / scale, y[rows].mean(dim=0)
    new = (features[:, held].double() - mean) / scale
    return new @ ridge(x, y[rows] - level, PENALTIES) + level


def ridge(x: Tensor, y: Tensor, penalties: Sequence[float]) -> Tensor:
    """Solve ridge regression for several penalties at once, by the eigenvectors of the smaller Gram matrix.

    Args:
        x: f64[m, n, d], centred.
        y: f64[n, k], centred.
        penalties: ``p`` penalties per row.

    Returns:
        Coefficients f64[p, m, d, k].
    """
    wide = x.shape[2] > x.shape[1]
    values, vectors = torch.linalg.eigh(x @ x.mT if wide else x.mT @ x)
    right = vectors.mT @ (y if wide else x.mT @ y)  # [m, r, k]
    penalty = torch.tensor(penalties, dtype=x.dtype, device=x.device)[:, None, None, None] * x.shape[1]
    found = vectors @ (right / (values.clamp(min=0)[..., None] + penalty))
    return x.mT @ found if wide else found
