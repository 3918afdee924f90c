"""Observations of Push-T, one by one and as the windows of training."""

from __future__ import annotations

import numpy as np

STEPS = 24


def episode(seed=0, steps=STEPS):
    """One observation per control step."""
    rng = np.random.default_rng(seed)
    frames = rng.integers(0, 256, (steps, 96, 96, 3), dtype=np.uint8)
    agent = rng.uniform(0, 512, (steps, 2)).astype(np.float32)
    return [{"video": {"top": frame}, "state": {"agent": state}} for frame, state in zip(frames, agent, strict=True)]


def together(*observations):
    return {
        "video": {"top": np.stack([one["video"]["top"] for one in observations])},
        "state": {"agent": np.stack([one["state"]["agent"] for one in observations])},
    }


def window(seen, now, offsets=(-8, 0), **more):
    """The same history as the training data would show it."""
    steps = [max(0, now + offset) for offset in offsets]
    return {
        "video": {"top": np.stack([seen[step]["video"]["top"] for step in steps])[None]},
        "state": {"agent": np.stack([seen[step]["state"]["agent"] for step in steps])[None]},
        **more,
    }


def numbered(seen, step, **more):
    return {**seen[step], "step": step, **more}
