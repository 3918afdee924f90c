"""Recordings are whole, or can be finished from what there is, whatever ends the process that writes them."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from recordings import META, frames_of, picture

from uva_lightning.robot.errors import RecordingFailed
from uva_lightning.robot.operator import Label
from uva_lightning.robot.recorder import Recorder
from uva_lightning.robot.recorder_files import EpisodeFiles, finish, read_lines, recover
from uva_lightning.robot.recorder_film import FilmInPieces, join_pieces

ROOM = 1000


def test_a_recording_in_progress_is_left_alone(tmp_path):
    recording = Recorder(tmp_path, ROOM).begin(META)
    recording.step({"time": 1.0})
    finished, left = recover(tmp_path)
    assert not finished
    assert "is still being recorded" in left[recording.folder]
    assert recording.end(Label.SUCCESS, "").is_dir()


def test_what_holds_nothing_is_told(tmp_path):
    (tmp_path / "episode.partial").mkdir()
    finished, left = recover(tmp_path)
    assert not finished
    assert "has no meta.json" in left[tmp_path / "episode.partial"]


def written(folder, steps=8):
    """The files of an episode that nobody has finished."""
    folder.mkdir()
    files = EpisodeFiles(folder, META)
    for number in range(steps):
        files.step({"time": float(number)})
        files.frame("wrist", picture(number), float(number))
    files.close()
    return folder


@pytest.mark.parametrize("after", range(5))
def test_finishing_goes_on_where_it_was_stopped(tmp_path, monkeypatch, after):
    """Stopped at any of the four new names (table, film, facts, folder), or at the first file that is removed."""
    folder, done = written(tmp_path / "episode.partial"), []

    def until_then(act):
        def counted(*args, **options):
            if len(done) >= after:
                raise KeyboardInterrupt
            done.append(args)
            return act(*args, **options)

        return counted

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", until_then(os.replace))
        with pytest.raises(KeyboardInterrupt) if after < 4 else contextlib.nullcontext():
            finish(folder)
    if folder.is_dir():
        (folder / ".meta.json.7.part").write_text("half")
        recover(tmp_path)
    path = tmp_path / "episode"
    assert sorted(entry.name for entry in path.iterdir()) == [
        "events.jsonl",
        "meta.json",
        "steps.parquet",
        "video_wrist.mp4",
    ]
    meta = json.loads((path / "meta.json").read_text())
    assert (meta["steps"], meta["films"]["wrist"]["frames"]) == (8, 8)
    assert len(frames_of(path / "video_wrist.mp4")) == 8


@settings(max_examples=25)
@given(st.data())
def test_torn_files_are_read_as_far_as_they_are_whole(tmp_path_factory, data):
    tmp_path = tmp_path_factory.mktemp("torn")
    folder = written(tmp_path / "episode.partial", 4)
    kept = {}
    for name in ("steps.jsonl", "video_wrist.pieces.mp4"):
        size = (folder / name).stat().st_size
        kept[name] = data.draw(st.integers(0, size))
        os.truncate(folder / name, kept[name])
    lines = (folder / "steps.jsonl").read_bytes().count(b"\n")
    path = finish(folder, recovered=True)
    meta = json.loads((path / "meta.json").read_text())
    assert meta["steps"] == pyarrow.parquet.read_table(path / "steps.parquet").num_rows == lines
    if meta["films"]:
        shown = frames_of(path / "video_wrist.mp4")
        assert [moment for moment, _ in shown] == [float(number) for number in range(len(shown))]
        assert meta["films"]["wrist"]["frames"] == len(shown) >= 1
    else:
        assert not (path / "video_wrist.mp4").exists()
        assert kept["video_wrist.pieces.mp4"] < 2000


def test_a_damaged_row_is_named(tmp_path):
    folder = written(tmp_path / "episode.partial")
    lines = (folder / "steps.jsonl").read_bytes().split(b"\n")
    lines[2] = b"{broken"
    (folder / "steps.jsonl").write_bytes(b"\n".join(lines))
    with pytest.raises(RecordingFailed, match=r"line 3 of .*steps.jsonl is damaged"):
        finish(folder)
    assert folder.is_dir()


def test_a_film_in_pieces_can_be_played_while_it_is_written(tmp_path):
    film = FilmInPieces(tmp_path / "film.mp4", (32, 48))
    for number in range(6):
        film.add(picture(number), float(number))
    assert len(frames_of(tmp_path / "film.mp4")) == 5
    film.close()
    assert join_pieces(tmp_path / "film.mp4", tmp_path / "whole.mp4") == 6


KILLED = """
import sys, time
import numpy as np
from pathlib import Path
from uva_lightning.robot.recorder import Recorder
recording = Recorder(Path(sys.argv[1]), 1000).begin({"task": "wait", "arm": "X5"})
for number in range(100000):
    recording.step({"time": number / 100, "q": np.zeros(6)})
    recording.frame("wrist", np.full((32, 48, 3), number % 200, np.uint8), number / 100)
    recording.event("tick", "goes on", number / 100)
    print((recording.folder / "steps.jsonl").read_bytes().count(b"\\n"), flush=True)
    time.sleep(0.002)
"""


@pytest.mark.slow
@pytest.mark.parametrize("after", [3, 57, 200])
def test_a_killed_process_leaves_what_it_recorded(tmp_path, after):
    env = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1] / "src")}
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(tmp_path)], stdout=subprocess.PIPE, text=True, env=env
    )
    for line in process.stdout:
        if int(line) >= after:
            break
    assert "is still being recorded" in next(iter(recover(tmp_path).left.values()))
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    [path] = recover(tmp_path).finished
    meta = json.loads((path / "meta.json").read_text())
    assert (meta["label"], meta["recovered"]) == ("invalid", True)
    assert meta["steps"] >= after
    frames = frames_of(path / "video_wrist.mp4")
    assert meta["steps"] - 2 <= len(frames) <= meta["steps"]
    assert all(np.abs(shown.astype(int) - number % 200).max() <= 3 for number, (_, shown) in enumerate(frames))
    assert abs(sum(event["kind"] == "tick" for event in read_lines(path / "events.jsonl")) - meta["steps"]) <= 1
