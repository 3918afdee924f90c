"""Recordings are read as they were written, and what is broken is named."""

import json
import shutil

import numpy as np
import pyarrow.parquet
import pytest
from recordings import META, PERIOD, made_recordings

from uva_lightning.robot.episodes import BrokenEpisode, RecordedEpisode, find_episodes
from uva_lightning.robot.operator import Label
from uva_lightning.robot.recorder import Recorder


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    return made_recordings(tmp_path_factory.mktemp("recorded"), ("success",), steps=9)[0]


@pytest.fixture
def copied(recorded, tmp_path):
    return shutil.copytree(recorded, tmp_path / "episode")


def test_an_episode_says_what_happened(recorded):
    episode = RecordedEpisode(recorded)
    assert (episode.label, episode.task, episode.model.name) == (Label.SUCCESS, "go forward", "X5_umi")
    measured = episode.measured()
    assert (np.diff(measured.time) > 0).all()
    assert measured.eef.shape == (len(measured.time), 4, 4)
    way = measured.eef[-1, :3, 3] - measured.eef[0, :3, 3]
    assert np.linalg.norm(way) == pytest.approx(0.02 * 1.8, abs=0.006)
    film = episode.films["wrist"]
    assert film.size == (32, 48)
    np.testing.assert_allclose(np.diff(film.times), 0.1, atol=1e-5)
    assert film.times[0] == pytest.approx(measured.time[0], abs=0.1)
    assert [event["kind"] for event in episode.events][-2:] == ["hold", "recorder.label"]
    asked = list(episode.asked())
    assert len(asked) == 3
    assert all(each.action.shape == (16, 10) and each.trajectory.q.shape[1] == 6 for each in asked)
    assert [each.rejected for each in asked] == [None] * 3
    np.testing.assert_allclose(np.diff([each.now for each in asked]), 0.8, atol=2 * PERIOD)
    np.testing.assert_allclose(asked[1].eef, episode.model.chain.forward(asked[1].q), atol=0.01)


def test_poses_follow_from_angles_where_they_were_not_recorded(tmp_path):
    recording = Recorder(tmp_path, 1000).begin(META)
    for number in range(3):
        recording.step({"time": 2.0 - number, "q": np.full(6, 0.1 * number), "opening": 0.01 * number})
    episode = RecordedEpisode(recording.end(Label.SUCCESS, ""))
    measured = episode.measured()
    np.testing.assert_array_equal(measured.time, [0, 1, 2])
    np.testing.assert_allclose(measured.opening, [0.02, 0.01, 0])
    np.testing.assert_allclose(measured.eef[1], episode.model.chain.forward(np.full(6, 0.1)))


def test_a_camera_shows_it_again(recorded):
    now = 7.0
    episode = RecordedEpisode(recorded)
    camera = episode.camera("wrist", clock=lambda: now)
    camera.connect(1.0)
    now += 0.25
    frames, times = camera.latest(9)
    assert frames.shape == (3, 32, 48, 3)
    np.testing.assert_allclose(times, [7.0, 7.1, 7.2], atol=1e-5)
    with pytest.raises(BrokenEpisode, match="has no camera 'top', expected one of wrist"):
        episode.camera("top")


def test_episodes_are_found_in_the_order_of_time(tmp_path):
    recorder = Recorder(tmp_path, 1000)
    paths = [recorder.begin(META).end(Label.SUCCESS, "") for _ in range(3)]
    left = recorder.begin(META)
    (tmp_path / "notes").mkdir()
    assert find_episodes(tmp_path) == (paths, [left.folder])
    assert find_episodes(paths[1]) == ([paths[1]], [])
    left.abort("")


def test_a_folder_without_episodes_is_told(tmp_path):
    with pytest.raises(FileNotFoundError, match="is no folder .*, expected one of recordings"):
        find_episodes(tmp_path / "none")
    left = Recorder(tmp_path, 1000).begin(META)
    with pytest.raises(FileNotFoundError, match="1 are unfinished, run: uva arm recover"):
        find_episodes(tmp_path)
    left.abort("")


def without(name):
    return lambda path: (path / name).unlink()


def changed_meta(**entries):
    def change(path):
        meta = json.loads((path / "meta.json").read_text())
        (path / "meta.json").write_text(json.dumps({**meta, **entries}))

    return change


def cut_rows(path):
    table = pyarrow.parquet.read_table(path / "steps.parquet")
    pyarrow.parquet.write_table(table.slice(0, 5), path / "steps.parquet")


def without_column(path):
    table = pyarrow.parquet.read_table(path / "steps.parquet")
    pyarrow.parquet.write_table(table.drop_columns(["q"]), path / "steps.parquet")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (without("meta.json"), r"has no meta.json \(No such file or directory\).*copy the episode again"),
        (lambda path: (path / "meta.json").write_text("{"), "is no valid JSON"),
        (changed_meta(format="other 1"), "has the format 'other 1', expected 'uva_lightning episode 1'"),
        (changed_meta(label="good"), "has no usable entry 'good' is not a valid Label"),
        (changed_meta(label=None), "has no usable entry"),
        (changed_meta(films={"wrist": {}}), "has no usable entry 'begun'"),
        (without("video_wrist.mp4"), "lacks video_wrist.mp4"),
        (without("steps.parquet"), "steps.parquet cannot be read"),
        (lambda path: (path / "steps.parquet").write_bytes(b"PAR1"), "steps.parquet cannot be read"),
        (cut_rows, r"has 5 rows, but meta.json says \d\d"),
        (without_column, "lacks q, expected the columns of a recording"),
        (lambda path: (path / "events.jsonl").write_bytes(b"{\n{}\n"), "line 1 of .*events.jsonl is damaged"),
    ],
)
def test_what_is_broken_is_named(copied, change, says):
    change(copied)

    def read():
        episode = RecordedEpisode(copied)
        return episode.events, episode.measured()

    with pytest.raises(BrokenEpisode, match=says):
        read()


def test_numbers_that_are_not_finite_are_named(tmp_path):
    recording = Recorder(tmp_path, 1000).begin(META)
    recording.step({"time": 1.0, "q": np.full(6, np.nan), "opening": 0.0})
    with pytest.raises(BrokenEpisode, match="not finite"):
        RecordedEpisode(recording.end(Label.SUCCESS, "")).measured()
    recording = Recorder(tmp_path, 1000).begin(META)
    recording.step({"time": 1.0, "action": np.zeros((16, 10))})
    episode = RecordedEpisode(recording.end(Label.SUCCESS, ""))
    with pytest.raises(BrokenEpisode, match="no row with a measured pose"):
        episode.measured()
    with pytest.raises(BrokenEpisode, match="an arm that it does not show"):
        list(episode.asked())


def test_an_unknown_arm_is_told(copied):
    changed_meta(arm="X9")(copied)
    with pytest.raises(BrokenEpisode, match="no usable entry 'arm' .*There is no arm model 'X9'"):
        RecordedEpisode(copied).model.chain.forward(np.zeros(6))
    changed_meta(arm=None)(copied)
    assert RecordedEpisode(copied, "X5").model.name == "X5"
