"""UMI with two hands: a gripper and a camera in each (Chi et al. 2024)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from uva_lightning.datamodules import umi_recordings as umi
from uva_lightning.datamodules.fields import Fields, Range
from uva_lightning.datamodules.transform import WindowTransform
from uva_lightning.datamodules.umi_poses import RelativePoses
from uva_lightning.types import DataSpec

CAMERAS, GRIPPERS = ("camera0", "camera1"), ("robot0_", "robot1_")


class UMIBimanual(umi.UMIRecordings):
    """One task of UMI for two hands: two 224 px wrist cameras, poses of both grippers at 59.94 Hz.

    An action has 20 numbers: position, rotation-6d and width of ``robot0``, then of ``robot1``, each relative to the
    present pose of the same gripper. UVA was not trained on such data. The pose of one gripper relative to the other,
    which UMI's own policy also sees, is not given.
    """

    grippers: ClassVar[tuple[str, ...]] = GRIPPERS
    facts: ClassVar[DataSpec] = umi.facts(CAMERAS, GRIPPERS)
    recorded: ClassVar[DataSpec | None] = umi.recorded(facts, GRIPPERS)
    fields: ClassVar[Mapping[str, Fields]] = umi.fields(CAMERAS, GRIPPERS)
    ranges: ClassVar[Mapping[str, Range]] = umi.ranges(GRIPPERS)
    transform: ClassVar[WindowTransform | None] = RelativePoses(grippers=GRIPPERS)

    def told(self, recording: Path) -> str | None:
        """Say nothing: there is one task."""
        return None
