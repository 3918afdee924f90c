"""Three tasks of UMI at once, told apart by their instructions (UVA section 4)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from uva_lightning.datamodules.fields import Fields, Range
from uva_lightning.datamodules.transform import WindowTransform
from uva_lightning.datamodules.umi import UMI
from uva_lightning.datamodules.umi_recordings import UMIRecordings
from uva_lightning.types import DataSpec

SUFFIXES = (".zarr", ".zarr.zip")


class UMIMulti(UMIRecordings):
    """Cups, towels and mice of UMI: ``path`` is a folder with one recording per task, folder or ``.zarr.zip``.

    See ``UMI`` for what the recordings hold. UVA takes 500 episodes of each task, named by a list
    that was not published; here it is all of them.
    """

    tasks: ClassVar[Mapping[str, str]] = {
        "cup_arrangement_0": "pick up an espresso cup and place it onto a saucer with the cup handle oriented to the "
        "left of the robot",
        "towel_folding_0": "grasp the left edge of the towel and move it to the right, folding it in half",
        "mouse_arrangement_0": "pick up the mouse and place it on the mouse pad",
    }
    """UVA's instruction for each recording, by its name without suffix."""
    grippers: ClassVar[tuple[str, ...]] = UMI.grippers
    facts: ClassVar[DataSpec] = UMI.facts
    recorded: ClassVar[DataSpec | None] = UMI.recorded
    fields: ClassVar[Mapping[str, Fields]] = UMI.fields
    ranges: ClassVar[Mapping[str, Range]] = UMI.ranges
    transform: ClassVar[WindowTransform | None] = UMI.transform

    def recordings(self) -> Sequence[Path]:
        """Name one recording per task, in the order of ``tasks``."""
        return [next((path for path in paths if path.exists()), paths[0]) for paths in map(self._paths, self.tasks)]

    def told(self, recording: Path) -> str | None:
        """Give UVA's sentence of the task."""
        return self.tasks[recording.name.partition(".")[0]]

    def _paths(self, name: str) -> list[Path]:
        return [self.path / f"{name}{suffix}" for suffix in SUFFIXES]
