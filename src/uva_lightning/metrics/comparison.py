"""Compare functions of a model with the honest baseline beside each, on held-out windows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from uva_lightning.datamodules.base import RobotDataModule
from uva_lightning.metrics.intervals import bootstrap_mean
from uva_lightning.metrics.per_step import ActionError, PerStep
from uva_lightning.metrics.video_quality import PSNR
from uva_lightning.policy.windows import Frames, WindowObservation, WindowPolicy, observed
from uva_lightning.types import Batch

BLOCK = 64
"""Windows that go through the model at a time."""
HIGHER, LOWER = 1.0, -1.0


@dataclass(frozen=True)
class Comparison:
    """One function against its baselines.

    Args:
        measure: What is measured, with its unit.
        value: Per sample, f64[n].
        baselines: Per sample, by name; all on the same samples.
        sign: ``HIGHER`` or ``LOWER`` is better.
        tolerance: Amount by which the mean may be worse and count as no worse, unless the 95 % interval of the paired
            difference lies below zero; None where the function must be better than every baseline with 95 % confidence,
            sample by sample.
        least: Value that the mean must reach, whatever the baselines.
        beside: Per sample, by name, like the baselines, but shown without a verdict.
    """

    measure: str
    value: NDArray[np.float64]
    baselines: Mapping[str, NDArray[np.float64]]
    sign: float = HIGHER
    tolerance: float | None = None
    least: float | None = None
    beside: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)

    def row(self) -> dict[str, Any]:
        """Sum up for ``results.json``; the baseline shown is the strongest one."""
        low, high = bootstrap_mean(self.value)
        strongest = max(self.baselines, key=lambda name: self.sign * self.baselines[name].mean())
        gains = {name: self.sign * (self.value - values) for name, values in self.baselines.items()}
        gain, gain_interval = gains[strongest], bootstrap_mean(gains[strongest])
        return {
            "measure": self.measure,
            "better": "higher" if self.sign > 0 else "lower",
            "value": float(self.value.mean()),
            "interval": [low, high],
            "baseline": float(self.baselines[strongest].mean()),
            "baseline_name": strongest,
            "baselines": {name: float(values.mean()) for name, values in self.baselines.items()},
            "gain": float(gain.mean()),
            "gain_interval": list(gain_interval),
            "beats_baseline": self._beats(gains),
            "beside": {name: self._beside(values) for name, values in self.beside.items()},
            "samples": len(self.value),
        }

    def _beside(self, values: NDArray[np.float64]) -> dict[str, Any]:
        gain = self.sign * (self.value - values)
        return {
            "value": float(values.mean()),
            "gain": float(gain.mean()),
            "gain_interval": list(bootstrap_mean(gain)),
        }

    def _beats(self, gains: Mapping[str, NDArray[np.float64]]) -> bool:
        if self.least is not None and self.value.mean() < self.least:
            return False
        if self.tolerance is not None:
            return all(gain.mean() >= -self.tolerance and bootstrap_mean(gain).high >= 0 for gain in gains.values())
        return all(bootstrap_mean(gain).low > 0 for gain in gains.values())


@dataclass(frozen=True)
class HeldOut:
    """Windows of held-out episodes, as observations with what really came next.

    Args:
        observation: What the model may see.
        future: Real future frames, u8[n, t, H, W, 3] per camera.
        action: Real actions, f32[n, h, a].
        episodes: i64[n], episode of each window; None where that is not known.
    """

    observation: WindowObservation
    future: Frames
    action: NDArray[np.float32]
    episodes: NDArray[np.int64] | None = None

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
        past = [observed(batch) for batch in collected]
        observation = {
            kind: {name: np.concatenate([one[kind][name] for one in past])[keep] for name in entries}
            for kind, entries in past[0].items()
        }
        future = {camera: values[:, frames:] for camera, values in video.items()}
        return cls(observation, future, gather(lambda b: b.action))  # type: ignore[arg-type, return-value]

    @classmethod
    def from_data(cls, source: RobotDataModule, samples: int) -> HeldOut:
        """Take ``samples`` windows, evenly spaced over the held-out episodes; every frame in them is a real one.

        Raises:
            ValueError: There are none, or they have no pictures or no actions.
        """
        source.window, source.generate = replace(source.window, pad=(0, 0)), None  # nothing is made up
        source.setup("validate")
        if source.store.action is None or not source.has_pictures:
            lack = "actions" if source.store.action is None else "pictures"
            raise ValueError(f"{source.path} has no {lack}, expected recordings of a robot; set --data to such.")
        windows = source.held_out().with_frames()
        if not len(windows):
            raise ValueError("There are no held-out windows; raise data.val_ratio.")
        rows = torch.linspace(0, len(windows) - 1, min(samples, len(windows))).long()
        found = cls.of(iter([windows[rows]]), samples)  # only their pictures are read
        return replace(found, episodes=windows.windows.episode_index(rows.numpy()))


def video_functions(policy: WindowPolicy, held_out: HeldOut, seed: int = 0) -> dict[str, Comparison]:
    """Compare video model, forward and inverse dynamics with their baselines.

    Frames are generated at temperature 0, the best guess of the model; actions at the head's own temperature.
    """
    camera = policy.spec.cameras[0]
    policy.reset(seed)
    shuffled = held_out.action[np.random.default_rng(seed).permutation(len(held_out.action))]
    seen, future, action = held_out.observation, held_out.future, held_out.action
    real = future[camera]
    copied = np.repeat(seen["video"][camera][:, -1:], policy.spec.frames, axis=1)
    video = psnr(in_blocks(lambda o: policy.imagine(o, 0.0)[camera], seen), real)
    forward = psnr(in_blocks(lambda o, a: policy.predict_next(o, a, 0.0)[camera], seen, action), real)
    misled = psnr(in_blocks(lambda o, a: policy.predict_next(o, a, 0.0)[camera], seen, shuffled), real)
    explained = action_error(in_blocks(policy.explain, seen, future), action)
    guessed = action_error(in_blocks(policy.act, seen), action)
    measure = f"PSNR of the frame {policy.spec.horizon} steps ahead, dB"
    error = f"mean action error over {policy.spec.horizon} steps, {policy.spec.action_meaning or 'own units'}"
    return {
        "video model": Comparison(measure, video, {"copy of the last frame": psnr(copied, real)}),
        "forward dynamics": Comparison(measure, forward, {"shuffled actions": misled, "video model": video}),
        "inverse dynamics": Comparison(error, explained, {"policy, without the future": guessed}, LOWER),
    }


def in_blocks(call: Callable[..., NDArray[Any]], *trees: Any) -> NDArray[Any]:
    """Call with ``BLOCK`` samples at a time and join the results; trees are arrays or dicts of trees."""

    def part(tree: Any, rows: slice) -> Any:
        return {name: part(value, rows) for name, value in tree.items()} if isinstance(tree, Mapping) else tree[rows]

    def length(tree: Any) -> int:
        return length(next(iter(tree.values()))) if isinstance(tree, Mapping) else len(tree)

    rows = [slice(start, start + BLOCK) for start in range(0, length(trees[0]), BLOCK)]
    return np.concatenate([call(*(part(tree, block) for tree in trees)) for block in rows])


def psnr(frames: NDArray[np.uint8], real: NDArray[np.uint8]) -> NDArray[np.float64]:
    """PSNR in dB of the last frame of u8[n, t, H, W, 3]: f64[n]."""
    return _mean(PSNR(), frames[:, -1:], real[:, -1:])


def action_error(actions: NDArray[np.float32], real: NDArray[np.float32]) -> NDArray[np.float64]:
    """Mean Euclidean distance over the steps of f32[n, h, a]: f64[n]."""
    return _mean(ActionError(), actions, real)


def _mean(metric: PerStep, predicted: NDArray[Any], real: NDArray[Any]) -> NDArray[np.float64]:
    """Average over the steps, sample by sample."""
    metric.update(torch.from_numpy(predicted), torch.from_numpy(real))
    values: NDArray[np.float64] = metric.samples().mean(dim=1).numpy()
    return values
