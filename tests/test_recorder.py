"""Recordings hold what was handed over, check it, and tell in time when nothing can be written any more."""

import json
import threading
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from recordings import frames_of, picture

from uva_lightning import __version__
from uva_lightning.robot import recorder as recorder_module
from uva_lightning.robot.arm import JointTrajectory
from uva_lightning.robot.episodes import RecordedEpisode
from uva_lightning.robot.errors import RecordingFailed, RobotConfigError
from uva_lightning.robot.fake_arm import FakeArm
from uva_lightning.robot.operator import Label
from uva_lightning.robot.recorder import Recorder
from uva_lightning.robot.recorder_files import EpisodeFiles, read_lines, recover
from uva_lightning.robot.recorder_rows import COLUMNS, asked_row, checked, measured_row

META = {"task": "pick up the cube", "arm": "X5_umi", "seed": 3, "limits": {"joint_velocity": 1.0}}
ROOM = 1000


def record(recording, steps=10):
    arm = FakeArm(clock=lambda: 0.0)
    for number in range(steps):
        moment = 100.0 + 0.2 * number
        recording.step(measured_row(arm.state(), arm.model.chain) | {"time": moment, "step": number})
        recording.frame("wrist", picture(number), moment - 0.05)
    recording.event("hold", "the episode is over", 102.0, joint=2)


def test_an_episode_becomes_a_folder(tmp_path):
    recording = Recorder(tmp_path / "new", ROOM).begin(META)
    assert recording.folder.name.endswith(".partial")
    record(recording)
    path = recording.end(Label.SUCCESS, "It took all of its steps.")
    assert [entry.name for entry in (tmp_path / "new").iterdir()] == [path.name]
    assert sorted(entry.name for entry in path.iterdir()) == [
        "events.jsonl",
        "meta.json",
        "steps.parquet",
        "video_wrist.mp4",
    ]
    meta = json.loads((path / "meta.json").read_text())
    assert meta | META == meta
    assert (meta["label"], meta["reason"], meta["steps"]) == ("success", "It took all of its steps.", 10)
    assert meta["films"] == {"wrist": {"frames": 10, "begun": 99.95, "height": 32, "width": 48}}
    assert (meta["dropped"], meta["faults"], meta["recovered"]) == ({}, [], False)
    rows = pyarrow.parquet.read_table(path / "steps.parquet").to_pylist()
    assert [row["time"] for row in rows] == [100.0 + 0.2 * number for number in range(10)]
    assert np.shape(rows[3]["eef"]) == (4, 4)
    assert (rows[3]["step"], rows[3]["action"], rows[3]["rejected"]) == (3, None, None)
    film = frames_of(path / "video_wrist.mp4")
    np.testing.assert_allclose([moment for moment, _ in film], 0.2 * np.arange(10), atol=2e-6)
    assert all(np.abs(shown.astype(int) - picture(number)).max() <= 3 for number, (_, shown) in enumerate(film))
    events = [json.loads(line) for line in (path / "events.jsonl").read_text().splitlines()]
    assert [event["kind"] for event in events] == ["recorder.camera", "hold", "recorder.label"]
    assert events[1] == {"joint": 2.0, "time": 102.0, "kind": "hold", "text": "the episode is over"}


def test_facts_of_station_and_code_are_added(tmp_path):
    recorder = Recorder(str(tmp_path), ROOM, {"arm": "X5", "serial": "7"})
    meta = json.loads((recorder.begin(META).end(Label.SUCCESS, "") / "meta.json").read_text())
    assert (meta["arm"], meta["serial"], meta["task"]) == ("X5", "7", "pick up the cube")
    assert meta["software"] == __version__
    assert meta["git"] is None or len(meta["git"]) == 40


def test_what_is_refused_is_recorded_too(tmp_path):
    recording = Recorder(tmp_path, ROOM).begin(META)
    asked = JointTrajectory(np.array([1.0, 1.2]), np.zeros((2, 6)), np.full(2, 0.08), np.array([1.2, 1.4]))
    recording.step(asked_row(asked, 0.9, "OutOfLimits: too fast") | {"action": np.full((16, 10), np.nan)})
    recording.event("fault", "Joint 2 is 0.2 rad off", 1.0)
    path = recording.end(Label.FAILURE, "a fault")
    row = pyarrow.parquet.read_table(path / "steps.parquet").to_pylist()[0]
    assert (row["rejected"], row["asked_at"], row["asked_time"]) == ("OutOfLimits: too fast", 0.9, [1.0, 1.2])
    assert np.shape(row["asked_q"]) == (2, 6)
    assert np.isnan(row["action"]).all()
    assert [fault["text"] for fault in json.loads((path / "meta.json").read_text())["faults"]] == [
        "Joint 2 is 0.2 rad off"
    ]


def test_the_same_picture_twice_is_one(tmp_path):
    recording = Recorder(tmp_path, ROOM).begin(META)
    for moment in (1.0, 1.0, 0.5, 1.1):
        recording.frame("wrist", picture(1), moment)
    path = recording.end(Label.INVALID, "")
    assert json.loads((path / "meta.json").read_text())["films"]["wrist"]["frames"] == 2


def test_odd_pictures_lose_a_row_and_a_column(tmp_path):
    recording = Recorder(tmp_path, ROOM).begin(META)
    recording.frame("top", picture(1, (33, 49)), 1.0)
    path = recording.end(Label.INVALID, "")
    assert frames_of(path / "video_top.mp4")[0][1].shape == (32, 48, 3)


@pytest.mark.parametrize(
    ("meta", "says"),
    [
        ({**META, "label": "success"}, "name label"),
        ({**META, "limits": object()}, "cannot be held by JSON"),
    ],
)
def test_facts_are_checked(tmp_path, meta, says):
    with pytest.raises(RobotConfigError, match=says):
        Recorder(tmp_path, ROOM).begin(meta)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"time": 1.0, "openning": 0.1}, "did you mean 'opening'"),
        ({"time": float("nan")}, "expected a finite number"),
        ({"q": np.zeros(6)}, "has the time None"),
        ({"time": 1.0, "q": np.zeros((2, 6))}, r"shape \(2, 6\), expected a vector"),
        ({"time": 1.0, "q": "soft"}, "expected a vector"),
    ],
)
def test_rows_are_checked(row, says):
    with pytest.raises(RobotConfigError, match=says):
        checked(row)


@pytest.mark.parametrize(
    ("name", "shown", "moment"),
    [
        ("wrist", picture(1, (16, 16)), 2.0),
        ("wrist", picture(1).astype(float), 2.0),
        ("wrist", picture(1), float("nan")),
        ("../wrist", picture(1), 2.0),
    ],
)
def test_pictures_are_checked(tmp_path, name, shown, moment):
    recording = Recorder(tmp_path, ROOM).begin(META)
    recording.frame("wrist", picture(1), 1.0)
    with pytest.raises(RobotConfigError, match="expected uint8 of"):
        recording.frame(name, shown, moment)
    assert recording.abort("done") is None


def test_kinds_of_the_recorder_are_its_own(tmp_path):
    recording = Recorder(tmp_path, ROOM).begin(META)
    with pytest.raises(RobotConfigError, match="which is the recorder's own"):
        recording.event("recorder.label", "success", 1.0)
    recording.abort("done")


def test_nothing_is_recorded_after_the_end(tmp_path):
    recording = Recorder(tmp_path, ROOM).begin(META)
    recording.end(Label.SUCCESS, "")
    for call in (lambda: recording.step({"time": 1.0}), lambda: recording.end(Label.FAILURE, "")):
        with pytest.raises(RecordingFailed, match="is over; begin another one"):
            call()
    recording.abort("again")
    assert len(list(tmp_path.iterdir())) == 1


def test_episodes_of_one_second_have_names_of_their_own(tmp_path):
    recorder = Recorder(tmp_path, ROOM)
    recordings = [recorder.begin(META) for _ in range(3)]
    paths = {recording.end(Label.SUCCESS, "") for recording in recordings}
    assert len(paths) == 3


def test_no_episode_begins_on_a_full_disk(tmp_path):
    with pytest.raises(RecordingFailed, match="MiB free, expected at least .* make room"):
        Recorder(tmp_path, 2**60).begin(META)
    assert not list(tmp_path.iterdir())


def test_no_episode_begins_where_nothing_can_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RecordingFailed, match="cannot be written into"):
        Recorder(tmp_path / "file", ROOM).begin(META)


def wait_for(happened, patience=60.0):
    """Wait until something has happened; gives what it was."""
    end = time.monotonic() + patience
    while time.monotonic() < end:
        if found := happened():
            return found
        time.sleep(0.01)
    raise TimeoutError


def failing(recording):
    """Wait until the caller hears that nothing is recorded any more; gives what it is told."""

    def refused():
        try:
            recording.step({"time": 1.0})
        except RecordingFailed as error:
            return str(error)

    return wait_for(refused)


def test_a_disk_that_fills_up_is_heard_of_in_time(tmp_path, monkeypatch):
    monkeypatch.setattr(recorder_module, "SECOND", 0.02)
    recording = Recorder(tmp_path, ROOM).begin(META)
    record(recording)
    wait_for(lambda: b"hold" in (recording.folder / "events.jsonl").read_bytes())  # which was handed over last
    monkeypatch.setattr(recorder_module, "room_in", lambda folder: 200)
    assert "cannot be recorded any further (OSError: the disk has 0 MiB free" in failing(recording)
    with pytest.raises(RecordingFailed, match="uva arm recover"):
        recording.end(Label.SUCCESS, "")
    [path] = recover(tmp_path).finished
    meta = json.loads((path / "meta.json").read_text())
    assert (meta["label"], meta["recovered"], meta["films"]["wrist"]["frames"]) == ("invalid", True, 10)
    assert "recorder.failed" in [event["kind"] for event in read_lines(path / "events.jsonl")]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's /dev/full")
def test_a_full_disk_is_heard_of(tmp_path):
    folder = tmp_path / "episode.partial"
    folder.mkdir()
    (folder / "steps.jsonl").symlink_to("/dev/full")  # every write to it fails as on a full disk
    recording = recorder_module.Recording(EpisodeFiles(folder, META), 0)
    assert "No space left" in failing(recording)


class Stuck(EpisodeFiles):
    """A disk that takes nothing until it is let go."""

    def __init__(self, folder, meta):
        super().__init__(folder, meta)
        self.go = threading.Event()

    def step(self, row):
        self.go.wait(10)
        super().step(row)


def test_a_slow_disk_holds_nobody_up_and_what_is_lost_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(recorder_module, "PENDING_ITEMS", 20)
    monkeypatch.setattr(recorder_module, "PENDING_BYTES", 5 * picture(0).nbytes)
    folder = tmp_path / "episode.partial"
    folder.mkdir()
    files = Stuck(folder, META)
    recording = recorder_module.Recording(files, 0)
    slowest = 0.0
    for number in range(100):
        begin = time.monotonic()
        recording.frame("wrist", picture(number), float(number))
        recording.step({"time": float(number)})
        slowest = max(slowest, time.monotonic() - begin)
    files.go.set()
    path = recording.end(Label.SUCCESS, "")
    meta = json.loads((path / "meta.json").read_text())
    frames = meta["films"]["wrist"]["frames"]
    assert slowest < 5  # the disk takes nothing for 10 s
    assert meta["label"] == "success"
    assert 20 <= meta["steps"] + frames <= 30
    assert meta["dropped"] == {"steps": 100 - meta["steps"], "pictures of 'wrist'": 100 - frames}


NUMBERS = st.floats(width=64)
VALUES = {
    "number": NUMBERS,
    "count": st.integers(-(2**62), 2**62),
    "text": st.text(st.characters(codec="utf-8")),
    "vector": st.lists(NUMBERS, max_size=3),
    "matrix": st.integers(0, 2).flatmap(
        lambda width: st.lists(st.lists(NUMBERS, min_size=width, max_size=width), min_size=1, max_size=2)
    ),
}
TIMES = st.floats(allow_nan=False, allow_infinity=False)
ROWS = st.lists(st.sampled_from(sorted(set(COLUMNS) - {"time"})), max_size=3, unique=True).flatmap(
    lambda names: st.fixed_dictionaries({"time": TIMES, **{name: VALUES[COLUMNS[name]] for name in names}})
)


@settings(max_examples=20)
@given(st.lists(ROWS, max_size=4))
def test_rows_come_back_as_they_were(tmp_path_factory, rows):
    recording = Recorder(tmp_path_factory.mktemp("rows"), ROOM).begin(META)
    for row in rows:
        recording.step(row)
    found = RecordedEpisode(recording.end(Label.SUCCESS, "")).rows
    np.testing.assert_equal(found, [{**dict.fromkeys(COLUMNS), **row} for row in rows])
