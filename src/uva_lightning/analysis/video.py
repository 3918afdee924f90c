"""How well a checkpoint predicts held-out video: its loss, and the quality of what it generates."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from uva_lightning.datamodules.base import RobotDataModule
from uva_lightning.draws import Draws
from uva_lightning.metrics.comparison import HeldOut, psnr
from uva_lightning.metrics.fvd import FrechetVideoDistance, RandomVideoFeatures
from uva_lightning.metrics.intervals import bootstrap_ratio
from uva_lightning.policy.windows import Frames, WindowObservation, WindowPolicy

BLOCK = 32
"""Windows that go through the model at a time."""
CLIPS = 64
"""Clips from which on a Frechet distance is computed: its covariances have as many rows."""


@dataclass(frozen=True)
class RealWindows:
    """Held-out windows, the same for all checkpoints.

    Args:
        held_out: What was seen and what came.
        episodes: i64[n], episode of each window.
    """

    held_out: HeldOut
    episodes: NDArray[np.int64]

    @classmethod
    def of(cls, data: RobotDataModule, windows: int) -> RealWindows:
        """Take evenly spaced windows in which every frame is a real one.

        Raises:
            ValueError: The data have latents in the place of pictures.
        """
        data.forget()
        data.window, data.generate, data.symmetry = replace(data.window, pad=(0, 0)), None, None
        data.setup("validate")
        if not data.has_pictures:
            raise ValueError(f"{data.path} has latents only, expected pictures to compare with; set --data to such.")
        batches = data.held_out()
        rows = torch.linspace(0, len(batches) - 1, min(windows, len(batches))).long()
        held_out = HeldOut.of((batches[part] for part in rows.split(BLOCK)), len(rows))
        return cls(held_out, batches.windows.episode_index(rows.numpy()))


def measure(policy: WindowPolicy, real: RealWindows, seed: int = 0) -> dict[str, Any]:
    """Measure the main view, nothing of whose future is visible.

    Returns:
        ``loss`` of the video head, ``psnr`` of the last frame at temperature 0 in dB with that of a copy of the last
        frame seen, each as a mean with an interval over episodes; ``distance``, a Frechet distance of clips at the
        head's own temperature, or None with a reason.
    """
    view, camera = next(iter(policy.module.cameras)), policy.spec.cameras[0]
    head = policy.module.head(view)
    distance, losses, made = FrechetVideoDistance(RandomVideoFeatures()), [], []
    policy.reset(seed)
    count = len(real.episodes)
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
    target = real.held_out.future[camera]
    copied = np.repeat(real.held_out.observation["video"][camera][:, -1:], target.shape[1], axis=1)
    enough = count >= CLIPS
    return {
        "windows": count,
        "episodes": len(np.unique(real.episodes)),
        "loss": _mean(np.concatenate(losses), real.episodes),
        "psnr": _mean(psnr(np.concatenate(made), target), real.episodes),
        "psnr_of_copy": _mean(psnr(copied, target), real.episodes),
        "distance": float(distance.compute()) if enough else None,
        "distance_name": RandomVideoFeatures.title,
        "distance_left_out": "" if enough else f"{count} clips, expected at least {CLIPS}; raise --windows.",
    }


def _rows(real: RealWindows, rows: slice) -> tuple[WindowObservation, Frames]:
    seen, future = real.held_out.observation, real.held_out.future
    part = {kind: {name: values[rows] for name, values in entries.items()} for kind, entries in seen.items()}
    return part, {camera: frames[rows] for camera, frames in future.items()}


def _mean(values: NDArray[np.float64], episodes: NDArray[np.int64]) -> dict[str, Any]:
    _, numbers = np.unique(episodes, return_inverse=True)
    over, under = (np.bincount(numbers, one).astype(np.float64) for one in (values, np.ones_like(values)))
    interval = bootstrap_ratio(over, under)
    return {"value": float(values.mean()), "interval": interval and list(interval)}
