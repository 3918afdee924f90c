"""Random changes of pictures in training, the same for all frames of a window and on whatever device they lie."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Generator, Tensor

from uva_lightning.datamodules.picture_changes import PictureChange
from uva_lightning.datamodules.rows import Rows

PICTURES = 16
"""Tells the draws of the first camera from others of the same batch; each further camera has the next number."""
SAMPLES = 8
"""Windows changed at a time: more only take more memory."""


class Augmentation:
    """Changes made one after another, each with its own probability.

    What happens to a window is drawn once, from the seed, the number of the batch and the place in the whole batch of
    all processes: it depends neither on the number of processes nor on the device, a resumed run repeats it, and the
    global generators are left alone. All frames of a camera's window are changed alike; each camera has draws of its
    own, as it has its own lens and place.

    Pictures are computed in single precision and rounded to whole numbers once, at the end.

    Args:
        changes: In this order.

    Raises:
        ValueError: There are none.
    """

    def __init__(self, changes: Sequence[PictureChange]) -> None:
        if not changes:
            raise ValueError("data.augment has no changes, expected at least one; leave data.augment out for none.")
        self.changes = tuple(changes)
        self.draws = sum(1 + change.draws for change in self.changes)

    def __call__(self, video: Tensor, rows: Rows, camera: int) -> Tensor:
        """Change the windows of a training batch.

        Args:
            video: u8[b, 2t, H, W, 3], RGB, on any device. Read only.
            rows: Where the batch stands in the run.
            camera: Number of the camera.

        Returns:
            u8[b, 2t, H, W, 3].
        """
        return self._changed(video, rows.uniform(PICTURES + camera, self.draws))

    def episode(self, video: Tensor, seed: int, episode: int, variant: int, camera: int = 0) -> Tensor:
        """Change the frames of an episode alike, for latents that are computed once.

        A long episode may come in blocks: the draw follows from the numbers only.

        Args:
            video: u8[n, H, W, 3], RGB. Read only.
            seed: Seed of the data.
            episode: Number of the episode.
            variant: Number of the variant, from 1 on; 0 is the episode as recorded, which this does not give.
            camera: Number of the camera.

        Returns:
            u8[n, H, W, 3].
        """
        if variant < 1:
            raise ValueError(f"The variant is {variant}, expected at least 1: variant 0 is the episode as recorded.")
        word = np.random.SeedSequence((seed, episode, variant, PICTURES + camera)).generate_state(1)[0]
        draws = torch.rand(1, self.draws, generator=Generator().manual_seed(int(word)))
        return self._changed(video[None], draws)[0]

    def identity(self) -> str:
        """Name what variants of pictures follow from besides the seed, for the name of a cache."""
        return "; ".join(repr(change) for change in self.changes)

    def _changed(self, video: Tensor, draws: Tensor) -> Tensor:
        """Change u8[b, t, H, W, 3] by f32[b, d] on the CPU."""
        parts = zip(video.split(SAMPLES), draws.split(SAMPLES), strict=True)
        return torch.cat([self._some(windows, drawn) for windows, drawn in parts]) if len(video) else video

    def _some(self, video: Tensor, draws: Tensor) -> Tensor:
        pictures = video.movedim(-1, -3).float().div_(255).contiguous()  # f32[b, t, 3, H, W]
        for change in self.changes:
            happens, drawn, draws = draws.tensor_split([1, 1 + change.draws], dim=1)
            rows = (happens[:, 0] < change.probability).nonzero()[:, 0]
            if len(rows):
                place = rows.to(video.device)
                pictures[place] = change(pictures[place], drawn[rows])
        return pictures.mul_(255).round_().clamp_(0, 255).byte().movedim(-3, -1).contiguous()
