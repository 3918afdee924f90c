"""Episodes that an arm has recorded, such as rollouts of a policy: from the recordings, or LeRobot made of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import ClassVar

from lightning.pytorch.utilities import rank_zero_info

from uva_lightning.datamodules import lerobot
from uva_lightning.datamodules.arm_recordings import Choice, Recordings
from uva_lightning.datamodules.augment import Augmentation
from uva_lightning.datamodules.base import RobotDataModule
from uva_lightning.datamodules.faults import Faults
from uva_lightning.datamodules.fields import Fields
from uva_lightning.datamodules.instructions import TextEmbedder
from uva_lightning.datamodules.lerobot.meta import Source, is_picture
from uva_lightning.datamodules.lerobot.writing import ACTION as ACTION_FIELD
from uva_lightning.datamodules.lerobot.writing import CAMERA
from uva_lightning.datamodules.reading import Encoding, Reading
from uva_lightning.datamodules.shards.reader import stored_facts
from uva_lightning.datamodules.store import EpisodeStore
from uva_lightning.datamodules.transform import WindowTransform
from uva_lightning.datamodules.umi import UMI
from uva_lightning.datamodules.umi_poses import RECORDED, RelativePoses
from uva_lightning.datamodules.windows import Window
from uva_lightning.types import DataSpec

TOOL = "UMI's frame: z points out of the gripper"
STATES = {name: f"observation.{name}" for name in RECORDED}
"""Names of the state entries in a LeRobot dataset."""


class ArmEpisodes(RobotDataModule):
    """Episodes of an arm as its server records them, in UMI's action space; the pictures stay in their files.

    An action is the pose of the tool that was reached and the opening of the gripper, relative to the present pose, as
    with UMI; so ``window.shift_action`` must be false, and ``Control.shift`` 1 on the arm. The task that was recorded
    is the instruction.

    Args:
        path: Folder of recordings, of a LeRobot dataset that ``uva convert robot_episodes`` made of them, or of shards.
        image_size: Height and width of the pictures for the model; ``reading.fit`` says how they become square.
        cameras: Cameras to use, the first is the main view; all, in the order of their names, if not given.
        choice: Which recordings are used, and at which rate; of a converted dataset it is all.
        batch_size: Windows of a step, over all processes together.
        window: What a window holds.
        val_ratio: Share of the episodes held out, at least one.
        seed: Seed of the split and of the order.
        augment: Changes the pictures of training windows at random.
        text: Turns the instructions into vectors; without it they are not delivered.
        reading: What happens with broken recordings.
        encoding: When frames become latents.

    Raises:
        FileNotFoundError: There is nothing at the path.
        ValueError: It has no such camera, or the window shifts actions.
    """

    facts: ClassVar[DataSpec] = replace(
        UMI.facts,
        cameras=(),
        image_size=0,
        rate_hz=0,
        conventions={**UMI.facts.conventions, "orientation": "as recorded", "tool": TOOL},
    )
    transform: ClassVar[WindowTransform | None] = RelativePoses()

    def __init__(
        self,
        path: str | Path,
        image_size: int = 224,
        cameras: list[str] | None = None,
        choice: Choice | None = None,
        batch_size: int = 64,
        window: Window | None = None,
        val_ratio: float = 0.05,
        seed: int = 42,
        augment: Augmentation | None = None,
        text: TextEmbedder | None = None,
        reading: Reading | None = None,
        encoding: Encoding | None = None,
    ) -> None:
        window = window or Window(shift_action=False)
        if window.shift_action:
            raise ValueError(
                "window.shift_action is true, expected false: an action is the pose that was reached, so the one of "
                "the last frame is that frame's own; set data.window.shift_action=false."
            )
        if image_size < 1:
            raise ValueError(f"image_size is {image_size}, expected pixels, such as 224; set data.image_size.")
        self.choice = choice or Choice()
        recordings: Recordings | None = None
        stored = stored_facts(str(path), reading)
        if stored is not None:
            known, rate_hz = stored.cameras, stored.rate_hz
        elif lerobot.matches(Path(path)):
            known, rate_hz = _converted(Source(Path(path)))
        else:
            recordings = Recordings(Path(path), self.choice, Faults((reading or Reading()).on_error))
            known, rate_hz = recordings.cameras, recordings.rate_hz
        if unknown := sorted(set(cameras or ()) - set(known)):
            raise ValueError(f"data.cameras names {', '.join(unknown)}, but {path} has {', '.join(known)}; correct it.")
        facts = replace(type(self).facts, cameras=tuple(cameras or known), image_size=image_size, rate_hz=rate_hz)
        self.facts = facts  # type: ignore[misc]  # of the data, not of the class
        self.recorded = recorded(facts)  # type: ignore[misc]
        super().__init__(
            path, batch_size, window, val_ratio, seed, None, augment, text, reading=reading, encoding=encoding
        )
        self._recordings = recordings
        if recordings is not None:
            self.faults = recordings.faults

    def read(self) -> EpisodeStore:
        """Read the recordings, or the dataset made of them."""
        if lerobot.matches(self.path):
            fields = fields_for(self.spec.cameras)
            return lerobot.read(self.path, fields, recorded(self.facts), self.faults)
        recordings = self._recordings or Recordings(self.path, self.choice, self.faults)
        self._recordings = None  # they are read anew where they are asked for again: there may be more by then
        rank_zero_info(f"{self.path}: {recordings.told()}.")
        return recordings.store(self.spec.cameras)


def recorded(facts: DataSpec) -> DataSpec:
    """Give what is recorded, of which relative poses are made."""
    conventions = {
        "action": "tool pose that was reached at the step, in the frame of the base: position in m, rotation vector in "
        "rad; opening of the gripper in m",
        "tool": TOOL,
    }
    return replace(
        facts,
        action_dim=7,
        state_dims=RECORDED,
        action_meaning="x, y, z, rx, ry, rz, opening",
        conventions=conventions,
    )


def _converted(source: Source) -> tuple[tuple[str, ...], float]:
    """Give cameras and rate of a LeRobot dataset of such episodes."""
    fields_for(()).require(source.features, source.path)
    films = sorted(key for key, feature in source.features.items() if is_picture(feature))
    return tuple(key.removeprefix(CAMERA) for key in films), source.rate_hz


def fields_for(cameras: tuple[str, ...]) -> Fields:
    """Name the features of a LeRobot dataset of such episodes."""
    return Fields({camera: f"{CAMERA}{camera}" for camera in cameras}, ACTION_FIELD, STATES)
