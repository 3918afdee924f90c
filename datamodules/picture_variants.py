"""Which pictures are encoded of each frame before training: as recorded, mirrored, and under draws of augmentation."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from uva_lightning.datamodules.augment import Augmentation
from uva_lightning.datamodules.rows import Rows
from uva_lightning.datamodules.store import EpisodeStore
from uva_lightning.datamodules.symmetry import Symmetry

CHOICE = 3
"""Tells the choice of a variant from other draws of the same batch."""


@dataclass(frozen=True)
class PictureVariants:
    """Variants of a frame, numbered ``mirrored * (1 + drawn) + draw``; draw 0 is without augmentation.

    Args:
        symmetry: Gives the mirrored half.
        augment: Changes pictures, all frames of an episode alike.
        drawn: Draws of ``augment``.
        seed: Seed of the draws.
    """

    symmetry: Symmetry | None = None
    augment: Augmentation | None = None
    drawn: int = 0
    seed: int = 0

    def __len__(self) -> int:
        return (1 + self.drawn) * (1 if self.symmetry is None else 2)

    def make(self, variant: int, frames: Tensor, steps: slice, store: EpisodeStore, camera: int) -> Tensor:
        """Make a variant of some frames.

        Args:
            variant: Its number.
            frames: u8[n, H, W, 3] as recorded.
            steps: Where they lie in the store.
            store: Says where episodes end.
            camera: Number of the camera.

        Returns:
            u8[n, H, W, 3].
        """
        mirrored, draw = divmod(variant, 1 + self.drawn)
        if mirrored and self.symmetry is not None:
            frames = self.symmetry.frames(frames)
        if not draw or self.augment is None:
            return frames
        episodes = np.searchsorted(store.ends, np.arange(steps.start, steps.stop), side="right")
        numbers, counts = np.unique(episodes, return_counts=True)
        parts = zip(numbers.tolist(), frames.split(counts.tolist()), strict=True)
        place = mirrored * self.drawn + draw
        return torch.cat([self.augment.episode(part, self.seed, number, place, camera) for number, part in parts])

    def choose(self, mirrored: Tensor, rows: Rows | None) -> Tensor:
        """Choose the variant that each sample shows, the same for all its frames and cameras.

        In training it is one of the draws, so that the share of windows that an augmentation leaves alone is the same
        as without a cache; in evaluation it is the frame as recorded.

        Args:
            mirrored: i64[b], 1 for samples of the mirrored half.
            rows: Source of the choice; None in evaluation.

        Returns:
            i64[b].
        """
        none = torch.zeros_like(mirrored)
        draw = none if rows is None or not self.drawn else 1 + (rows.uniform(CHOICE) * self.drawn).long()
        return mirrored * (1 + self.drawn) + draw

    def facts(self) -> dict[str, str | int | None]:
        """Say what the variants follow from, each for itself."""
        drawn = self.augment is not None and self.drawn > 0
        return {
            "symmetry": None if self.symmetry is None else type(self.symmetry).__qualname__,
            "augment": self.augment.identity() if self.augment is not None and drawn else None,
            "drawn": self.drawn if drawn else 0,
            "seed": self.seed if drawn else None,
        }

    def identity(self) -> str:
        """Name what the variants follow from besides the frames."""
        drawn = "" if self.augment is None else f"{self.drawn} {self.seed} {self.augment.identity()}"
        return f"{type(self.symmetry).__qualname__}{drawn}"
