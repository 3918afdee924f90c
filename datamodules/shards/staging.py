"""Shards of a remote place, fetched to a local folder as they are needed, and deleted when it is full."""

from __future__ import annotations

import fcntl
import hashlib
import os
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import fsspec

from uva_lightning.datamodules.faults import Broken
from uva_lightning.datamodules.reading import Streaming
from uva_lightning.datamodules.reopening import Reopening
from uva_lightning.datamodules.shards.files import amount, digest
from uva_lightning.datamodules.shards.places import Place
from uva_lightning.datamodules.store import hash_of
from uva_lightning.whole_files import PART

FETCHERS = 2
"""Threads that fetch ahead."""

T = TypeVar("T")


class RemotePlace(Reopening, Place):
    """A location of fsspec; all processes of a machine share the folder of what is fetched.

    Args:
        location: URL.
        streaming: How shards are fetched and kept.

    Raises:
        ValueError: fsspec does not know the protocol.
    """

    remote = True
    _process: int
    _mutexes: dict[str, threading.Lock]
    _threads: list[threading.Thread]
    _wanted: deque[str]

    def __init__(self, location: str, streaming: Streaming) -> None:
        super().__init__(location.rstrip("/"))
        try:
            fsspec.core.url_to_fs(self.location)
        except (ValueError, ImportError) as error:
            raise ValueError(
                f"data.path is {location}, which cannot be opened ({error}); expected a folder or a URL of fsspec, "
                "such as https://..., or s3://... with pip install s3fs."
            ) from error
        self.streaming = streaming
        self.cache = streaming.folder or Path(tempfile.gettempdir()) / f"uva_shards-{os.getuid()}"
        self.files: dict[str, tuple[int, str]] = {}
        self.folder = self.cache
        self._forget()

    def expect(self, files: Mapping[str, tuple[int, str]]) -> None:
        """See the base class."""
        largest = max(size for name, (size, _) in files.items() if name.endswith(".tar"))
        if 2 * largest > self.streaming.budget_gb * 1e9:
            raise ValueError(
                f"budget_gb is {self.streaming.budget_gb}, but a shard of {self.location} has {amount(largest)}, "
                "expected room for two at least; raise data.reading.streaming.budget_gb."
            )
        self.files = dict(files)
        self.folder = self.cache / hash_of(self.location, sorted(self.files.items()))
        self.folder.mkdir(parents=True, exist_ok=True)

    def content(self, name: str) -> bytes:
        """See the base class."""
        content = self._tried(name, lambda: bytes(self._remote().cat_file(f"{self.location}/{name}")))
        if name in self.files and hashlib.blake2b(content, digest_size=16).hexdigest() != self.files[name][1]:
            raise Broken(f"{self.location}/{name} is not what the index says; upload the shards again.")
        return content

    def open(self, name: str) -> BinaryIO:
        """See the base class."""
        path = self.folder / name
        while True:
            try:
                file = path.open("rb")
            except FileNotFoundError:
                self.fetch(name)
            else:
                os.utime(file.fileno())  # the least recently used one is deleted first
                return file

    def size(self, name: str) -> int | None:
        """Not known before it is fetched."""
        return None

    def soon(self, names: Iterable[str]) -> None:
        """See the base class; as many as the budget holds."""
        self._own_process()
        left, wanted = self.streaming.budget_gb * 1e9, []
        for name in names:
            left -= self.files[name][0]
            if left < 0:
                break
            try:
                os.utime(self.folder / name)  # needed soon: not the one to delete
            except FileNotFoundError:
                wanted.append(name)
        self._wanted = deque(wanted)
        self._threads = [thread for thread in self._threads if thread.is_alive()]
        while wanted and len(self._threads) < FETCHERS:
            self._threads.append(threading.Thread(target=self._fetch_wanted, daemon=True))
            self._threads[-1].start()

    def fetch(self, name: str) -> None:
        """Fetch a shard unless it is there; other processes that want it wait for it.

        Raises:
            Broken: It cannot be fetched, or is not what the index says.
            OSError: There is no room for it.
        """
        self._own_process()
        path, (size, sum_) = self.folder / name, self.files[name]
        with self._held(name):
            if path.is_file():
                return
            with self._held("room"):
                self._make_room(size)
            part = path.with_name(f".{name}.{os.getpid()}{PART}")

            def transfer() -> None:
                self._remote().get_file(f"{self.location}/{name}", str(part))
                if part.stat().st_size != size or digest(part) != sum_:
                    raise OSError(f"{part.stat().st_size:,} bytes came of {size:,}, or others than the index says")

            try:
                self._tried(name, transfer)
                os.replace(part, path)
            finally:
                part.unlink(missing_ok=True)
            with self._held("room"):
                self._make_room(0)  # others may have been fetched at the same time

    def _fetch_wanted(self) -> None:
        while self._wanted:
            try:
                self.fetch(self._wanted.popleft())
            except (IndexError, OSError, ValueError):
                continue  # whoever needs the shard tries again, and then says what is wrong

    def _make_room(self, size: int) -> None:
        """Delete the least recently used shards of this and other places."""
        staged = []
        for path in self.cache.glob("*/*.tar"):
            try:
                staged.append((path.stat().st_mtime, path.stat().st_size, path))
            except FileNotFoundError:
                continue  # another process was faster
        total = sum(each for _, each, _ in staged) + size
        for _, each, path in sorted(staged):
            if total <= self.streaming.budget_gb * 1e9:
                return
            path.unlink(missing_ok=True)
            total -= each

    def _tried(self, name: str, transfer: Callable[[], T]) -> T:
        """Try again after growing pauses."""
        for attempt in range(self.streaming.retries + 1):
            try:
                return transfer()
            except Exception as error:  # each protocol has errors of its own
                last = error
                if attempt < self.streaming.retries:
                    time.sleep(self.streaming.pause * 2**attempt)
        raise Broken(
            f"{self.location}/{name} cannot be fetched after {self.streaming.retries + 1} attempts "
            f"({type(last).__name__}: {last}); check that it is there and that this machine reaches it."
        ) from last

    def _remote(self) -> Any:
        return fsspec.core.url_to_fs(self.location)[0]

    def _forget(self) -> None:
        self._process = os.getpid()
        self._mutexes = {}
        self._threads = []
        self._wanted = deque()

    def _own_process(self) -> None:
        """Drop locks and threads after a fork: the child has copies that nobody lets go of."""
        if self._process != os.getpid():
            self._forget()

    @contextmanager
    def _held(self, name: str) -> Iterator[None]:
        """Hold a name against the other threads and processes of this machine."""
        mutex = self._mutexes.setdefault(name, threading.Lock())
        with mutex, (self.folder / f".{name}.lock").open("a") as file:
            # not lockf: for it all threads of a process are one, so it sees deadlocks between processes where none are
            fcntl.flock(file, fcntl.LOCK_EX)
            try:
                yield
            finally:
                fcntl.flock(file, fcntl.LOCK_UN)  # closing would not do: a child that was forked meanwhile has it too
