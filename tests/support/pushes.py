"""Random episodes like Push-T's, each told to do one of two things."""

from __future__ import annotations

import numpy as np

from uva_lightning.datamodules.from_source import FromSource
from uva_lightning.datamodules.instructions import RandomInstructions
from uva_lightning.datamodules.pusht import PushT
from uva_lightning.datamodules.source import Episode, EpisodeSource
from uva_lightning.datamodules.windows import Window


class Pushes(EpisodeSource):
    """Four episodes of 40 steps."""

    facts = PushT.facts

    def episodes(self):
        """Draw them."""
        rng = np.random.default_rng(0)
        for number in range(4):
            frames = rng.integers(0, 256, (40, 96, 96, 3), dtype=np.uint8)
            places = rng.uniform(100, 400, (40, 2)).astype(np.float32)
            words = ("push the T", "pull the T")[number % 2]
            yield Episode({"top": frames}, places, {"agent": places}, instruction=words, name=f"take {number}")


def talking():
    """Give data with instructions."""
    return FromSource(Pushes(), batch_size=8, window=Window(2), val_ratio=0.3, text=RandomInstructions())
