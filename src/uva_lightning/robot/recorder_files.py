"""The folder of one episode while it is recorded, and how it becomes a finished one, also after a crash."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, NamedTuple

from uva_lightning.robot.camera import Frames
from uva_lightning.robot.errors import RecordingFailed
from uva_lightning.robot.operator import Label
from uva_lightning.robot.recorder_film import FilmInPieces, join_pieces
from uva_lightning.robot.recorder_rows import arrow_schema
from uva_lightning.whole_files import remove_parts, sync_folder, whole

FORMAT = "uva_lightning episode 1"
META, EVENTS, STEPS = "meta.json", "events.jsonl", "steps.parquet"
JOURNAL = "steps.jsonl"
"""Rows as they come; a table cannot be appended to in a way that survives a crash."""
PARTIAL, PIECES, FILM = ".partial", ".pieces.mp4", "video_{camera}.mp4"
OURS = "recorder."
CAMERA, LABEL, DROPPED, FAILED = (f"{OURS}{kind}" for kind in ("camera", "label", "dropped", "failed"))
"""Kinds of events that the recorder adds by itself."""
FAULTS = ("fault", "estop")
"""Kinds of events that are gathered in ``meta.json``."""


class EpisodeFiles:
    """Write one episode. What was handed over is with the system at once, so it survives the end of this process.

    Args:
        folder: Its folder, which is there and empty.
        meta: Facts of the episode.
    """

    def __init__(self, folder: Path, meta: Mapping[str, Any]) -> None:
        self.folder = folder
        self._journal = (folder / JOURNAL).open("ab", buffering=0)
        _lock(self._journal)
        write_meta(folder, {"format": FORMAT, "begun": _now(), **meta})
        self._events = (folder / EVENTS).open("ab", buffering=0)
        self._films: dict[str, FilmInPieces] = {}
        sync_folder(folder)

    def step(self, row: Mapping[str, Any]) -> None:
        """Append a row."""
        _append(self._journal, row)

    def frame(self, camera: str, picture: Frames, time: float) -> None:
        """Append a picture to the film of its camera."""
        if camera not in self._films:
            height, width = picture.shape[:2]
            size = {"height": height // 2 * 2, "width": width // 2 * 2}
            self.event({"time": time, "kind": CAMERA, "text": f"first picture of '{camera}'", "camera": camera, **size})
            self._films[camera] = FilmInPieces(self.folder / f"video_{camera}{PIECES}", (height, width))
        self._films[camera].add(picture, time)

    def event(self, event: Mapping[str, Any]) -> None:
        """Append an event."""
        _append(self._events, event)

    def sync(self) -> None:
        """Force rows and events to the disk."""
        for file in (self._journal, self._events):
            os.fsync(file.fileno())

    def close(self) -> None:
        """Complete the files that are open."""
        try:
            for film in self._films.values():
                film.close()
            self.sync()
        finally:
            self._films = {}
            self._journal.close()
            self._events.close()


class Recovery(NamedTuple):
    """What became of unfinished recordings: those that are finished now, and why others are not."""

    finished: Sequence[Path]
    left: Mapping[Path, str]


def recover(folder: Path) -> Recovery:
    """Finish what processes that were killed have left in a folder; such episodes are invalid, if not yet labelled.

    Args:
        folder: Of recordings, or an unfinished one itself; those that are being recorded are left alone.
    """
    found = [folder] if folder.name.endswith(PARTIAL) else sorted(folder.glob(f"*{PARTIAL}"))
    finished, left = list[Path](), dict[Path, str]()
    for partial in found:
        try:
            with _ours(partial):
                finished.append(finish(partial, recovered=True))
        except RecordingFailed as error:
            left[partial] = str(error)
    return Recovery(finished, left)


def finish(partial: Path, recovered: bool = False) -> Path:
    """Turn the folder of an episode that is over into a finished one; started again it goes on where it was.

    Args:
        partial: The folder; nobody may be writing into it.
        recovered: Whether it was left behind by a process that was killed.

    Returns:
        Its new name.

    Raises:
        RecordingFailed: It cannot be read, or not be written; everything that was recorded is still there.
    """
    path = partial.with_name(partial.name.removesuffix(PARTIAL))
    try:
        meta = read_meta(partial)
        if meta.get("label") is None:
            write_meta(partial, {**meta, **_summary(partial), "recovered": recovered})
        for file in (partial / JOURNAL, *partial.glob(f"*{PIECES}")):
            file.unlink(missing_ok=True)
        remove_parts(partial)
        if path.exists():
            raise RecordingFailed(f"{path} exists, expected a free name to finish {partial.name}; move it away.")
        os.replace(partial, path)
        sync_folder(path.parent)
    except (OSError, ValueError) as error:
        raise RecordingFailed(
            f"{partial} cannot be finished ({error}); make room or mend that, then run: "
            f"uva arm recover {partial.parent}"
        ) from error
    return path


def _summary(partial: Path) -> dict[str, Any]:
    """Write table and films, and tell what is known at the end."""
    import pyarrow
    import pyarrow.parquet

    rows, events = read_lines(partial / JOURNAL), read_lines(partial / EVENTS)
    with whole(partial / STEPS) as part:
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows, schema=arrow_schema()), part)
    films: dict[str, Any] = {}
    for event in (event for event in events if event["kind"] == CAMERA):
        name = event["camera"]
        pieces = partial / f"video_{name}{PIECES}"
        frames = join_pieces(pieces, partial / FILM.format(camera=name)) if pieces.is_file() else 0
        if frames:
            films[name] = {"frames": frames, "begun": event["time"], "height": event["height"], "width": event["width"]}
    dropped: dict[str, int] = {}
    for event in (event for event in events if event["kind"] == DROPPED):
        dropped[event["what"]] = dropped.get(event["what"], 0) + event["count"]
    said = [event for event in events if event["kind"] == LABEL]
    label = (
        {"text": Label.INVALID.value, "reason": "The process that recorded it was killed."} if not said else said[-1]
    )
    return {
        "ended": _now(),
        "label": label["text"],
        "reason": label["reason"],
        "steps": len(rows),
        "films": films,
        "dropped": dropped,
        "faults": [event for event in events if event["kind"] in FAULTS],
    }


def read_meta(folder: Path) -> dict[str, Any]:
    """Read ``meta.json``.

    Raises:
        ValueError: It is absent, damaged, or of another format.
    """
    file = folder / META
    try:
        meta = json.loads(file.read_text())
    except OSError as error:
        raise ValueError(
            f"{folder} has no {META} ({error.strerror}): it is no recording, or nothing of it was written"
        ) from error
    except ValueError as error:
        raise ValueError(f"{file} is no valid JSON ({error})") from error
    if not isinstance(meta, dict) or meta.get("format") != FORMAT:
        found = meta.get("format") if isinstance(meta, dict) else type(meta).__name__
        raise ValueError(f"{file} has the format {found!r}, expected {FORMAT!r}")
    return meta


def write_meta(folder: Path, meta: Mapping[str, Any]) -> None:
    """Write ``meta.json``, whole or not at all."""
    with whole(folder / META) as part:
        part.write_text(json.dumps(meta, indent=2, ensure_ascii=False) + "\n")


def read_lines(file: Path) -> list[dict[str, Any]]:
    """Read a file of JSON lines, of which the last may be torn; none where it is absent.

    Raises:
        ValueError: Another line is damaged.
    """
    rows: list[dict[str, Any]] = []
    with suppress(FileNotFoundError):
        lines = file.read_bytes().split(b"\n")
        for number, line in enumerate(lines[:-1], 1):  # a whole line ends, so nothing but a torn one is last
            try:
                rows.append(dict(json.loads(line)))
            except (ValueError, TypeError) as error:
                raise ValueError(f"line {number} of {file} is damaged ({error})") from error
    return rows


def room_in(folder: Path) -> int:
    """Give the free bytes of the disk on which a folder lies."""
    return shutil.disk_usage(folder).free


@contextmanager
def _ours(partial: Path) -> Iterator[None]:
    """Keep others from finishing the same folder; refuse one that is being recorded."""
    try:
        file = (partial / JOURNAL).open("ab") if (partial / JOURNAL).exists() else None
    except OSError as error:
        raise RecordingFailed(f"{partial} cannot be written into ({error}); mend that and try again.") from error
    try:
        if file is not None:
            _lock(file)
        yield
    finally:
        if file is not None:
            file.close()


def _lock(file: IO[bytes]) -> None:
    """Mark a file as in use for as long as it is open in this process, where the system can."""
    try:
        import fcntl
    except ImportError:  # Windows
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise RecordingFailed(f"{Path(file.name).parent} is still being recorded; end that first.") from error


def _append(file: IO[bytes], row: Mapping[str, Any]) -> None:
    line = json.dumps(row, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
    if file.write(line) != len(line):
        raise OSError(f"only a part of a line could be written to {file.name}; the disk is full")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
