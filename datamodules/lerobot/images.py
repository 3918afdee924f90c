"""Pictures that a LeRobot dataset keeps in its tables, as PNG or JPEG, decoded when they are asked for."""

from __future__ import annotations

import io
import os
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from uva_lightning.datamodules.faults import Broken
from uva_lightning.datamodules.frames import LazyFrames, Pictures, Steps
from uva_lightning.datamodules.lerobot.meta import pyarrow_parquet
from uva_lightning.datamodules.reopening import Reopening

CACHE_BYTES = 128 * 2**20
"""Memory for undecoded pictures: a table is read by its row groups, which hold 100 pictures or so."""


@dataclass(frozen=True)
class Rows:
    """Where the pictures of one episode lie.

    Args:
        table: Parquet file.
        index: i64[n], rows of the file.
        name: What messages call the episode.
    """

    table: Path
    index: Steps
    name: str


class ImageFrames(Reopening, LazyFrames):
    """Pictures of many episodes in parquet tables.

    Args:
        root: Folder of the dataset, for pictures that lie in files of their own.
        column: Name of the feature.
        episodes: Where each episode lies.
        size: Height and width of the pictures in px.
        cache_bytes: Memory for undecoded pictures.
    """

    def __init__(
        self,
        root: Path,
        column: str,
        episodes: Sequence[Rows],
        size: tuple[int, int],
        cache_bytes: int = CACHE_BYTES,
    ) -> None:
        self.root, self.column, self.episodes, self.size = root, column, tuple(episodes), size
        self.cache_bytes = cache_bytes
        self._ends = np.cumsum([len(rows.index) for rows in episodes], dtype=np.int64)
        super().__init__((int(self._ends[-1]) if len(self._ends) else 0, *size, 3))
        self._forget()

    def _forget(self) -> None:
        self._files: dict[Path, Any] = {}
        self._groups: OrderedDict[tuple[Path, int], Any] = OrderedDict()
        self._held = 0
        self._pid = os.getpid()

    def _read(self, steps: Steps) -> Pictures:
        if os.getpid() != self._pid:
            self._forget()  # a parent's file handles share their position with ours
        pictures = np.empty((len(steps), *self.size, 3), np.uint8)
        owners = np.searchsorted(self._ends, steps, side="right")
        for place in np.argsort(steps, kind="stable").tolist():  # rows of one group after another
            rows = self.episodes[owners[place]]
            row = int(rows.index[steps[place] - (self._ends[owners[place]] - len(rows.index))])
            try:
                pictures[place] = self._picture(rows.table, row)
            except (ValueError, OSError) as error:
                raise Broken(f"{rows.name}: row {row} of {rows.table}: {error}") from error
        return pictures

    def _picture(self, table: Path, row: int) -> Pictures:
        value = self._value(table, row)
        if value is None:
            raise ValueError(f"'{self.column}' is empty, expected a picture; record it again.")
        data = value["bytes"] if value["bytes"] is not None else (self.root / value["path"]).read_bytes()
        with Image.open(io.BytesIO(data)) as image:
            picture = np.asarray(image.convert("RGB"))
        if picture.shape[:2] != self.size:
            raise ValueError(
                f"'{self.column}' is {picture.shape[0]} x {picture.shape[1]} px, expected {self.size[0]} x "
                f"{self.size[1]}; correct its shape in meta/info.json."
            )
        return picture

    def _value(self, table: Path, row: int) -> Any:
        """Read the bytes of a picture, with its row group."""
        if table not in self._files:
            self._files = {table: pyarrow_parquet(table).ParquetFile(table)}
        file, first = self._files[table], 0
        for group in range(file.metadata.num_row_groups):
            count = file.metadata.row_group(group).num_rows
            if row < first + count:
                return self._group(table, group)[row - first].as_py()
            first += count
        raise ValueError(f"the table has {first} rows only; copy it again.")

    def _group(self, table: Path, group: int) -> Any:
        key = (table, group)
        values = self._groups.pop(key, None)
        if values is None:
            values = self._files[table].read_row_group(group, columns=[self.column]).column(0)
            self._held += values.nbytes
        self._groups[key] = values
        while self._held > self.cache_bytes and len(self._groups) > 1:
            self._held -= self._groups.popitem(last=False)[1].nbytes
        return values
