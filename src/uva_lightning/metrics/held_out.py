"""What a model foresees, explains and decides on held-out windows, step by step, beside what really came next."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from uva_lightning.metrics.comparison import HeldOut, in_blocks
from uva_lightning.metrics.fvd import CLIP, FrechetVideoDistance, VideoFeatures
from uva_lightning.metrics.per_step import ActionError, PerStep
from uva_lightning.metrics.pose_error import PositionError, RotationError, grippers
from uva_lightning.metrics.video_quality import LPIPS, PSNR, SSIM
from uva_lightning.policy.windows import WindowPolicy

COPY = "copy of the last frame"
OFFICIAL_CLIPS = 16
"""Clips that UVA's code takes: up to four each of the first four batches."""
AT_ONCE = 8
"""Clips that go through the features at a time: 77 MB as they see them."""

Answer = Callable[[], NDArray[Any]]


def measure(
    policy: WindowPolicy,
    windows: HeldOut,
    features: Sequence[VideoFeatures],
    lpips: Path | None = None,
    rounds: int = 1,
    seed: int = 0,
) -> dict[str, Any]:
    """Measure frames, clips and actions of a model.

    PSNR, SSIM and LPIPS are of frames at temperature 0, the best guess; clips for Fréchet distances, and actions, are
    sampled at the heads' own temperature. A function that the model does not have is left out, with the reason.

    Args:
        policy: Trained model.
        windows: What is given and what came next.
        features: Each gives a Fréchet distance.
        lpips: Network for LPIPS, see there; without it there is none.
        rounds: Rounds of generation, as UVA's "steps": the paper has 1 and 8.
        seed: Of the noise.

    Returns:
        ``windows``, ``camera``, ``video``, ``frechet``, ``actions`` and ``left_out``; every number with its ``n``.
    """
    camera, seen, action = policy.spec.cameras[0], windows.observation, windows.action
    real, left_out = windows.future[camera], dict[str, str]()
    policy.reset(seed)
    given = (seen, action)
    frames = _answers(
        {
            COPY: lambda: np.repeat(seen["video"][camera][:, -1:], policy.spec.frames, axis=1),
            "video model": lambda: in_blocks(lambda o: policy.imagine(o, 0.0, rounds)[camera], seen),
            "forward dynamics": lambda: in_blocks(lambda o, a: policy.predict_next(o, a, 0.0, rounds)[camera], *given),
        },
        left_out,
    )
    clips = {COPY: frames[COPY]} | _answers(
        {"video model": lambda: in_blocks(lambda o: policy.imagine(o, None, rounds)[camera], seen)}, left_out
    )
    decided = _answers(
        {
            "robot policy": lambda: in_blocks(policy.act, seen),
            "inverse dynamics": lambda: in_blocks(policy.explain, seen, windows.future),
        },
        left_out,
    )
    quality = {"psnr": PSNR, "ssim": SSIM} | ({} if lpips is None else {"lpips": lambda: LPIPS(lpips)})
    count = grippers(policy.spec)
    poses = {"position": lambda: PositionError(count), "rotation": lambda: RotationError(count)} if count else {}
    errors = {"l2": ActionError, "l1": lambda: ActionError(order=1), **poses}
    return {
        "windows": len(action),
        "camera": camera,
        "rounds": rounds,
        "action_meaning": policy.spec.action_meaning,
        "video": {who: _steps(quality, made, real) for who, made in frames.items()},
        "frechet": _frechet(features, clips, real, left_out),
        "actions": {who: _steps(errors, made, action) for who, made in decided.items()},
        "left_out": left_out,
    }


def _answers(asked: Mapping[str, Answer], left_out: dict[str, str]) -> dict[str, NDArray[Any]]:
    """Ask every function, and note why one does not answer."""
    found = {}
    for who, ask in asked.items():
        try:
            found[who] = ask()
        except ValueError as error:  # it has no such head, or was not trained to do this
            left_out[who] = str(error)
    return found


def _steps(
    metrics: Mapping[str, Callable[[], PerStep]], made: NDArray[Any], real: NDArray[Any]
) -> dict[str, dict[str, Any]]:
    found = {}
    for name, make in metrics.items():
        metric = make()
        for rows in _blocks(len(made)):
            metric.update(torch.from_numpy(made[rows]), torch.from_numpy(real[rows]))
        found[name] = {"title": metric.title, **metric.compute()}
    return found


def _frechet(
    features: Sequence[VideoFeatures], clips: Mapping[str, NDArray[np.uint8]], real: NDArray[np.uint8], left_out: Any
) -> dict[str, dict[str, list[dict[str, Any]]]]:
    """Measure the distance of all clips, and of as many as UVA's code takes."""
    frames, count = real.shape[1], len(real)
    if CLIP % frames or count < 2:
        left_out["Fréchet distance"] = f"It needs a divisor of {CLIP} frames and 2 clips, and has {frames} and {count}."
        return {}
    found: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for one in features:
        for who, made in clips.items():
            for some in sorted({count, min(OFFICIAL_CLIPS, count)}, reverse=True):
                metric = FrechetVideoDistance(one)
                for rows in _blocks(some):
                    metric.update(torch.from_numpy(made[rows]), torch.from_numpy(real[rows]))
                row = {"n": some, "distance": float(metric.compute())}
                found.setdefault(one.title, {}).setdefault(who, []).append(row)
    return found


def _blocks(count: int) -> list[slice]:
    return [slice(first, min(first + AT_ONCE, count)) for first in range(0, count, AT_ONCE)]
