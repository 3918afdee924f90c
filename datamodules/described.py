"""Recordings that the config describes: facts and names of the fields as options, no code."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import ClassVar

from uva_lightning.datamodules.base import RobotDataModule
from uva_lightning.datamodules.fields import Fields
from uva_lightning.datamodules.layouts import read_episodes
from uva_lightning.datamodules.reading import Encoding, Reading
from uva_lightning.datamodules.store import EpisodeStore
from uva_lightning.datamodules.windows import Window
from uva_lightning.types import DataSpec


class Described(RobotDataModule):
    """A dataset whose facts stand in the config, so that a model can be built before its data is there.

    Args:
        path: Where the data lies; read when training starts.
        spec: Facts of the data.
        fields: Names of the fields for each layout in which the data may lie: demos, hdf5, lerobot, replay_buffer.
        batch_size: Windows of a step, over all processes together.
        window: What a window holds; the numbers that the facts have come from them.
        val_ratio: Share of the episodes held out, at least one.
        seed: Seed of the split and of the order.
        reading: Which episodes are read, and what happens with broken ones.
        encoding: When frames become latents.
    """

    facts: ClassVar[DataSpec] = DataSpec(cameras=(), image_size=0, action_dim=0, state_dims={}, rate_hz=0)

    def __init__(
        self,
        path: str | Path,
        spec: DataSpec,
        fields: dict[str, Fields],
        batch_size: int = 64,
        window: Window | None = None,
        val_ratio: float = 0.02,
        seed: int = 42,
        reading: Reading | None = None,
        encoding: Encoding | None = None,
    ) -> None:
        super().__init__(
            path,
            batch_size,
            window=replace(
                window or Window(),
                frames=spec.frames,
                horizon=spec.horizon,
                state_steps=spec.state_steps,
                past_action=spec.past_action,
            ),
            val_ratio=val_ratio,
            seed=seed,
            reading=reading,
            encoding=encoding,
        )
        self.spec, self._fields = spec, fields

    def read(self) -> EpisodeStore:
        """Read all episodes from ``path``, in whichever layout they lie."""
        return read_episodes(self.path, self._fields, self.spec, self.faults)
