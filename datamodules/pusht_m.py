"""Push-T-M: Push-T with a goal that lies elsewhere in every episode (UVA section 4)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from uva_lightning.datamodules.base import RobotDataModule
from uva_lightning.datamodules.fields import Fields, Range
from uva_lightning.datamodules.layouts import read_episodes
from uva_lightning.datamodules.pusht import PushT
from uva_lightning.datamodules.store import EpisodeStore
from uva_lightning.types import DataSpec


class PushTM(RobotDataModule):
    """Push-T-M: as Push-T, but the goal is seen in the picture only; ``uva demos pusht_m`` records it.

    Mirroring would be exact here too, but ``PushTMirror`` maps goals on the line x + y = 512 only.
    """

    facts: ClassVar[DataSpec] = PushT.facts
    fields: ClassVar[Mapping[str, Fields]] = PushT.fields
    ranges: ClassVar[Mapping[str, Range]] = PushT.ranges

    def read(self) -> EpisodeStore:
        """Read all episodes from ``path``, in whichever layout they lie."""
        return read_episodes(self.path, self.fields, self.spec, self.faults)
