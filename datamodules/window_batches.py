"""Whole batches of windows by index arithmetic, without a Python loop over samples."""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor
from torch.utils.data import Dataset

from uva_lightning.datamodules.faults import Broken, Faults
from uva_lightning.datamodules.latents import Latents
from uva_lightning.datamodules.picture_variants import PictureVariants
from uva_lightning.datamodules.rows import Rows
from uva_lightning.datamodules.store import EpisodeStore
from uva_lightning.datamodules.symmetry import Symmetry
from uva_lightning.datamodules.transform import WindowTransform
from uva_lightning.datamodules.varied_history import VariedHistory
from uva_lightning.datamodules.windows import Index, Windows
from uva_lightning.types import Batch


@dataclass(frozen=True)
class Variants:
    """Numbers of the dataset as recorded and, where there is a symmetry, mapped by it.

    Args:
        action: f32[v, n, a]; None where there are no actions.
        state: f32[v, n, p] per entry.
    """

    action: Tensor | None
    state: Mapping[str, Tensor]

    @classmethod
    def of(cls, store: EpisodeStore, symmetry: Symmetry | None) -> Variants:
        """Compute them once, since they are small."""
        action = None if store.action is None else torch.from_numpy(store.action)[None]
        state = {name: torch.from_numpy(numbers) for name, numbers in store.state.items()}
        if symmetry is None:
            return cls(action, {name: numbers[None] for name, numbers in state.items()})
        return cls(
            None if action is None else torch.cat([action, symmetry.action(action)]),
            {name: torch.stack([numbers, symmetry.state(name, numbers)]) for name, numbers in state.items()},
        )


class Extras(NamedTuple):
    """What a data set may have beyond episodes and windows.

    Args:
        symmetry: Map of the mirrored half.
        latents: Latents of each camera, delivered instead of the frames.
        text: f32[e, w], a vector per episode.
        transform: Applied to the numbers of every batch.
        varied: Draws the history frames of training batches.
        past_action: Whether past actions are delivered.
        faults: Says whether a window whose pictures are broken is replaced by another.
        encoded: What the latents are of.
    """

    symmetry: Symmetry | None = None
    latents: Mapping[str, Latents] | None = None
    text: Tensor | None = None
    transform: WindowTransform | None = None
    varied: VariedHistory | None = None
    past_action: bool = False
    faults: Faults | None = None
    encoded: PictureVariants = PictureVariants()


class WindowBatches(Dataset[Batch]):
    """Windows as recorded, then the same windows mirrored where there is a symmetry; indexed by whole batches.

    Args:
        store: Episodes.
        windows: Windows cut from them.
        variants: Actions and states, as recorded and mirrored.
        extras: What else there is.
    """

    def __init__(self, store: EpisodeStore, windows: Windows, variants: Variants, extras: Extras | None = None) -> None:
        self.windows, self.variants, self.extras = windows, variants, extras or Extras()
        self.store = store
        self.broken: set[str] = set()

    def __len__(self) -> int:
        return len(self.windows) * (2 if self.extras.symmetry is not None else 1)

    def __getitem__(self, rows: Tensor | Rows) -> Batch:
        """Fetch samples; nothing is random where only their numbers, i64[b], are given.

        Raises:
            Broken: Pictures cannot be read, and broken episodes are not skipped.
        """
        try:
            return self._fetch(rows)
        except Broken:
            if self.extras.faults is None or not self.extras.faults.skips:
                raise
            return self._fetch(self._whole(rows))

    def _fetch(self, rows: Tensor | Rows) -> Batch:
        variant, window = self._split(rows)
        frames = torch.from_numpy(self.windows.frame_index(window, self._history(rows)))
        latents = self.extras.latents or {}
        encoded = self.extras.encoded.choose(variant, rows if isinstance(rows, Rows) else None)
        return replace(
            self.numbers(rows),
            video={} if latents else {name: self._pictures(name, frames, variant) for name in self.store.video},
            latents={name: values.read(encoded[:, None], frames) for name, values in latents.items()},
        )

    def _whole(self, rows: Tensor | Rows) -> Tensor | Rows:
        """Put the next window whose pictures can be read in the place of each that has broken ones."""
        index = (rows.windows if isinstance(rows, Rows) else rows).clone()
        for place, sample in enumerate(index.tolist()):
            for other in range(sample, sample + len(self)):
                index[place] = other % len(self)
                fault = self._fault(replace(rows, windows=index) if isinstance(rows, Rows) else index, place)
                if fault is None:
                    break
                self.broken.add(str(fault))
            else:
                raise Broken(f"None of {len(self)} windows has pictures that can be read; check the data set.")
        rank_zero_warn(
            f"{len(self.broken)} faults so far; windows with broken pictures are replaced by others: {min(self.broken)}"
        )
        return replace(rows, windows=index) if isinstance(rows, Rows) else index

    def _fault(self, rows: Tensor | Rows, place: int) -> Broken | None:
        """Try to read the pictures, or the latents, of one sample."""
        variant, window = self._split(rows)
        steps = self.windows.frame_index(window, self._history(rows))[place]
        try:
            encoded = self.extras.encoded.choose(variant, rows if isinstance(rows, Rows) else None)
            for values in (self.extras.latents or {}).values():
                values.read(encoded[place : place + 1, None], torch.from_numpy(steps)[None])
            for frames in () if self.extras.latents else self.store.video.values():
                frames[steps]
        except Broken as fault:
            return fault
        return None

    def by_set(self) -> dict[str | None, WindowBatches]:
        """Give the windows of each data set; these are of one, which needs no name."""
        return {None: self}

    def with_frames(self) -> WindowBatches:
        """Give the same windows with pictures, even where latents are cached."""
        other = copy(self)
        other.extras = self.extras._replace(latents=None)
        return other

    def numbers(self, rows: Tensor | Index | Rows) -> Batch:
        """Fetch samples without their pictures."""
        variant, window = self._split(rows)
        states = self.windows.state_index(window, self._history(rows))
        text = self.extras.text
        batch = Batch(
            action=self._action(variant, self.windows.action_index(window)),
            past_action=self._past_action(variant, window),
            state={name: self._at(values, variant, states) for name, values in self.variants.state.items()},
            future_state={
                name: self._at(values, variant, self.windows.future_index(window))
                for name, values in self.variants.state.items()
            },
            text=None if text is None else text[torch.from_numpy(self.windows.episode_index(window))],
        )
        if self.extras.transform is not None:
            batch = self.extras.transform(batch, rows if isinstance(rows, Rows) else None)
        return replace(batch, present=self._present(batch, len(variant)))

    def _present(self, batch: Batch, samples: int) -> dict[str, Tensor]:
        """All samples of a data set have the same; the main view goes by the name of its modality."""
        _, *cameras = self.store.video
        optional = {"action": batch.action, "past_action": batch.past_action, "text": batch.text}
        given = [name for name, value in optional.items() if value is not None]
        names = ("video", *cameras, *batch.state, *given)
        return {name: torch.ones(samples, dtype=torch.bool) for name in names}

    def _past_action(self, variant: Tensor, window: Index) -> Tensor | None:
        return self._action(variant, self.windows.past_action_index(window)) if self.extras.past_action else None

    def _action(self, variant: Tensor, steps: Index) -> Tensor | None:
        return None if self.variants.action is None else self._at(self.variants.action, variant, steps)

    def _history(self, rows: Tensor | Index | Rows) -> Index | None:
        varied = self.extras.varied
        return varied(rows).numpy() if varied is not None and isinstance(rows, Rows) else None

    def _split(self, rows: Tensor | Index | Rows) -> tuple[Tensor, Index]:
        index = rows.windows if isinstance(rows, Rows) else rows
        mirrored, window = np.divmod(np.atleast_1d(np.asarray(index)), len(self.windows))
        return torch.from_numpy(mirrored), window

    def _pictures(self, camera: str, frames: Tensor, variant: Tensor) -> Tensor:
        source = self.store.video[camera]
        pictures = torch.from_numpy(source[frames.flatten().numpy()]).unflatten(0, frames.shape)  # u8[b, 2t, H, W, 3]
        if self.extras.symmetry is not None and (mirrored := variant.bool()).any():
            pictures[mirrored] = self.extras.symmetry.frames(pictures[mirrored])
        return pictures

    @staticmethod
    def _at(values: Tensor, variant: Tensor, steps: Index) -> Tensor:
        return values[variant[:, None], torch.from_numpy(steps)]
