"""Data that a test makes, without a fault, and a datamodule for them."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from uva_lightning.commands.check_data import examine
from uva_lightning.datamodules.base import RobotDataModule
from uva_lightning.datamodules.faults import Broken
from uva_lightning.datamodules.frames import LazyFrames
from uva_lightning.datamodules.store import EpisodeStore
from uva_lightning.datamodules.windows import Window
from uva_lightning.types import DataSpec

SIZE, LENGTHS = 32, (60, 50, 70, 55)
ENDS = np.cumsum(LENGTHS)
STEPS = int(ENDS[-1])


class Made(RobotDataModule):
    """Data that a test makes: one camera, a position and a quaternion."""

    facts: ClassVar[DataSpec] = DataSpec(("front",), SIZE, 3, {"eef": 7}, 10.0, action_meaning="position, m")
    made: ClassVar[EpisodeStore]

    def read(self) -> EpisodeStore:
        return self.made


class Cut(LazyFrames):
    """A film that ends early."""

    def __init__(self, pictures, end):
        super().__init__(pictures.shape)
        self.pictures, self.end = pictures, end

    def _read(self, steps):
        if len(steps) and steps.max() >= self.end:
            raise Broken(f"arm.mp4 lacks the frames from step {self.end} on; copy it again.")
        return self.pictures[steps]


def pictures(position):
    """Draw a square that moves with the robot over a scene with a light ceiling and a thing on the left."""
    scene = np.full((SIZE, SIZE, 3), 60, np.uint8)
    scene[:8], scene[14:24, 2:7] = (200, 210, 220), (220, 40, 30)
    video = np.repeat(scene[None], len(position), axis=0)
    for picture, (x, y) in zip(video, position[:, :2], strict=True):
        column, row = int(10 + 16 * x), int(10 + 16 * y)
        picture[row : row + 5, column : column + 5] = (30, 90, 240)
    return video


def sound_store():
    """Make a store without a fault: the robot goes round and round, and turns."""
    time, rng = np.arange(STEPS), np.random.default_rng(0)
    phase = 0.21 * time + np.repeat([0, 1, 2, 3], LENGTHS)
    place = np.stack([0.5 + 0.45 * np.cos(phase), 0.5 + 0.45 * np.sin(phase), 0.1 * np.sin(phase / 3)], axis=1)
    turn = np.stack([np.cos(phase / 9), np.sin(phase / 9), 0 * phase, 0 * phase], axis=1)
    action = place + rng.normal(0, 0.01, place.shape)
    return EpisodeStore(
        {"front": pictures(place)},
        action.astype(np.float32),
        {"eef": np.concatenate([place, turn], axis=1).astype(np.float32)},
        ENDS,
    )


def examined(store, path, reference=None, every=1, facts=None, **options):
    """Examine a store and give the findings by title."""

    class Given(Made):
        made = store

    Given.facts = facts or Made.facts
    data = Given(path, **{"window": Window(2), "val_ratio": 0.3, **options})
    return dict(examine(data, reference, every, show_progress=False))


def bad(findings):
    return {title: finding for title, finding in findings.items() if finding.level in ("warn", "FAIL")}


def only(findings, title, level="FAIL"):
    """Give the finding, which must be the only alarm."""
    assert set(bad(findings)) == {title}
    assert findings[title].level == level
    assert findings[title].fix
    return findings[title]
