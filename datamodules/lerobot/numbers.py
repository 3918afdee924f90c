"""Numbers of LeRobot episodes: read from the tables, and compared with what the rest of the dataset says."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from uva_lightning.datamodules.faults import Broken
from uva_lightning.datamodules.frames import Steps
from uva_lightning.datamodules.lerobot.meta import INFO, Recorded, pyarrow_parquet

EPISODE, FRAME, TIME, TASK = "episode_index", "frame_index", "timestamp", "task_index"
FACTS = (EPISODE, FRAME, TIME, TASK)
AGAIN = "copy the file again, or leave the episode out."


class Table:
    """A parquet file with the rows of one or many episodes.

    Args:
        file: The file.
        fields: Columns of numbers that are wanted.

    Raises:
        ValueError: The file is damaged, or lacks a column.
    """

    def __init__(self, file: Path, fields: Collection[str]) -> None:
        import pyarrow

        parquet = pyarrow_parquet(file)
        try:
            known = parquet.read_schema(file).names
            lacks = [name for name in (EPISODE, *fields) if name not in known]
            if not lacks:
                columns = [name for name in FACTS if name in known] + sorted(set(fields) - set(FACTS))
                self._table: Any = parquet.read_table(file, columns=columns)
        except (pyarrow.ArrowException, OSError) as error:
            raise ValueError(f"{file} is damaged ({' '.join(str(error).split())}); copy it again.") from error
        if lacks:
            raise ValueError(f"{file} lacks {', '.join(lacks)}: found {', '.join(known)}; this is another dataset.")
        self.file = file
        self._episode = self._table[EPISODE].to_numpy()
        self._matrices: dict[str, NDArray[np.float32]] = {}

    def rows(self, episode: Recorded, rate_hz: float, name: str) -> Steps:
        """Find the rows of an episode, in the order of time.

        Args:
            episode: As the list has it.
            rate_hz: Steps per second.
            name: What messages call it.

        Returns:
            i64[n].

        Raises:
            Broken: They are not as many as the list says, or their times are of another rate.
        """
        rows = np.flatnonzero(self._episode == episode.number)
        if len(rows) != episode.length:
            raise Broken(
                f"{name}: {self.file} has {len(rows)} rows of it, but the list in meta/ says {episode.length}; {AGAIN}"
            )
        if FRAME in self._table.column_names:
            rows = rows[np.argsort(self._table[FRAME].to_numpy()[rows], kind="stable")]
        if TIME in self._table.column_names:
            times = self._table[TIME].to_numpy()[rows].astype(np.float64)
            off = np.abs(times - times[0] - np.arange(len(rows)) / rate_hz)
            if not off.max() <= 0.5 / rate_hz:  # also catches NaN
                span = times[-1] - times[0]
                own = f"{(len(rows) - 1) / span:.4g} Hz on average" if span > 0 else "no rate at all"
                raise Broken(
                    f"{name}: the column {TIME} in {self.file} leaves {rate_hz:g} Hz, the fps of {INFO}, at its "
                    f"row {int(np.argmax(off > 0.5 / rate_hz))} ({own}); resample the episode or leave it out."
                )
        return rows

    def numbers(self, field: str, rows: Steps, name: str) -> NDArray[np.float32]:
        """Read a field as f32[n, width].

        Raises:
            Broken: Rows are empty, of another width than most, or hold NaN or infinity.
        """
        if field not in self._matrices:
            try:
                self._matrices[field] = _matrix(self._table[field], field, self.file)
            except ValueError as error:
                raise Broken(f"{name}: {error}") from error
        values = self._matrices[field][rows]
        bad = np.flatnonzero(~np.isfinite(values).all(axis=1))
        if len(bad):
            raise Broken(
                f"{name}: '{field}' in {self.file} has {len(bad)} steps with NaN, infinity or another width than "
                f"{values.shape[1]}, first at its step {bad[0]}, expected finite numbers; repair the episode or leave "
                "it out."
            )
        return values

    def task(self, rows: Steps) -> int | None:
        """Give the ``task_index`` at the first row."""
        return int(self._table[TASK][int(rows[0])].as_py()) if TASK in self._table.column_names else None


def _matrix(column: Any, field: str, file: Path) -> NDArray[np.float32]:
    """Turn a column of numbers or of lists into f32[n, width]; rows of another width than most become NaN."""
    import pyarrow
    import pyarrow.compute

    values = column.combine_chunks()
    whole = np.ones(len(values), bool)
    if _is_list(values):
        lengths = pyarrow.compute.list_value_length(values).fill_null(-1).to_numpy(zero_copy_only=False)
        known, counts = np.unique(lengths, return_counts=True)
        whole = lengths == known[np.argmax(counts)]
        values = values.filter(pyarrow.array(whole))
    while _is_list(values):
        values = values.flatten()
    try:
        flat = np.asarray(values.to_numpy(zero_copy_only=False), dtype=np.float32)
        kept = flat.reshape(int(whole.sum()), -1)
    except (TypeError, ValueError) as error:
        raise ValueError(f"'{field}' in {file} holds {column.type}, expected numbers; choose another field.") from error
    matrix = np.full((len(whole), kept.shape[1]), np.nan, np.float32)
    matrix[whole] = kept
    return matrix


def _is_list(values: Any) -> bool:
    from pyarrow import types

    kinds = (types.is_list, types.is_large_list, types.is_fixed_size_list)
    return any(kind(values.type) for kind in kinds)
