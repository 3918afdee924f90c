"""How well a checkpoint predicts held-out video: its loss, and the quality of what it generates."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from uva_lightning.draws import Draws
from uva_lightning.metrics.comparison import HeldOut, psnr
from uva_lightning.metrics.fvd import FrechetVideoDistance, RandomVideoFeatures
from uva_lightning.metrics.intervals import bootstrap_ratio
from uva_lightning.policy.windows import Frames, WindowObservation, WindowPolicy

BLOCK = 32
"""Windows that go through the model at a time."""
CLIPS = 64
"""Clips from which on a Frechet distance is computed: its covariances have as many rows."""


def measure(policy: WindowPolicy, real: HeldOut, seed: int = 0) -> dict[str, Any]:
    """Measure the main view, nothing of whose future is visible.

    Args:
        policy: Trained model.
        real: Held-out windows of known episodes, the same for all checkpoints.
        seed: Of the noise.

    Returns:
        ``loss`` of the video head, ``psnr`` of the last frame at temperature 0 in dB with that of a copy of the last
        frame seen, each as a mean with an interval over episodes, None of a single one; ``distance``, a Frechet
        distance of clips at the head's own temperature, or None with a reason.

    Raises:
        ValueError: The episodes of the windows are not known.
    """
    view, camera = next(iter(policy.module.cameras)), policy.spec.cameras[0]
    head = policy.module.head(view)
    distance, losses, made = FrechetVideoDistance(RandomVideoFeatures()), [], []
    policy.reset(seed)
    episodes = real.episodes
    if episodes is None:
        raise ValueError("The episodes of the windows are not known, expected them; take HeldOut.from_data.")
    count = len(episodes)
    for first in range(0, count, BLOCK):
        rows = slice(first, first + BLOCK)
        observation, future = _rows(real, rows)
        with torch.inference_mode():
            tokens, seen, latent = policy.latent(observation, view, future)
            draws = Draws(seed, 0, torch.arange(first, min(first + BLOCK, count)), policy.module.device)
            losses.append(head.loss(latent, tokens, seen, partial(draws.normal, "loss")).means.double().cpu().numpy())
        made.append(policy.imagine(observation, 0.0)[camera])
        if count >= CLIPS:
            distance.update(*(torch.from_numpy(x[camera]) for x in (policy.imagine(observation), future)))
    target = real.future[camera]
    copied = np.repeat(real.observation["video"][camera][:, -1:], target.shape[1], axis=1)
    enough = count >= CLIPS
    return {
        "windows": count,
        "episodes": len(np.unique(episodes)),
        "loss": _mean(np.concatenate(losses), episodes),
        "psnr": _mean(psnr(np.concatenate(made), target), episodes),
        "psnr_of_copy": _mean(psnr(copied, target), episodes),
        "distance": float(distance.compute()) if enough else None,
        "distance_name": RandomVideoFeatures.title,
        "distance_left_out": "" if enough else f"{count} clips, expected at least {CLIPS}; raise --windows.",
    }


def _rows(real: HeldOut, rows: slice) -> tuple[WindowObservation, Frames]:
    seen, future = real.observation, real.future
    part = {kind: {name: values[rows] for name, values in entries.items()} for kind, entries in seen.items()}
    return part, {camera: frames[rows] for camera, frames in future.items()}


def _mean(values: NDArray[np.float64], episodes: NDArray[np.int64]) -> dict[str, Any]:
    _, numbers = np.unique(episodes, return_inverse=True)
    over, under = (np.bincount(numbers, one).astype(np.float64) for one in (values, np.ones_like(values)))
    interval = bootstrap_ratio(over, under) if len(over) > 1 else None
    return {"value": float(values.mean()), "interval": interval and list(interval)}
