"""Read UMI's recordings: what one-handed, two-handed and several tasks at once have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from uva_lightning.datamodules.augment import Augmentation
from uva_lightning.datamodules.base import RobotDataModule
from uva_lightning.datamodules.fields import Fields, Range
from uva_lightning.datamodules.frames import Frames
from uva_lightning.datamodules.generate import EpisodeMaker
from uva_lightning.datamodules.inpainting import Painted, Polygon
from uva_lightning.datamodules.instructions import TextEmbedder
from uva_lightning.datamodules.layouts import read_episodes
from uva_lightning.datamodules.reading import Encoding, Reading
from uva_lightning.datamodules.store import EpisodeStore, hash_of
from uva_lightning.datamodules.symmetry import Symmetry
from uva_lightning.datamodules.umi_poses import ACTION, RECORDED, RECORDED_ACTION, SEEN
from uva_lightning.datamodules.windows import Window
from uva_lightning.types import DataSpec


class UMIRecordings(RobotDataModule, ABC):
    """UMI's replay buffers, folder or ``.zarr.zip``, in JPEG XL; larger ones are read window by window.

    Args:
        path: A recording, or a folder of several.
        batch_size: Windows of a step, over all processes together.
        window: What a window holds; ``every`` is 3 and ``shift_action`` false with UVA.
        val_ratio: Share of the episodes held out, at least one.
        seed: Seed of the split and of the order.
        symmetry: Adds every training window mapped by it.
        augment: Changes pictures at random.
        text: Turns the instructions into vectors; without it they are not delivered.
        reading: Which episodes are read, and what happens with broken ones.
        encoding: When frames become latents.
        generate: Writes the data first where ``path`` has none.
        mirrors: Polygons to paint black, by the name of the recording without suffix, each a list of corners [x, y]
            from 0 to 1 of the picture. UVA's ``mask_mirror`` does so with the mirrors at the sides of the camera, in
            the cup data only. Where they lie depends on the camera and its lens, so there is no default.
    """

    grippers: ClassVar[tuple[str, ...]]
    """How the names of each gripper's entries begin."""

    def __init__(
        self,
        path: str | Path,
        batch_size: int = 64,
        window: Window | None = None,
        val_ratio: float = 0.05,
        seed: int = 42,
        symmetry: Symmetry | None = None,
        augment: Augmentation | None = None,
        text: TextEmbedder | None = None,
        reading: Reading | None = None,
        encoding: Encoding | None = None,
        generate: EpisodeMaker | None = None,
        mirrors: dict[str, list[Polygon]] | None = None,
    ) -> None:
        super().__init__(
            path, batch_size, window, val_ratio, seed, symmetry, augment, text, reading, encoding, generate
        )
        self.mirrors = mirrors or {}
        names = [_name(recording) for recording in self.recordings()]
        if unknown := sorted(set(self.mirrors) - set(names)):
            raise ValueError(
                f"data.mirrors names the recording '{unknown[0]}', expected one of {', '.join(names)}; rename it."
            )

    @abstractmethod
    def told(self, recording: Path) -> str | None:
        """Say what the robot is told in a recording; None where it is told nothing."""

    @property
    def changed_pictures(self) -> Mapping[str, Any]:
        """See the base class."""
        return {**super().changed_pictures, "mirrors": self.mirrors}

    def read(self) -> EpisodeStore:
        """Read all recordings, one after another; actions are the poses that were reached and the widths."""
        return EpisodeStore.joined([self._recording(recording) for recording in self.recordings()])

    def _recording(self, path: Path) -> EpisodeStore:
        spec, told, polygons = self.recorded or self.facts, self.told(path), self.mirrors.get(_name(path))
        store = read_episodes(path, self.fields, replace(spec, cameras=self.spec.cameras), self.faults)
        parts = [store.state[f"{gripper}{entry}"] for gripper in self.grippers for entry in RECORDED_ACTION]
        if polygons:
            painted: dict[str, Frames] = {name: Painted(frames, polygons) for name, frames in store.video.items()}
            # the files alone do not tell what is seen: latents of other polygons must not be taken for these
            known = None if store.identity is None else f"{store.identity}-{hash_of(polygons)}"
            store = replace(store, video=painted, identity=known)
        return replace(
            store,
            action=np.concatenate(parts, axis=1),
            instructions=None if told is None else [told] * store.episodes,
        )


def facts(cameras: Sequence[str], grippers: Sequence[str]) -> DataSpec:
    """Give what a model sees of so many cameras and grippers."""
    return DataSpec(
        cameras=tuple(cameras),
        image_size=224,
        action_dim=ACTION * len(grippers),
        state_dims={f"{gripper}{name}": width for gripper in grippers for name, width in SEEN.items()},
        rate_hz=59.94,
        action_meaning="pose relative to the present one: position in m, rotation-6d; width of the gripper in m",
        conventions={
            "orientation": "as stored, the fisheye view of the gripper's camera",
            "rotation": "rotation-6d, first two rows of the matrix",
            "poses": "relative to the present pose; eef_rot_wrt_start to that at the begin of the episode",
        },
    )


def recorded(seen: DataSpec, grippers: Sequence[str]) -> DataSpec:
    """Give what is recorded of so many grippers."""
    states = {f"{gripper}{name}": width for gripper in grippers for name, width in RECORDED.items()}
    return replace(seen, action_dim=7 * len(grippers), state_dims=states)


def fields(cameras: Sequence[str], grippers: Sequence[str]) -> dict[str, Fields]:
    """Name the fields on disk; gripper ``i`` is ``robot<i>`` there."""
    state = {
        f"{gripper}{entry}": f"robot{number}_{field}"
        for number, gripper in enumerate(grippers)
        for entry, field in (
            ("eef_pos", "eef_pos"),
            ("eef_axis_angle", "eef_rot_axis_angle"),
            ("gripper_width", "gripper_width"),
            ("start_pose", "demo_start_pose"),
        )
    }
    # No field holds the actions: the poses are the actions, and are joined when they have been read.
    return {"replay_buffer": Fields({name: f"{name}_rgb" for name in cameras}, "robot0_eef_pos", state)}


def ranges(grippers: Sequence[str]) -> dict[str, Range]:
    """Say what the numbers look like."""
    looks = {
        "eef_pos": Range(-0.3, 0.3),
        "gripper_width": Range(0.0, 0.09),
        "demo_start_pose": Range(-0.3, 0.3, constant=True),
    }
    return {f"robot{number}_{name}": look for number in range(len(grippers)) for name, look in looks.items()}


def _name(recording: Path) -> str:
    return recording.name.partition(".")[0]
