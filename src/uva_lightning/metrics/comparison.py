"""Compare functions of a model with the honest baseline beside each, on held-out windows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchmetrics.functional.image import peak_signal_noise_ratio

from uva_lightning.metrics.intervals import bootstrap_mean
from uva_lightning.policy.policy import Frames, Observation, UVAPolicy
from uva_lightning.types import Batch

PIXEL_RANGE = 255.0
HIGHER, LOWER = 1.0, -1.0


@dataclass(frozen=True)
class Comparison:
    """One function against its baselines.

    Args:
        measure: What is measured, with its unit.
        value: Per sample, f64[n].
        baselines: Per sample, by name; all on the same samples.
        sign: ``HIGHER`` or ``LOWER`` is better.
        ties_count: No worse is enough.
    """

    measure: str
    value: NDArray[np.float64]
    baselines: Mapping[str, NDArray[np.float64]]
    sign: float = HIGHER
    ties_count: bool = False

    def row(self) -> dict[str, Any]:
        """Sum up for ``results.json``; the baseline shown is the strongest one."""
        low, high = bootstrap_mean(self.value)
        strongest = max(self.baselines, key=lambda name: self.sign * self.baselines[name].mean())
        gain = self.sign * (self.value - self.baselines[strongest])
        gain_low, gain_high = bootstrap_mean(gain)
        return {
            "measure": self.measure,
            "better": "higher" if self.sign > 0 else "lower",
            "value": float(self.value.mean()),
            "interval": [low, high],
            "baseline": float(self.baselines[strongest].mean()),
            "baseline_name": strongest,
            "baselines": {name: float(values.mean()) for name, values in self.baselines.items()},
            "gain": float(gain.mean()),
            "gain_interval": [gain_low, gain_high],
            "beats_baseline": bool(gain.mean() > 0 or (self.ties_count and gain.mean() >= 0)),
            "samples": len(self.value),
        }


@dataclass(frozen=True)
class HeldOut:
    """Windows of held-out episodes, as observations with what really came next.

    Args:
        observation: What the model may see.
        future: Real future frames, u8[n, t, H, W, 3] per camera.
        action: Real actions, f32[n, h, a].
    """

    observation: Observation
    future: Frames
    action: NDArray[np.float32]

    @classmethod
    def of(cls, batches: Iterator[Batch], samples: int) -> HeldOut:
        """Take ``samples`` windows, evenly spaced over all batches."""
        collected = list(batches)
        total = sum(len(batch) for batch in collected)
        if total == 0:
            raise ValueError("There are no held-out windows; raise data.val_ratio.")
        keep = torch.linspace(0, total - 1, min(samples, total)).long()

        def gather(pick: Callable[[Batch], Tensor]) -> NDArray[Any]:
            values: NDArray[Any] = torch.cat([pick(batch) for batch in collected])[keep].numpy()
            return values

        video = {camera: gather(lambda b, c=camera: b.video[c]) for camera in collected[0].video}  # type: ignore[misc]
        frames = next(iter(video.values())).shape[1] // 2
        state = {name: gather(lambda b, n=name: b.state[n]) for name in collected[0].state}  # type: ignore[misc]
        past = {camera: values[:, :frames] for camera, values in video.items()}
        future = {camera: values[:, frames:] for camera, values in video.items()}
        return cls({"video": past, "state": state}, future, gather(lambda b: b.action))  # type: ignore[arg-type, return-value]


def video_functions(policy: UVAPolicy, held_out: HeldOut, seed: int = 0) -> dict[str, Comparison]:
    """Compare video model, forward and inverse dynamics with their baselines.

    Frames are generated at temperature 0, the best guess of the model; actions at the head's own temperature.
    """
    camera = policy.spec.cameras[0]
    policy.reset(seed)
    others = np.random.default_rng(seed).permutation(len(held_out.action))
    copied = np.repeat(held_out.observation["video"][camera][:, -1:], policy.spec.frames, axis=1)
    video = psnr(policy.imagine(held_out.observation, 0.0)[camera], held_out.future[camera])
    forward = policy.predict_next(held_out.observation, held_out.action, 0.0)[camera]
    shuffled = policy.predict_next(held_out.observation, held_out.action[others], 0.0)[camera]
    measure = f"PSNR of the frame {policy.spec.horizon} steps ahead, dB"
    return {
        "video model": Comparison(measure, video, {"copy of the last frame": psnr(copied, held_out.future[camera])}),
        "forward dynamics": Comparison(
            measure,
            psnr(forward, held_out.future[camera]),
            {"shuffled actions": psnr(shuffled, held_out.future[camera]), "video model": video},
        ),
        "inverse dynamics": Comparison(
            f"mean action error over {policy.spec.horizon} steps, {policy.spec.action_meaning or 'own units'}",
            action_error(policy.explain(held_out.observation, held_out.future), held_out.action),
            {"policy, without the future": action_error(policy.act(held_out.observation), held_out.action)},
            LOWER,
        ),
    }


def psnr(frames: NDArray[np.uint8], real: NDArray[np.uint8]) -> NDArray[np.float64]:
    """PSNR in dB of the last frame of u8[n, t, H, W, 3]: f64[n]."""
    generated, target = (torch.from_numpy(x[:, -1]).float() for x in (frames, real))
    values = peak_signal_noise_ratio(generated, target, PIXEL_RANGE, reduction="none", dim=(1, 2, 3))
    result: NDArray[np.float64] = values.double().numpy()
    return result


def action_error(actions: NDArray[np.float32], real: NDArray[np.float32]) -> NDArray[np.float64]:
    """Mean Euclidean distance over the steps of f32[n, h, a]: f64[n]."""
    error: NDArray[np.float64] = np.linalg.norm(actions - real, axis=-1).mean(axis=-1).astype(np.float64)
    return error
