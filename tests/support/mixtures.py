"""Small data sets that differ in everything in which the sets of a mixture may differ."""

import numpy as np

from uva_lightning.datamodules.base import RobotDataModule
from uva_lightning.datamodules.mixture import Mixture
from uva_lightning.datamodules.reading import Encoding
from uva_lightning.datamodules.store import EpisodeStore
from uva_lightning.datamodules.windows import Window
from uva_lightning.types import DataSpec

WINDOW = Window(2)


def recording(seed, lengths, size, cameras, action, states, instructions=None):
    """Random episodes; numbers of one set lie in a range of their own."""
    rng, total = np.random.default_rng(seed), sum(lengths)

    def numbers(width):
        return (rng.normal(seed, 1 + seed, (total, width)) * np.arange(1, width + 1)).astype(np.float32)

    blocks = {camera: rng.integers(0, 256, (total, 6, 6, 3), dtype=np.uint8) for camera in cameras}
    return EpisodeStore(
        {camera: x.repeat(size // 6, axis=1).repeat(size // 6, axis=2) for camera, x in blocks.items()},
        numbers(action) if action else None,
        {name: numbers(width) for name, width in states.items()},
        np.cumsum(lengths),
        instructions,
    )


class Arm(RobotDataModule):
    """Two cameras, five numbers per action, instructions."""

    facts = DataSpec(
        cameras=("front", "wrist"),
        image_size=24,
        action_dim=5,
        state_dims={"eef": 3, "grip": 1},
        rate_hz=20,
        action_meaning="pose, m",
    )

    def read(self):
        sentences = ["lift", "push", "lift", "push"]
        return recording(1, [48] * 4, 24, ("front", "wrist"), 5, {"eef": 3, "grip": 1}, sentences)


class Plane(RobotDataModule):
    """One camera of another size, two numbers per action, one entry of the arm's name."""

    facts = DataSpec(
        cameras=("top",),
        image_size=48,
        action_dim=2,
        state_dims={"eef": 3},
        rate_hz=10,
        action_meaning="target, px",
    )

    def read(self):
        return recording(2, [40, 60, 100], 48, ("top",), 2, {"eef": 3})


class People(RobotDataModule):
    """Pictures alone."""

    facts = DataSpec(cameras=("camera",), image_size=24, action_dim=0, state_dims={}, rate_hz=5)

    def read(self):
        return recording(3, [60, 45], 24, ("camera",), 0, {})


CAMERAS = {"plane": {"top": "front"}, "people": {"camera": "front"}}


def sets(online=True, **windows):
    """The three sets by name."""
    kinds = {"arm": Arm, "plane": Plane, "people": People}
    encoding = Encoding(online=online)
    return {
        name: kind(name, window=windows.get(name, WINDOW), val_ratio=0.3, encoding=encoding)
        for name, kind in kinds.items()
    }


def mixture(online=True, **options):
    """The three as one."""
    defaults = {"batch_size": 12, "cameras": CAMERAS, "image_size": 24}
    return Mixture(sets(online), **{**defaults, **options})
