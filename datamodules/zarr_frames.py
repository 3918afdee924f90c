"""Pictures of a zarr array, read when they are asked for: a data set may be larger than the memory."""

from __future__ import annotations

import asyncio
import os
import zipfile
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from uva_lightning.datamodules.faults import Broken
from uva_lightning.datamodules.frames import LazyFrames, Pictures, Steps
from uva_lightning.datamodules.reopening import Reopening

CACHE_BYTES = 128 << 20
"""Decoded chunks kept by each process and array: a batch of windows from large chunks comes back to the same ones, and
eight workers with two cameras still stay within 2 GB."""
READ_BYTES = 64 << 20
"""Pictures decoded at once: enough to keep several threads busy, little beside what is kept."""
PROBES = 8
"""Chunks looked at to tell pictures of floats from 0 to 255 from those of floats from 0 to 1."""


def open_store(path: Path) -> Any:
    """Open a zarr folder or ``.zip`` for reading; a zip is read in place, nothing is extracted.

    Raises:
        ImportError: zarr is not installed.
        Broken: The zip file is cut off.
    """
    try:
        import zarr
    except ImportError as error:
        raise ImportError(
            f"Reading {path} needs zarr 3 ({error}); install it with pip install 'uva_lightning[data]'."
        ) from error
    if path.is_file() and not zipfile.is_zipfile(path):
        raise Broken(f"{path} is no whole zip file, expected a zipped replay buffer; copy or download it again.")
    register_picture_codecs()
    return zarr.storage.ZipStore(path, mode="r") if path.is_file() else zarr.storage.LocalStore(path)


def register_picture_codecs() -> None:
    """Let zarr decode pictures stored as JPEG 2000 or XL, if the package for that is there."""
    try:
        from imagecodecs.numcodecs import register_codecs
    except ImportError:
        return
    register_codecs(verbose=False)


class ZarrFrames(Reopening, LazyFrames):
    """Pictures u8[n, H, W, 3] of one array, whether stored as u8 or as other numbers from 0 to 255.

    Every chunk that a request needs is decoded once for it, and the latest ones are kept, up to ``memory`` bytes. Every
    process opens the file for itself, so that neither forked nor spawned workers share a place in it.

    Args:
        path: Zarr folder or ``.zip``.
        name: Array in it, such as ``data/img``.
        ends: i64[e], exclusive end of each episode, for messages.
        memory: Bytes of decoded chunks kept.

    Raises:
        Broken: No pictures, or, when indexed, a chunk that is absent, damaged or has numbers beyond 0 to 255.
        ImportError: zarr is missing, or a package that decodes the pictures.
    """

    def __init__(self, path: Path, name: str, ends: Steps, memory: int = CACHE_BYTES) -> None:
        self.path, self.name, self.ends, self.memory = path, name, ends, memory
        self._forget()
        array = self._array()
        super().__init__(tuple(array.shape))
        self._chunk = int(array.chunks[0]) if array.ndim else 1
        if array.ndim != 4 or array.shape[-1] != 3:
            raise Broken(
                f"'{self._short}' in {self.path} has the shape {list(array.shape)}, expected [n, H, W, 3]; name "
                "another field for this camera."
            )
        if array.dtype.kind not in "uif":
            raise Broken(
                f"'{self._short}' in {self.path} is {array.dtype}, expected u8 or numbers from 0 to 255; convert the "
                "pictures."
            )
        if array.dtype != np.uint8:
            self._refuse_unit_range(array)

    def _forget(self) -> None:
        self._opened: Any = None
        self._process = 0
        self._kept: OrderedDict[int, Pictures] = OrderedDict()
        self._bytes = 0

    @property
    def nbytes(self) -> int:
        """Bytes of all pictures, decoded."""
        return int(np.prod(self.shape))

    def load(self) -> tuple[Pictures, dict[int, Broken]]:
        """Read all pictures, black where they cannot be, and say which episodes that concerns, and why."""
        out = np.zeros(self.shape, dtype=np.uint8)
        damaged: dict[int, Broken] = {}
        chunks = list(range(-(-len(self) // self._chunk)))
        for start in range(0, len(chunks), self._several):
            some = chunks[start : start + self._several]
            try:
                pairs = self._decode(some)
            except Broken:
                pairs = []
                for chunk in some:
                    try:
                        pairs += self._decode([chunk])
                    except Broken as fault:
                        damaged |= dict.fromkeys(self._episodes(chunk), fault)
            for chunk, pictures in pairs:
                out[slice(*self._span(chunk))] = pictures
        return out, damaged

    def _read(self, steps: Steps) -> Pictures:
        out = np.empty((len(steps), *self.shape[1:]), dtype=np.uint8)
        order = np.argsort(steps, kind="stable")
        chunks, firsts = np.unique(steps[order] // self._chunk, return_index=True)
        places = dict(zip(chunks.tolist(), np.split(order, firsts)[1:], strict=True))
        for chunk, pictures in self._chunks(chunks.tolist()):
            out[places[chunk]] = pictures[steps[places[chunk]] - chunk * self._chunk]
        return out

    def _chunks(self, chunks: list[int]) -> Iterator[tuple[int, Pictures]]:
        """Give chunks, those that are kept first; of the others only a few are ever held at a time."""
        missing = []
        for chunk in chunks:
            if (pictures := self._kept.get(chunk)) is None:
                missing.append(chunk)
            else:
                self._kept.move_to_end(chunk)
                yield chunk, pictures
        for start in range(0, len(missing), self._several):
            for chunk, pictures in self._decode(missing[start : start + self._several]):
                self._keep(chunk, pictures)
                yield chunk, pictures

    def _keep(self, chunk: int, pictures: Pictures) -> None:
        if pictures.nbytes > self.memory:
            return
        self._kept[chunk] = pictures
        self._bytes += pictures.nbytes
        while self._bytes > self.memory:
            self._bytes -= self._kept.popitem(last=False)[1].nbytes

    def _decode(self, chunks: list[int]) -> list[tuple[int, Pictures]]:
        """Decode chunks together, in threads; where that fails, one by one to find out which is damaged."""
        array = self._array()
        spans = [self._span(chunk) for chunk in chunks]
        rows = np.concatenate([np.arange(*span) for span in spans])
        self._refuse_absent(array, chunks)
        try:
            values = array.oindex[rows] if len(chunks) > 1 else array[slice(*spans[0])]
        except Exception as error:  # whatever the codec or the zip file raises
            if len(chunks) > 1:
                return [pair for chunk in chunks for pair in self._decode([chunk])]
            raise self._broken(chunks[0], f"cannot be decoded ({type(error).__name__}: {error})") from error
        bounds = np.cumsum([stop - start for start, stop in spans])[:-1]
        parts = np.split(np.asarray(values), bounds)
        return [(chunk, self._as_u8(part, chunk)) for chunk, part in zip(chunks, parts, strict=True)]

    def _as_u8(self, values: NDArray[Any], chunk: int) -> Pictures:
        if values.dtype != np.uint8:
            low, high = float(values.min()), float(values.max())
            if not (low >= 0 and high <= 255):  # also catches NaN
                raise self._broken(chunk, f"have values from {low:g} to {high:g}, expected 0 to 255")
            return np.rint(values).astype(np.uint8)
        return values.copy() if values.base is not None else values  # a view would keep its neighbours in memory

    def _refuse_unit_range(self, array: Any) -> None:
        """Tell floats from 0 to 1 by several chunks, since one may be dark.

        Raises:
            Broken: No number is above 1.
        """
        chunks = -(-len(self) // self._chunk)
        high = 0.0
        for chunk in np.unique(np.linspace(0, chunks - 1, min(chunks, PROBES)).astype(np.int64)).tolist():
            high = max(high, float(self._decode([chunk])[0][1].max()))
            if high > 1:
                return
        if chunks:
            raise Broken(
                f"'{self._short}' in {self.path} has values from 0 to {high:g} in {array.dtype}, expected 0 to 255; "
                "multiply the pictures by 255 and store them as u8."
            )

    def _refuse_absent(self, array: Any, chunks: list[int]) -> None:
        """Refuse chunks that are not there, which zarr would silently give as black pictures."""
        from zarr.core.sync import sync

        unit = array.shards or array.chunks
        parts = [-(-side // step) for side, step in zip(array.shape[1:], unit[1:], strict=True)]
        keys = {
            f"{self.name}/{array.metadata.encode_chunk_key((chunk * self._chunk // unit[0], *part))}": chunk
            for chunk in chunks
            for part in np.ndindex(*parts)
        }
        found = sync(_exist(array.store, list(keys)))
        for (key, chunk), there in zip(keys.items(), found, strict=True):
            if not there:
                raise self._broken(chunk, f"are absent: it has no {key}")

    def _span(self, chunk: int) -> tuple[int, int]:
        return chunk * self._chunk, min((chunk + 1) * self._chunk, len(self))

    def _episodes(self, chunk: int) -> range:
        first, last = self._span(chunk)
        return range(
            int(np.searchsorted(self.ends, first, side="right")),
            int(np.searchsorted(self.ends, last - 1, side="right")) + 1,
        )

    @property
    def _several(self) -> int:
        """Chunks decoded at once."""
        return max(1, READ_BYTES // (self._chunk * int(np.prod(self.shape[1:]))))

    def _broken(self, chunk: int, what: str) -> Broken:
        first, last = self._span(chunk)
        episode = self._episodes(chunk)[0]
        begin = 0 if episode == 0 else int(self.ends[episode - 1])
        return Broken(
            f"Pictures of '{self._short}' in {self.path}, episode {episode} from its step {first - begin} (steps "
            f"{first} to {last - 1} of the file), {what}; copy the file again, or leave broken episodes out with "
            "data.reading.on_error=skip."
        )

    @property
    def _short(self) -> str:
        return self.name.rpartition("/")[2]

    def _array(self) -> Any:
        """Open the array, once per process: a forked worker must not share its parent's place in the file."""
        if self._opened is None or self._process != os.getpid():
            import zarr

            self._process, store = os.getpid(), open_store(self.path)
            with codec_named(self.path):
                self._opened = zarr.open_array(store, path=self.name, mode="r")
        return self._opened


@contextmanager
def codec_named(path: Path) -> Iterator[None]:
    """Say which package decodes the pictures where zarr knows no such codec."""
    try:
        yield
    except ValueError as error:
        if "codec" not in str(error):
            raise
        raise ImportError(
            f"The pictures in {path} are stored in a format that needs imagecodecs ({error}); pip install "
            "'uva_lightning[data]'."
        ) from error


async def _exist(store: Any, keys: list[str]) -> list[bool]:
    return await asyncio.gather(*(store.exists(key) for key in keys))
