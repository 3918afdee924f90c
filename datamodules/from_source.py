"""Train from an ``EpisodeSource``: data of any kind, described and read by a class of yours."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from uva_lightning.datamodules.augment import Augmentation
from uva_lightning.datamodules.base import RobotDataModule
from uva_lightning.datamodules.instructions import TextEmbedder
from uva_lightning.datamodules.reading import Encoding, Reading
from uva_lightning.datamodules.source import EpisodeSource, assemble
from uva_lightning.datamodules.store import EpisodeStore
from uva_lightning.datamodules.symmetry import Symmetry
from uva_lightning.datamodules.windows import Window
from uva_lightning.types import DataSpec


class FromSource(RobotDataModule):
    """Windows of the episodes that a source gives.

    Args:
        source: Says what the episodes hold, and gives them.
        batch_size: Windows of a step, over all processes together.
        window: What a window holds.
        val_ratio: Share of the episodes held out, at least one.
        seed: Seed of the split and of the order.
        symmetry: Adds every training window mapped by it.
        augment: Changes pictures at random.
        text: Turns the instructions into vectors; without it they are not delivered.
        reading: Which episodes are read, and what happens with broken ones.
        encoding: When frames become latents.
    """

    facts: ClassVar[DataSpec] = DataSpec(cameras=(), image_size=0, action_dim=0, state_dims={}, rate_hz=0)

    def __init__(
        self,
        source: EpisodeSource,
        batch_size: int = 64,
        window: Window | None = None,
        val_ratio: float = 0.02,
        seed: int = 42,
        symmetry: Symmetry | None = None,
        augment: Augmentation | None = None,
        text: TextEmbedder | None = None,
        reading: Reading | None = None,
        encoding: Encoding | None = None,
    ) -> None:
        facts = getattr(source, "facts", None)
        if not isinstance(facts, DataSpec) or not facts.cameras:
            raise ValueError(
                f"The facts of {type(source).__name__} are {facts}, expected a DataSpec with at least one camera; add "
                "it as an attribute of the class."
            )
        self.facts = facts  # type: ignore[misc]  # a fact of the source, not of this class
        path = Path(type(source).__name__)
        super().__init__(path, batch_size, window, val_ratio, seed, symmetry, augment, text, reading, encoding)
        self.source = source

    def read(self) -> EpisodeStore:
        """Take all episodes of the source."""
        return assemble(self.source, self.faults, self.reading.fit)
