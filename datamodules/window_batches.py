"""Whole batches of windows by index arithmetic, without a Python loop over samples."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from uva_lightning.datamodules.store import EpisodeStore
from uva_lightning.datamodules.symmetry import Symmetry
from uva_lightning.datamodules.windows import Index, Windows
from uva_lightning.types import Batch

Latents = Mapping[str, Tensor]
"""f16[v, n, s, m] per camera: one entry per variant (as recorded, mirrored) and step."""


@dataclass(frozen=True)
class Variants:
    """Numbers of the dataset as recorded and, where there is a symmetry, mapped by it.

    Args:
        action: f32[v, n, a].
        state: f32[v, n, p] per entry.
    """

    action: Tensor
    state: Mapping[str, Tensor]

    @classmethod
    def of(cls, store: EpisodeStore, symmetry: Symmetry | None) -> Variants:
        """Compute them once, since they are small."""
        action = torch.from_numpy(store.action)
        state = {name: torch.from_numpy(numbers) for name, numbers in store.state.items()}
        if symmetry is None:
            return cls(action[None], {name: numbers[None] for name, numbers in state.items()})
        return cls(
            torch.stack([action, symmetry.action(action)]),
            {name: torch.stack([numbers, symmetry.state(name, numbers)]) for name, numbers in state.items()},
        )


class WindowBatches(Dataset[Batch]):
    """Windows as recorded, then the same windows mirrored where ``symmetry`` is given; indexed by whole batches.

    Args:
        store: Episodes.
        windows: Windows cut from them.
        variants: Actions and states, as recorded and mirrored.
        symmetry: The map of the mirrored half.
        latents: Cached latents, delivered instead of the frames.
    """

    def __init__(
        self,
        store: EpisodeStore,
        windows: Windows,
        variants: Variants,
        symmetry: Symmetry | None = None,
        latents: Latents | None = None,
    ) -> None:
        self.windows, self.variants, self.symmetry, self.latents = windows, variants, symmetry, latents
        self.video = {camera: torch.from_numpy(frames) for camera, frames in store.video.items()}

    def __len__(self) -> int:
        return len(self.windows) * (2 if self.symmetry is not None else 1)

    def __getitem__(self, rows: Tensor) -> Batch:
        """Fetch the samples of i64[b]."""
        variant, window = self._split(rows)
        frames = torch.from_numpy(self.windows.frame_index(window))
        video = {} if self.latents else {name: self._pictures(name, frames, variant) for name in self.video}
        latents = {name: self._cached(values, frames, variant) for name, values in (self.latents or {}).items()}
        return replace(self.numbers(rows), video=video, latents=latents)

    def numbers(self, rows: Tensor | Index) -> Batch:
        """Fetch the samples of i64[b] without their pictures."""
        variant, window = self._split(rows)
        history = torch.from_numpy(self.windows.history_index(window))
        actions = torch.from_numpy(self.windows.action_index(window))
        state = {name: values[variant[:, None], history] for name, values in self.variants.state.items()}
        flags = torch.ones(len(variant), dtype=torch.bool)
        return Batch(
            action=self.variants.action[variant[:, None], actions],
            state=state,
            present={name: flags.clone() for name in ("video", "action", *state)},
        )

    def _split(self, rows: Tensor | Index) -> tuple[Tensor, Index]:
        mirrored, window = np.divmod(np.atleast_1d(np.asarray(rows)), len(self.windows))
        return torch.from_numpy(mirrored), window

    def _pictures(self, camera: str, frames: Tensor, variant: Tensor) -> Tensor:
        pictures = self.video[camera][frames]  # u8[b, 2t, H, W, 3]
        if self.symmetry is not None and (mirrored := variant.bool()).any():
            pictures[mirrored] = self.symmetry.frames(pictures[mirrored])
        return pictures

    @staticmethod
    def _cached(values: Tensor, frames: Tensor, variant: Tensor) -> Tensor:
        rows = variant[:, None] * values.shape[1] + frames
        return values.flatten(0, 1).index_select(0, rows.flatten()).reshape(*rows.shape, *values.shape[2:])
