"""Latents that were computed before training: what reads them, and how each episode is encoded."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from uva_lightning.datamodules.picture_variants import PictureVariants
from uva_lightning.datamodules.store import EpisodeStore

Encode = Callable[[Tensor], Tensor]
"""u8[n, H, W, 3] to moments [n, s, m], on any device."""

BLOCK = 64
"""Frames encoded at a time. Always the same, counted from the begin of the episode, as rounding may depend on it."""


class Latents(Protocol):
    """Moments f16[v, n, s, m] of the frames of a camera, one entry per variant (see ``PictureVariants``) and step."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Variants, steps, tokens of a frame and numbers of a token."""

    def read(self, variant: Tensor, steps: Tensor) -> Tensor:
        """Read the frames of windows.

        Args:
            variant: i64[b, 1].
            steps: i64[b, k], in any order and also repeatedly.

        Returns:
            f16[b, k, s, m].

        Raises:
            Broken: They cannot be read.
        """


class LatentsInMemory:
    """Latents in one tensor.

    Args:
        values: f16[v, n, s, m].
    """

    def __init__(self, values: Tensor) -> None:
        self.values, self.shape = values, tuple(values.shape)

    def read(self, variant: Tensor, steps: Tensor) -> Tensor:
        """See ``Latents``."""
        rows = variant * self.shape[1] + steps
        return self.values.flatten(0, 1).index_select(0, rows.flatten()).reshape(*rows.shape, *self.shape[2:])


def encode_episode(
    store: EpisodeStore,
    episode: int,
    camera: str,
    variants: PictureVariants,
    encode: Encode,
    tick: Callable[[int], object],
) -> Tensor:
    """Encode all variants of an episode's frames, in blocks that are read once.

    Args:
        store: Episodes with pictures.
        episode: Its number.
        camera: Its name.
        variants: What is encoded of each frame.
        encode: Makes moments of pictures.
        tick: Told how many frames are done.

    Returns:
        f16[v, l, s, m].

    Raises:
        Broken: The pictures cannot be read.
        ValueError: A latent is not finite in half precision.
    """
    begin, end, number = int(store.begins[episode]), int(store.ends[episode]), list(store.video).index(camera)
    blocks = []
    for first in range(begin, end, BLOCK):
        steps = slice(first, min(first + BLOCK, end))
        recorded = torch.from_numpy(store.video[camera][steps])
        codes = []
        for variant in range(len(variants)):
            pictures = variants.make(variant, recorded, steps, store, number)
            with torch.inference_mode():
                codes.append(encode(pictures).to("cpu", torch.float16))
            tick(len(pictures))
        blocks.append(torch.stack(codes))
        if not torch.isfinite(blocks[-1]).all():
            raise ValueError(
                f"Latents of camera '{camera}' leave the range of half precision in {store.name(episode)}, frames "
                f"{first - begin} to {steps.stop - begin - 1}, expected finite numbers; check the tokenizer's weights."
            )
    return torch.cat(blocks, dim=1)
