"""Show what a model can do: a table, a video of rollouts, imagined beside real frames, losses of each objective."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from uva_lightning.callbacks.video_grid import draw_grid
from uva_lightning.metrics.comparison import HeldOut
from uva_lightning.policy.windows import WindowPolicy
from uva_lightning.video_files import side_by_side, write_mp4

PICTURES = 6


def show(
    run: Path,
    out: Path,
    results: Mapping[str, Any],
    policy: WindowPolicy,
    held_out: HeldOut,
    videos: Mapping[int, NDArray[np.uint8]],
) -> None:
    """Print the table and write all pictures of a ``run`` folder into ``out``."""
    write_mp4(out / "rollouts.mp4", side_by_side(list(videos.values())), policy.spec.rate_hz)
    rows = {**film_strips(videos, policy.spec.frames), **imagined_frames(policy, held_out)}
    Image.fromarray(draw_grid(rows)).save(out / "overview.png")
    losses_per_objective(run, out / "losses.png")
    sys.stdout.write(table(results["functions"]))


def table(functions: Mapping[str, Mapping[str, Any]]) -> str:
    """Format one line per function."""
    lines = [f"\n{'function':18} {'value':>8} {'baseline':>9}  {'':4} measure (baseline)"]
    for name, row in functions.items():
        verdict = "ok" if row["beats_baseline"] else "MISS"
        detail = f"{row['measure']} ({row['baseline_name']}; {row['better']} is better)"
        lines.append(f"{name:18} {row['value']:8.3f} {row['baseline']:9.3f}  {verdict:4} {detail}")
    return "\n".join(lines) + "\n"


def film_strips(videos: Mapping[int, NDArray[np.uint8]], frames: int) -> dict[str, NDArray[np.uint8]]:
    """Pick evenly spaced frames of each rollout: u8[n, t, H, W, 3] by name, ``t`` = ``frames``."""
    strips = {}
    for seed, video in videos.items():
        chosen = video[np.linspace(0, len(video) - 1, frames * PICTURES).astype(int)]
        strips[f"start {seed}"] = chosen.reshape(PICTURES, frames, *video.shape[1:])
    return strips


def imagined_frames(policy: WindowPolicy, held_out: HeldOut) -> dict[str, NDArray[np.uint8]]:
    """Show held-out windows, u8[n, t, H, W, 3]: past, real future, video model, dynamics given the true actions."""
    camera, n = policy.spec.cameras[0], len(held_out.action)
    chosen = np.linspace(0, n - 1, PICTURES).astype(int)
    observation = {
        kind: {name: values[chosen] for name, values in entries.items()}
        for kind, entries in held_out.observation.items()
    }
    return {
        "past": observation["video"][camera],
        "real future": held_out.future[camera][chosen],
        "video model": policy.imagine(observation, 0.0)[camera],
        "forward dyn.": policy.predict_next(observation, held_out.action[chosen], 0.0)[camera],
    }


def losses_per_objective(run: Path, path: Path) -> None:
    """Plot every ``train/<objective>/<term>`` of a run's TensorBoard files."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    events = EventAccumulator(str(run), size_guidance={"scalars": 0})
    events.Reload()
    tags = [tag for tag in events.Tags()["scalars"] if tag.startswith("train/") and tag.count("/") == 2]
    figure, axes = pyplot.subplots(figsize=(8, 5))
    for tag in sorted(tag for tag in tags if not tag.endswith("/share")):
        values = events.Scalars(tag)
        smooth = np.array([value.value for value in values])
        window = max(1, len(smooth) // 50)
        smooth = np.convolve(smooth, np.ones(window) / window, mode="valid")
        axes.plot([value.step for value in values][window - 1 :], smooth, label=tag.removeprefix("train/"))
    axes.set(xlabel="step", ylabel="loss", yscale="log")
    axes.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
