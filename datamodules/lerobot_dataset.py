"""Any LeRobot dataset, v2.x or v3.0: its facts are taken from its own ``meta/info.json``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

from uva_lightning.datamodules.augment import Augmentation
from uva_lightning.datamodules.base import RobotDataModule
from uva_lightning.datamodules.fields import Fields
from uva_lightning.datamodules.instructions import TextEmbedder
from uva_lightning.datamodules.lerobot.meta import Feature, Source, is_picture, width
from uva_lightning.datamodules.lerobot.reading import read
from uva_lightning.datamodules.reading import Encoding, Reading
from uva_lightning.datamodules.shards.reader import stored_facts
from uva_lightning.datamodules.store import EpisodeStore
from uva_lightning.datamodules.windows import Window
from uva_lightning.types import DataSpec

ACTION, OBSERVATION = "action", "observation."
PREFIXES = ("observation.images.", OBSERVATION)
NUMBERS = ("float", "int", "uint", "bool")
NO_ACTION: Feature = {"shape": [1], "names": ["none recorded"]}
RESERVED = {"video", "action", "text"}
"""Names of modalities that every model has."""


class LeRobot(RobotDataModule):
    """A LeRobot dataset as it was recorded; pictures stay in their files and become square when they are read.

    A camera is called as its feature without ``observation.images.``, and a state entry without ``observation.``: the
    cameras of a common arm are ``top`` and ``wrist``, its state is ``state``. The task of an episode is
    its instruction.

    Args:
        path: Folder of the dataset, or of shards made of it.
        image_size: Height and width of the pictures for the model; ``reading.fit`` says how they become square.
        cameras: Cameras to use, the first is the main view; all, in the order of their names, if not given.
        states: State entries to use; all if not given.
        batch_size: Windows of a step, over all processes together.
        window: What a window holds.
        val_ratio: Share of the episodes held out, at least one.
        seed: Seed of the split and of the order.
        augment: Changes the pictures of training windows at random.
        text: Turns the instructions into vectors; without it they are not delivered.
        reading: Which episodes are read, by their ``episode_index``, and what happens with broken ones.
        encoding: When frames become latents.

    Raises:
        FileNotFoundError: There is no LeRobot dataset at the path.
        ValueError: It has no such camera, or no camera at all.
    """

    facts: ClassVar[DataSpec] = DataSpec(cameras=(), image_size=0, action_dim=0, state_dims={}, rate_hz=0)
    reads_chosen: ClassVar[bool] = True

    def __init__(
        self,
        path: str | Path,
        image_size: int = 256,
        cameras: list[str] | None = None,
        states: list[str] | None = None,
        batch_size: int = 64,
        window: Window | None = None,
        val_ratio: float = 0.02,
        seed: int = 42,
        augment: Augmentation | None = None,
        text: TextEmbedder | None = None,
        reading: Reading | None = None,
        encoding: Encoding | None = None,
    ) -> None:
        if image_size < 1:
            raise ValueError(f"image_size is {image_size}, expected pixels, such as 224; set data.image_size.")
        stored = stored_facts(str(path), reading)
        if stored is None:
            source = Source(Path(path))
            self.features = _fields(source, cameras, states)
            facts = _facts(source, self.features, image_size)
        else:
            shown = tuple(cameras or stored.cameras)
            kept = {name: width for name, width in stored.state_dims.items() if states is None or name in states}
            facts = replace(stored, cameras=shown, state_dims=kept, image_size=image_size)
        self.facts = facts  # type: ignore[misc]  # of the data, not of the class
        super().__init__(
            path, batch_size, window, val_ratio, seed, None, augment, text, reading=reading, encoding=encoding
        )

    def read(self) -> EpisodeStore:
        """Read the wanted episodes from ``path``."""
        chosen = self.reading.chosen(Source(self.path).total)
        return read(self.path, self.features.only(self.spec.cameras), self.facts, self.faults, chosen)


def _fields(source: Source, cameras: Sequence[str] | None, states: Sequence[str] | None) -> Fields:
    """Name the cameras and the state entries."""
    pictures = {_short(key): key for key, feature in sorted(source.features.items()) if is_picture(feature)}
    pictures = {(f"{name}_camera" if name in RESERVED else name): key for name, key in pictures.items()}
    if not pictures:
        raise ValueError(f"{source.path} has no camera, only {', '.join(source.features)}; expected a video or image.")
    numbers = {
        _short(key): key
        for key, feature in sorted(source.features.items())
        if key.startswith(OBSERVATION) and _is_numeric(feature)
    }
    numbers = {(f"{name}_numbers" if name in {*pictures, *RESERVED} else name): key for name, key in numbers.items()}
    action = ACTION if ACTION in source.features else ""
    return Fields(_chosen(pictures, cameras, "cameras", source), action, _chosen(numbers, states, "states", source))


def _facts(source: Source, fields: Fields, image_size: int) -> DataSpec:
    action = source.features.get(fields.action, NO_ACTION)
    return DataSpec(
        cameras=tuple(fields.video),
        image_size=image_size,
        action_dim=width(action),
        state_dims={name: width(source.features[key]) for name, key in fields.state.items()},
        rate_hz=source.rate_hz,
        action_meaning=source.action_meaning or ", ".join(_names(action)) or "as recorded, in the recorder's units",
        conventions={
            "recorded as": f"LeRobot {source.version}, robot {source.robot}",
            "cameras": ", ".join(f"{name} = {key}" for name, key in fields.video.items()),
        },
    )


def _chosen(known: Mapping[str, str], wanted: Sequence[str] | None, what: str, source: Source) -> dict[str, str]:
    """Pick entries by their short or by their full names."""
    if wanted is None:
        return dict(known)
    by_any = {**{key: name for name, key in known.items()}, **{name: name for name in known}}
    if unknown := [name for name in wanted if name not in by_any]:
        raise ValueError(
            f"data.{what} names {', '.join(unknown)}, but {source.path} has {', '.join(known) or 'none'}; correct it."
        )
    return {by_any[name]: known[by_any[name]] for name in wanted}


def _short(key: str) -> str:
    """Cut what all features share, and dots, which cannot be in the name of a module."""
    prefix = next((prefix for prefix in PREFIXES if key.startswith(prefix)), "")
    return key.removeprefix(prefix).replace(".", "_")


def _is_numeric(feature: Feature) -> bool:
    return str(feature.get("dtype")).startswith(NUMBERS)


def _names(feature: Feature) -> list[str]:
    """Give the names of the numbers, which lie in a list or in a mapping with one."""
    names = feature.get("names")
    if isinstance(names, Mapping):
        names = [name for part in names.values() for name in (part if isinstance(part, list) else [part])]
    return [str(name) for name in names] if isinstance(names, list) else []
