"""Where shards lie: a folder, or a remote place of which shards are fetched as they are needed."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import BinaryIO

from uva_lightning.datamodules.faults import Broken
from uva_lightning.datamodules.reading import Streaming


class Place(ABC):
    """Gives the files of shards; may be pickled.

    Args:
        location: As the user named it.
    """

    remote = False
    """Whether shards must be fetched."""

    def __init__(self, location: str) -> None:
        self.location = location

    def expect(self, files: Mapping[str, tuple[int, str]]) -> None:
        """Take size and hash of the files that are there."""
        return

    @abstractmethod
    def content(self, name: str) -> bytes:
        """Read a small file.

        Raises:
            Broken: It is not there.
        """

    def text(self, name: str) -> str:
        """Read a small file of text."""
        return self.content(name).decode(errors="replace")

    @abstractmethod
    def open(self, name: str) -> BinaryIO:
        """Open a shard on the local disk.

        Raises:
            Broken: It is not there.
        """

    @abstractmethod
    def size(self, name: str) -> int | None:
        """Bytes of a shard; -1 where it is missing, None where only fetching it would tell."""

    def soon(self, names: Iterable[str]) -> None:
        """Get shards ready that are needed soon, those needed first in front."""
        return


class LocalPlace(Place):
    """A folder."""

    def content(self, name: str) -> bytes:
        """See the base class."""
        return (Path(self.location) / name).read_bytes()

    def open(self, name: str) -> BinaryIO:
        """See the base class."""
        try:
            return (Path(self.location) / name).open("rb")
        except OSError as error:
            raise Broken(f"{self.location}/{name} cannot be read ({error.strerror}); copy the shard again.") from error

    def size(self, name: str) -> int | None:
        """See the base class."""
        path = Path(self.location) / name
        return path.stat().st_size if path.is_file() else -1


def place_of(location: str, streaming: Streaming | None) -> Place:
    """Give what reads a location."""
    if "://" not in location:
        return LocalPlace(location)
    from uva_lightning.datamodules.shards.staging import RemotePlace

    return RemotePlace(location, streaming or Streaming())
