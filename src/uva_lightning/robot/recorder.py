"""Record episodes: what was seen, said, sent and measured, written by a thread of its own, safe against crashes."""

from __future__ import annotations

import contextlib
import math
import queue
import re
import threading
import time
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from uva_lightning.robot.camera import Frames
from uva_lightning.robot.errors import RecordingFailed, RobotConfigError
from uva_lightning.robot.operator import Label
from uva_lightning.robot.recorder_facts import checked_facts, facts_of_code
from uva_lightning.robot.recorder_files import DROPPED, FAILED, LABEL, OURS, PARTIAL, EpisodeFiles, finish, room_in
from uva_lightning.robot.recorder_film import pyav
from uva_lightning.robot.recorder_rows import arrow_schema, checked

PENDING_BYTES = 128 * 2**20
PENDING_ITEMS = 4096
"""Most that waits to be written; what comes on top is dropped, and the recording says so."""
SECOND = 1.0
PATIENCE = 60.0
"""Longest wait for the disk at the end of an episode, s."""
RESERVE = 0.25
"""Share of the room wanted at the begin below which a recording stops, to leave enough to finish it."""
_NAME = re.compile(r"\w+")


class Recorder:
    """Write every episode into a folder: ``meta.json``, ``steps.parquet``, ``video_*.mp4`` and ``events.jsonl``.

    Args:
        folder: Where the folders of the episodes go; made where absent.
        free_bytes: Room that has to be free on the disk when an episode begins.
        facts: Of the station, for every episode: ``arm`` (the model), ``serial``, ``limits``, ``operator``; they count
            more than what ``begin`` is told.

    Raises:
        RobotConfigError: JSON cannot hold the facts.
        ImportError: PyAV or pyarrow is not installed.
    """

    def __init__(self, folder: Path | str, free_bytes: int = 2 * 2**30, facts: Mapping[str, Any] | None = None) -> None:
        pyav()
        arrow_schema()  # now: imports take their time, which the end of an episode has not
        self.folder, self.free_bytes = Path(folder), free_bytes
        self._facts = {**facts_of_code(), **checked_facts(facts or {})}

    def begin(self, meta: Mapping[str, Any]) -> Recording:
        """Begin an episode, before the arm moves.

        Args:
            meta: Facts of it, as JSON can hold them: ``task`` (what the robot is told), ``policy`` (checkpoint and its
                hash), ``config``, ``seed``, ``operator``.

        Raises:
            RobotConfigError: A fact cannot be held.
            RecordingFailed: There is no room, or the folder cannot be written.
        """
        facts = {**checked_facts(meta), **self._facts}
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            free = room_in(self.folder)
            if free < self.free_bytes:
                raise RecordingFailed(
                    f"The disk of {self.folder} has {free / 2**20:.0f} MiB free, expected at least "
                    f"{self.free_bytes / 2**20:.0f} MiB for an episode; make room or set another folder."
                )
            partial = self._new_folder()
            files = EpisodeFiles(partial, facts)
        except OSError as error:
            raise RecordingFailed(f"{self.folder} cannot be written into ({error}); mend that first.") from error
        return Recording(files, round(RESERVE * self.free_bytes))

    def _new_folder(self) -> Path:
        begun = datetime.now(UTC).strftime("%Y%m%dT%H%M%S")
        number = 0
        while True:
            path = self.folder / f"{begun}_{number:03d}"
            with contextlib.suppress(FileExistsError):
                if not path.exists():
                    partial = path.with_name(f"{path.name}{PARTIAL}")
                    partial.mkdir()
                    return partial
            number += 1


class Recording:
    """One episode that is being recorded; ``step``, ``frame`` and ``event`` only hand over, from any thread.

    They raise ``RecordingFailed`` once something could not be written, so that the arm is not moved on unrecorded.

    Args:
        files: Where it goes.
        reserve: Free bytes below which it fails.
    """

    def __init__(self, files: EpisodeFiles, reserve: int) -> None:
        self.folder = files.folder
        self._files, self._reserve = files, reserve
        self._queue = queue.SimpleQueue[tuple[str, Any, int] | None]()
        self._lock = threading.Lock()
        self._items = self._bytes = 0
        self._dropped = Counter[str]()
        self._seen: dict[str, tuple[float, tuple[int, ...]]] = {}  # newest time and size of each camera
        self._newest: float | None = None
        self._over = False
        self._failed: str | None = None
        self._writer = threading.Thread(target=self._write_all, name="recorder", daemon=True)
        self._writer.start()

    def step(self, row: Mapping[str, Any]) -> None:
        """Record a row, see ``recorder_rows.COLUMNS``; as often as wanted.

        Raises:
            RobotConfigError: A column is unknown or has another shape.
            RecordingFailed: The recording is over.
        """
        plain = checked(row)
        self._offer("steps", plain, plain["time"])

    def frame(self, camera: str, picture: Frames, time: float) -> None:
        """Record a picture; one that is not newer than the last of its camera is the same, and left out.

        Args:
            camera: Its name, of letters, digits and underscores.
            picture: u8[H, W, 3], always of the same size.
            time: When it was taken, s.

        Raises:
            RobotConfigError: It is no such picture, or has no such name.
            RecordingFailed: The recording is over.
        """
        shape, moment = np.shape(picture), float(time)
        newest, size = self._seen.get(camera, (-math.inf, shape))
        good = len(shape) == 3 and shape[-1] == 3 and min(shape[:2]) >= 2 and picture.dtype == np.uint8
        if not good or shape != size or not math.isfinite(moment) or not _NAME.fullmatch(camera):
            raise RobotConfigError(
                f"A picture of camera '{camera}' at {time} s is {getattr(picture, 'dtype', type(picture).__name__)} of "
                f"{shape}, expected uint8 of {size if good else '(H, W, 3)'}, a time and a name of letters and digits."
            )
        if moment > newest:
            self._seen[camera] = (moment, shape)
            self._offer(f"pictures of '{camera}'", (camera, np.array(picture), moment), moment, picture.nbytes)

    def event(self, kind: str, text: str, time: float, **numbers: float) -> None:
        """Record that something happened.

        Args:
            kind: In a word, such as the mode of a keeper; ``fault`` and ``estop`` are gathered in ``meta.json``.
            text: In a sentence.
            time: s.
            numbers: Further facts.

        Raises:
            RobotConfigError: The kind is one of the recorder's own.
            RecordingFailed: The recording is over.
        """
        if kind.startswith(OURS):
            raise RobotConfigError(f"An event has the kind '{kind}', which is the recorder's own; name it otherwise.")
        facts = {name: float(number) for name, number in numbers.items()}
        self._offer("events", {**facts, "time": float(time), "kind": kind, "text": text}, time)

    def end(self, label: Label, reason: str) -> Path:
        """Finish the recording; waits until all of it is on the disk.

        Args:
            label: How the episode went.
            reason: Why it was over.

        Returns:
            Its folder, which has its real name now.

        Raises:
            RecordingFailed: It was over already, or could not be written; what there is stays in its folder.
        """
        if self._failed is not None:
            self._writer.join(PATIENCE)  # until it has let go of the files
        said = {"time": self._newest, "kind": LABEL, "text": Label(label).value, "reason": reason}
        self._offer("events", said, self._newest, always=True)
        self._over = True
        self._queue.put(None)
        self._writer.join(PATIENCE)
        if self._writer.is_alive():
            raise RecordingFailed(
                f"The disk of {self.folder} does not take the recording within {PATIENCE:g} s; see to it."
            )
        self._expect_well()
        return finish(self.folder)

    def abort(self, reason: str) -> None:
        """Finish the recording of an episode that says nothing; never raises, and again is harmless."""
        with contextlib.suppress(RecordingFailed):
            self.end(Label.INVALID, reason)

    # -- handing over ---------------------------------------------------------------------------------------------

    def _offer(self, what: str, item: Any, moment: float | None, size: int = 0, always: bool = False) -> None:
        """Put something into the queue, or count it as dropped."""
        self._expect_well()
        if self._over:
            raise RecordingFailed(f"The recording {self.folder.name} is over; begin another one.")
        with self._lock:
            if moment is not None and (self._newest is None or moment > self._newest):
                self._newest = float(moment)
            full = self._items >= PENDING_ITEMS or (size and self._bytes + size > PENDING_BYTES)
            if full and not always:
                self._dropped[what] += 1
                return
            self._items, self._bytes = self._items + 1, self._bytes + size
            self._queue.put((what, item, size))

    def _expect_well(self) -> None:
        if self._failed is not None:
            raise RecordingFailed(
                f"{self.folder} cannot be recorded any further ({self._failed}); what was written is still there: mend "
                f"that, then finish it with: uva arm recover {self.folder.parent}"
            )

    # -- in the writer's thread -----------------------------------------------------------------------------------

    def _write_all(self) -> None:
        try:
            self._write_until_end()
        except Exception as error:  # whatever it is, the one who moves the arm has to hear of it
            self._failed = f"{type(error).__name__}: {error}"
            with contextlib.suppress(Exception):
                self._files.event({"time": self._newest, "kind": FAILED, "text": self._failed})
        try:
            self._files.close()
        except Exception as error:
            self._failed = self._failed or f"{type(error).__name__}: {error}"

    def _write_until_end(self) -> None:
        due = time.monotonic() + SECOND
        while True:
            try:
                taken = self._queue.get(timeout=max(0.0, due - time.monotonic()))
            except queue.Empty:
                taken = ("nothing", None, 0)
            if taken is None:
                self._tell_dropped()
                return
            self._write(*taken)
            if time.monotonic() >= due:
                self._tell_dropped()
                self._files.sync()
                self._check_room()
                due = time.monotonic() + SECOND

    def _write(self, what: str, item: Any, size: int) -> None:
        if item is None:
            return
        if what == "steps":
            self._files.step(item)
        elif what == "events":
            self._files.event(item)
        else:
            self._files.frame(*item)
        with self._lock:
            self._items, self._bytes = self._items - 1, self._bytes - size

    def _tell_dropped(self) -> None:
        with self._lock:
            dropped, self._dropped = self._dropped, Counter()
        for what, count in dropped.items():
            text = f"{count} {what} were not recorded: disk or encoder are too slow"
            self._files.event({"time": self._newest, "kind": DROPPED, "text": text, "what": what, "count": count})

    def _check_room(self) -> None:
        free = room_in(self.folder)
        if free < self._reserve:
            raise OSError(
                f"the disk has {free / 2**20:.0f} MiB free, expected at least {self._reserve / 2**20:.0f} MiB to finish"
            )
