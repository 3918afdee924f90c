"""UMI: manipulation recorded with a hand-held gripper and its camera (Chi et al. 2024; UVA section 4)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from uva_lightning.datamodules import umi_recordings as umi
from uva_lightning.datamodules.fields import Fields, Range
from uva_lightning.datamodules.transform import WindowTransform
from uva_lightning.datamodules.umi_poses import RelativePoses
from uva_lightning.types import DataSpec

CAMERAS, GRIPPERS = ("camera0",), ("",)


class UMI(umi.UMIRecordings):
    """One task of UMI: a 224 px wrist camera, poses of the gripper at 59.94 Hz; set ``window.every`` to 3, as UVA.

    An action is the pose that was reached, so ``window.shift_action`` must be false. Two-handed data are
    ``UMIBimanual``.
    """

    grippers: ClassVar[tuple[str, ...]] = GRIPPERS
    facts: ClassVar[DataSpec] = umi.facts(CAMERAS, GRIPPERS)
    recorded: ClassVar[DataSpec | None] = umi.recorded(facts, GRIPPERS)
    fields: ClassVar[Mapping[str, Fields]] = umi.fields(CAMERAS, GRIPPERS)
    ranges: ClassVar[Mapping[str, Range]] = umi.ranges(GRIPPERS)
    transform: ClassVar[WindowTransform | None] = RelativePoses()

    def told(self, recording: Path) -> str | None:
        """Say nothing: there is one task."""
        return None
