"""What a folder of shards holds: ``index.json``, written last, so that a folder that has it is whole."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import PurePath
from typing import Any, NamedTuple

FORMAT = "uva_lightning shards 1"
INDEX, NUMBERS, TOKENIZER = "index.json", "numbers.safetensors", "tokenizer.safetensors"
PLAN = "plan.json"
"""Only while shards are being written: what they follow from."""


class Member(NamedTuple):
    """A file in a tar: first byte, bytes, and CRC-32 of its content."""

    offset: int
    size: int
    crc: int


@dataclass(frozen=True)
class Episode:
    """An episode of a shard.

    Args:
        number: Its number in the source.
        length: Its steps.
        name: Where it lay in the source.
        instruction: What the robot is told.
        members: Its files in the tar, by what stands behind the key.
    """

    number: int
    length: int
    name: str | None
    instruction: str | None
    members: Mapping[str, Member]

    @property
    def label(self) -> str:
        """Say which episode this is, for people."""
        return f"episode {self.number}" if self.name is None else f"episode {self.number} ({self.name})"


@dataclass(frozen=True)
class Shard:
    """A tar file.

    Args:
        name: Of the file.
        size: In bytes.
        hash: BLAKE2b of the file.
        episodes: In the order of the source.
    """

    name: str
    size: int
    hash: str
    episodes: tuple[Episode, ...]

    @classmethod
    def of(cls, content: Mapping[str, Any]) -> Shard:
        """Read what ``asdict`` wrote to JSON."""
        episodes = tuple(
            Episode(**{**episode, "members": {name: Member(*at) for name, at in episode["members"].items()}})
            for episode in content["episodes"]
        )
        return cls(content["name"], content["size"], content["hash"], episodes)


@dataclass(frozen=True)
class Origin:
    """What shards follow from; two with equal origins have equal content.

    Args:
        kind: ``latents`` or ``pictures``.
        data: Class of the source, and its facts.
        source: Hash of the source.
        variants: What was encoded of each frame, see ``PictureVariants.facts``; empty for pictures.
        tokenizer: Class, fingerprint and shape of the moments [s, m]; None for pictures.
        text: Class and width of what embedded the instructions.
        shard_mb: Size that shards may have, by which episodes are spread over them.
    """

    kind: str
    data: Mapping[str, Any]
    source: str
    variants: Mapping[str, Any]
    tokenizer: Mapping[str, Any] | None
    text: Mapping[str, Any] | None
    shard_mb: float

    @property
    def moments(self) -> tuple[int, int]:
        """Tokens of a frame and numbers of a token."""
        tokens, numbers = (self.tokenizer or {"moments": (0, 0)})["moments"]
        return int(tokens), int(numbers)

    @property
    def drawn(self) -> int:
        """Augmented variants of every frame, besides that without augmentation."""
        return int(self.variants.get("drawn", 0))

    @property
    def count(self) -> int:
        """Variants of every frame."""
        return (1 if self.variants.get("symmetry") is None else 2) * (1 + self.drawn)


@dataclass(frozen=True)
class Index:
    """All about a folder of shards.

    Args:
        origin: What they follow from.
        files: Size and hash of the files beside the shards.
        shards: The tar files.
    """

    origin: Origin
    files: Mapping[str, tuple[int, str]]
    shards: tuple[Shard, ...]

    def dump(self) -> str:
        """Write as JSON."""
        return json.dumps({"format": FORMAT, **asdict(self)}, sort_keys=True) + "\n"

    @classmethod
    def load(cls, text: str, where: str) -> Index:
        """Read JSON.

        Raises:
            ValueError: It is damaged, or of another format.
        """
        try:
            content: dict[str, Any] = json.loads(text)
            found = content.get("format")
            if found == FORMAT:
                files = {name: (int(size), str(sum_)) for name, (size, sum_) in content["files"].items()}
                shards = tuple(Shard.of(shard) for shard in content["shards"])
                _refuse_paths([*files, *(shard.name for shard in shards)])
                return cls(Origin(**content["origin"]), files, shards)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ValueError(
                f"{where}/{INDEX} is damaged ({type(error).__name__}: {error}), expected the index of shards; make the "
                "shards again."
            ) from error
        raise ValueError(f"{where}/{INDEX} has the format '{found}', expected '{FORMAT}'; make the shards again.")


def _refuse_paths(names: Sequence[str]) -> None:
    """Take plain names only: what is fetched is written under them."""
    if wrong := [name for name in names if name != PurePath(name).name]:
        raise ValueError(f"'{wrong[0]}' is no plain file name")
