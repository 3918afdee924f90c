"""How a data set is read and encoded: options that all datamodules share."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import gcd
from pathlib import Path

from uva_lightning.datamodules.faults import OnError
from uva_lightning.datamodules.pictures import Fit

LANES = 64


@dataclass(frozen=True)
class Streaming:
    """How shards are read one after another, so that each process needs a small part of them at a time.

    Args:
        lanes: Places at which an epoch is read at once, see ``Sharded``; the largest common divisor of the batch size
            and 64 if not given.
        buffer: Windows among which each lane shuffles.
        folder: Keeps what is fetched from a remote location; ``uva_shards-UID`` in the folder for temporary files if
            not given.
        budget_gb: Disk space that it may take, besides transfers under way; what was not used for longest goes first.
        ahead: Blocks of ``buffer`` windows of each lane that are fetched before they are needed.
        retries: Times that a failed transfer is tried again, each after twice the pause of the one before.
        pause: The first pause, in seconds.
    """

    lanes: int | None = None
    buffer: int = 1024
    folder: Path | None = None
    budget_gb: float = 100.0
    ahead: int = 1
    retries: int = 5
    pause: float = 1.0

    def __post_init__(self) -> None:
        for name, value, least in (("ahead", self.ahead, 0), ("retries", self.retries, 0), ("pause", self.pause, 0)):
            if value < least:
                raise ValueError(f"streaming.{name} is {value}, expected {least} or more; set data.reading.streaming.")
        if self.budget_gb <= 0:
            raise ValueError(f"streaming.budget_gb is {self.budget_gb}, expected more than 0; set it to GB of disk.")

    def lanes_for(self, batch_size: int) -> int:
        """Give the number of lanes for a batch size."""
        return self.lanes or gcd(batch_size, LANES)


@dataclass(frozen=True)
class Reading:
    """How episodes are read.

    Args:
        episodes: Use the first so many episodes only, or those with these numbers.
        workers: Processes that fetch batches; 0 is fastest from cached latents.
        on_error: ``stop`` at an episode that cannot be read, or ``skip`` it and say how many were.
        fit: How pictures of another size become square: ``crop`` the middle, ``pad`` with black, or ``stretch``.
        streaming: Read shards one after another; remote ones are read so in any case.
    """

    episodes: int | list[int] | None = None
    workers: int = 0
    on_error: OnError = "stop"
    fit: Fit = "crop"
    streaming: Streaming | None = None

    def __post_init__(self) -> None:
        count = self.episodes if isinstance(self.episodes, int) else len(self.episodes or (0, 1))
        if count < 2:
            raise ValueError(
                f"reading.episodes is {self.episodes}, expected at least 2: one trains, one validates; "
                "set data.reading.episodes."
            )

        if isinstance(self.episodes, list) and len(set(self.episodes)) < len(self.episodes):
            raise ValueError(
                f"reading.episodes is {self.episodes}, expected each episode once: one that trains must not validate; "
                "set data.reading.episodes."
            )

    def chosen(self, episodes: int) -> list[int] | None:
        """Name the episodes to take from so many, None for all."""
        if isinstance(self.episodes, int):
            return list(range(self.episodes)) if self.episodes < episodes else None
        return self.episodes


@dataclass(frozen=True)
class Encoding:
    """When frames become latents.

    Args:
        cache_dir: Folder that keeps the latents of all frames for later runs; in memory only if not given.
        online: Encode the frames of each batch in the step that uses them, instead of all of them before training.
            With ``augment`` and no variants this is so anyway.
        variants: Encode each frame so many times more, under another draw of ``augment`` for each episode; a training
            window shows one of them at random.
    """

    cache_dir: Path | None = None
    online: bool = False
    variants: int = 0

    def __post_init__(self) -> None:
        if self.cache_dir == Path("None"):  # what jsonargparse 4.53 makes of `--data.encoding.cache_dir null`
            object.__setattr__(self, "cache_dir", None)
        if self.variants < 0:
            raise ValueError(f"encoding.variants is {self.variants}, expected 0 or more.")
        if self.online and (self.cache_dir is not None or self.variants):
            raise ValueError(
                f"encoding is online with cache_dir={self.cache_dir} and variants={self.variants}, which only matter "
                "where latents are kept; set data.encoding.online=false, or leave the others out."
            )

    def matched(self, augmented: bool) -> Encoding:
        """Fit to whether pictures are augmented: then latents of recorded frames alone would not show it.

        Raises:
            ValueError: Latents are kept that no augmentation reaches, or variants are wanted without augmentation.
        """
        if self.variants and not augmented:
            raise ValueError(
                f"encoding.variants is {self.variants} without data.augment, expected 0: all variants would be the "
                "same; set data.augment, or data.encoding.variants=0."
            )
        if not augmented or self.variants:
            return self
        if self.cache_dir is not None:
            raise ValueError(
                f"data.augment is given, but the latents kept in {self.cache_dir} are of the frames as recorded; set "
                "data.encoding.variants=8 to keep augmented ones too, or data.encoding.online=true and "
                "data.encoding.cache_dir=null to augment anew in every step."
            )
        return replace(self, online=True)
