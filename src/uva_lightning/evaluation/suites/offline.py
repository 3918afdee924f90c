"""Held-out windows alone: video quality, inverse dynamics and action errors (UVA, sections 4.4 and 4.6)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from uva_lightning.evaluation.suite import Scenario, Suite


class OfflineSuite(Suite):
    """What a checkpoint foresees, explains and decides on held-out windows of its data; nothing is played."""

    name = "offline"
    held_out: ClassVar[bool] = True

    def scenarios(self) -> Sequence[Scenario]:
        """See the base class."""
        return []
