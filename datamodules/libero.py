"""What all data of LIBERO share: pictures from bottom to top, instructions, and frames that follow their action."""

from __future__ import annotations

from abc import ABC
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from uva_lightning.datamodules import hdf5
from uva_lightning.datamodules.augment import Augmentation
from uva_lightning.datamodules.base import RobotDataModule
from uva_lightning.datamodules.fields import Fields
from uva_lightning.datamodules.generate import EpisodeMaker
from uva_lightning.datamodules.instructions import TextEmbedder
from uva_lightning.datamodules.layouts import read_episodes
from uva_lightning.datamodules.osc_actions import OscActions, following
from uva_lightning.datamodules.pictures import Flipped
from uva_lightning.datamodules.reading import Encoding, Reading
from uva_lightning.datamodules.store import EpisodeStore
from uva_lightning.datamodules.symmetry import Symmetry
from uva_lightning.datamodules.windows import Window

ALIGNMENT = {
    "as_stored": "frame j shows what action j has led to, as LIBERO stores it and UVA trains on it",
    "shifted": "frame j is what is seen before action j",
}
SENTENCES = {"file_name": hdf5.FILE_NAME, "problem_info": hdf5.PROBLEM_INFO}


@dataclass(frozen=True)
class LiberoFiles:
    """How LIBERO's files are understood; the defaults are UVA's.

    Args:
        instruction: ``file_name`` without ``_demo.hdf5``, which begins with the scene, as UVA's checkpoints know it, or
            the sentence in the attribute ``problem_info``. For HDF5.
        alignment: LIBERO stores the picture after an action beside it: ``as_stored`` keeps that, ``shifted`` gives each
            picture the next action, so that pictures precede their action as in all other data.
        check_actions: Refuse actions whose numbers are not of the expected kind. For HDF5.
    """

    instruction: Literal["file_name", "problem_info"] = "file_name"
    alignment: Literal["as_stored", "shifted"] = "as_stored"
    check_actions: bool = True

    def __post_init__(self) -> None:
        for name, known in (("instruction", SENTENCES), ("alignment", ALIGNMENT)):
            if getattr(self, name) not in known:
                raise ValueError(
                    f"{name} is '{getattr(self, name)}', expected {' or '.join(known)}; set data.files.{name}."
                )


class LiberoData(RobotDataModule, ABC):
    """Recordings of LIBERO; a subclass says what their actions are.

    Pictures are stored upside down, as OpenGL draws them, and are turned upright here, once; they must not be turned
    again.

    Args:
        path: HDF5 file, folder of them, or replay buffer.
        batch_size: Windows of a step, over all processes together.
        window: What a window holds; UVA's if not given.
        val_ratio: Share of the episodes held out, at least one.
        seed: Seed of the split and of the order.
        symmetry: Adds every training window mapped by it.
        augment: Changes the pictures of training windows at random.
        text: Turns the instructions into vectors; without it they are not delivered.
        reading: Which episodes are read, and what happens with broken ones.
        encoding: When frames become latents; all before training, kept in memory, if not given.
        generate: Writes the data first where ``path`` has none.
        files: How the files are understood, UVA's way if not given.
    """

    def __init__(
        self,
        path: str | Path,
        batch_size: int = 64,
        window: Window | None = None,
        val_ratio: float = 0.02,
        seed: int = 42,
        symmetry: Symmetry | None = None,
        augment: Augmentation | None = None,
        text: TextEmbedder | None = None,
        reading: Reading | None = None,
        encoding: Encoding | None = None,
        generate: EpisodeMaker | None = None,
        files: LiberoFiles | None = None,
    ) -> None:
        super().__init__(
            path, batch_size, window, val_ratio, seed, symmetry, augment, text, reading, encoding, generate
        )
        self.files = files or LiberoFiles()
        conventions = {**self.spec.conventions, "alignment": ALIGNMENT[self.files.alignment]}
        self.spec = replace(self.spec, conventions=conventions)

    def read(self) -> EpisodeStore:
        """Read all episodes from ``path``, and what the robot is told where ``text`` needs it.

        Raises:
            ValueError: Actions of an HDF5 file are of another kind than this data set's.
        """
        names = {layout: self._wanted(fields) for layout, fields in self.fields.items()}
        store = read_episodes(self.path, names, self.spec, self.faults)
        if not hdf5.matches(self.path):  # that reader turns pictures itself: a file may say that it is upright
            store = replace(store, video={camera: Flipped(frames) for camera, frames in store.video.items()})
        return following(store) if self.files.alignment == "shifted" else store

    def _wanted(self, fields: Fields) -> Fields:
        if self.text is None:
            fields = replace(fields, instructions=None)
        if not isinstance(fields, hdf5.DemoFields):
            return fields
        rule = fields.actions
        if isinstance(rule, OscActions):
            rule = replace(rule, checked=self.files.check_actions)
        told = fields.instructions and SENTENCES[self.files.instruction]
        return replace(fields, instructions=told, actions=rule)
