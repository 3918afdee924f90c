"""Any data set becomes a LeRobot dataset v3.0 that reads back as it was."""

import json
import resource

import numpy as np
import pytest

pytest.importorskip("av")
pytest.importorskip("pyarrow")

import pyarrow.parquet as parquet

from films import numbered, numbers_of, write_film
from lerobot_sets import LENGTHS, TASKS, numbers, write_set
from uva_lightning.cli import main
from uva_lightning.commands.convert import TARGETS
from uva_lightning.datamodules.frames import LazyFrames
from uva_lightning.datamodules.lerobot.convert import compare, to_lerobot
from uva_lightning.datamodules.lerobot.films import Compression, Films
from uva_lightning.datamodules.lerobot.stats import Moments
from uva_lightning.datamodules.lerobot.writing import write_dataset
from uva_lightning.datamodules.lerobot_dataset import LeRobot
from uva_lightning.datamodules.pusht import PushT
from uva_lightning.datamodules.store import EpisodeStore
from uva_lightning.types import DataSpec

SPEC = DataSpec(("top", "wrist"), 48, 2, {"arm": 3, "gripper": 1}, 12.5, action_meaning="x, y")
FAST = Compression(10)


def made_up(lengths=(30, 20), **changes):
    rng, steps = np.random.default_rng(0), sum(lengths)
    parts = {
        "video": {"top": numbered(steps, (48, 48)), "wrist": numbered(steps, (48, 48), first=7)},
        "action": rng.normal(size=(steps, 2)).astype(np.float32),
        "state": {name: rng.normal(size=(steps, n)).astype(np.float32) for name, n in SPEC.state_dims.items()},
        "ends": np.cumsum(lengths),
        "instructions": ["b", "a"],
    }
    return EpisodeStore(**{**parts, **changes})


def written(path, store, spec=SPEC, compression=FAST):
    path.mkdir()
    write_dataset(path, store, spec, compression)
    return path


def uva(*args):
    try:
        return main([str(arg) for arg in args])
    except SystemExit as stop:
        return int(stop.code or 0)


def test_what_is_written_reads_back(tmp_path):
    store = made_up()
    path = written(tmp_path / "set", store)
    difference = compare(path, store, SPEC)
    assert difference.pictures == 2 * 50
    assert difference.largest < 3
    data = LeRobot(path, 48)
    assert (data.spec.rate_hz, data.spec.action_meaning) == (12.5, "x, y")
    assert data.spec.state_dims == {"arm": 3, "gripper": 1}
    np.testing.assert_array_equal(data.store.action, store.action)
    np.testing.assert_array_equal(data.store.state["gripper"], store.state["gripper"])
    assert data.store.instructions == ["b", "a"]
    for camera, first in (("top", 0), ("wrist", 7)):
        np.testing.assert_array_equal(numbers_of(data.store.video[camera][:]), numbers_of(numbered(50, first=first)))


def test_without_actions_and_instructions(tmp_path):
    store = made_up(action=None, state={}, instructions=None)
    path = written(tmp_path / "set", store)
    compare(path, store, SPEC)
    read = LeRobot(path, 48).store
    assert (read.action, read.instructions) == (None, None)


def test_a_single_state_is_called_as_lerobot_calls_it(tmp_path):
    store = made_up()
    store = made_up(state={"arm": store.state["arm"]})
    path = written(tmp_path / "set", store)
    assert "observation.state" in json.loads((path / "meta/info.json").read_text())["features"]
    compare(path, store, SPEC)


def test_new_files_begin_between_episodes(tmp_path, monkeypatch):
    monkeypatch.setattr("uva_lightning.datamodules.lerobot.films.MEGABYTE", 1)
    monkeypatch.setattr("uva_lightning.datamodules.lerobot.writing.DATA_MB", 0)
    lengths = (300, 300, 20)
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (620, 48, 48, 3), np.uint8) // 8 + numbered(620, (48, 48)) // 2
    store = made_up(lengths, instructions=None, video={"top": noise})
    path = written(tmp_path / "set", store)
    assert len(list(path.glob("videos/**/*.mp4"))) == len(list(path.glob("data/**/*.parquet"))) == 3
    compare(path, store, SPEC)


def test_statistics_are_those_of_the_numbers(tmp_path):
    store = made_up()
    path = written(tmp_path / "set", store)
    stats = json.loads((path / "meta/stats.json").read_text())
    for name, expected in (("min", np.min), ("max", np.max), ("mean", np.mean), ("std", np.std)):
        np.testing.assert_allclose(stats["action"][name], expected(store.action.astype(float), axis=0), rtol=1e-9)
    assert stats["action"]["count"] == [50]
    picture = stats["observation.images.top"]
    assert np.shape(picture["mean"]) == (3, 1, 1)
    np.testing.assert_allclose(np.ravel(picture["mean"]), store.video["top"].mean((0, 1, 2)) / 255, rtol=1e-6)
    rows = parquet.read_table(path / "meta/episodes/chunk-000/file-000.parquet").to_pylist()
    np.testing.assert_allclose(rows[1]["stats/action/mean"], store.action[30:].astype(float).mean(0), rtol=1e-9)
    assert [row["dataset_to_index"] for row in rows] == [30, 50]


def test_moments_of_parts_are_those_of_the_whole():
    values = np.random.default_rng(0).normal(1e6, 1e-2, (1000, 3))
    moments = Moments()
    for part in np.split(values, [1, 400, 999]):
        moments.add(part)
    np.testing.assert_allclose(moments.entry()["std"], values.std(0), rtol=1e-5)


def test_a_difference_is_found(tmp_path):
    store = made_up()
    path = written(tmp_path / "set", store)
    other = made_up(action=store.action + 1)
    with pytest.raises(ValueError, match="differs from the source in action, expected equal ones"):
        compare(path, other, SPEC)
    with pytest.raises(ValueError, match="differs from the source in instructions"):
        compare(path, made_up(instructions=["a", "a"]), SPEC)
    shifted = {**store.video, "top": numbered(50, (48, 48), first=5)}
    with pytest.raises(ValueError, match=r"Picture \d+ of 'top' in episode 0 differs by .* lower --crf"):
        compare(path, made_up(video=shifted), SPEC)


def test_one_picture_that_is_another_is_found(tmp_path):
    """An encoder that mixes up a single picture must not pass, wherever in an episode it is."""
    store = made_up()
    path = written(tmp_path / "set", store)
    swapped = store.video["wrist"].copy()
    swapped[13] = swapped[29]
    with pytest.raises(ValueError, match="Picture 13 of 'wrist' in episode 0 differs by"):
        compare(path, made_up(video={**store.video, "wrist": swapped}), SPEC)


class _MixedUp:
    """An encoder's output in which one packet bears the time of a later picture, as seen of SVT-AV1 4.1.0."""

    def __init__(self, stream):
        self.stream, self.flushed = stream, False

    def encode(self, picture=None):
        self.flushed = self.flushed or picture is None
        packets = self.stream.encode(picture)
        for packet in packets:
            if packet.pts == 5:
                packet.pts = packet.dts = 12
        return packets


def test_an_encoder_that_mixes_up_pictures_is_noticed_and_not_flushed(tmp_path, monkeypatch):
    made, plain = [], Films._next

    def following(self):
        plain(self)
        self._stream = _MixedUp(self._stream)
        made.append(self._stream)

    monkeypatch.setattr(Films, "_next", following)
    with pytest.raises(ValueError, match=r"libx264 gave back picture 12 where 5 was due .*convert again"):
        written(tmp_path / "set", made_up((80, 80)))
    assert not any(stream.flushed for stream in made)  # one that lost a picture was seen to wait for it for ever


def test_pictures_that_no_video_can_hold(tmp_path):
    store = made_up(video={"top": numbered(50, (47, 48))})
    with pytest.raises(ValueError, match="Pictures are 47 x 48 px, expected even numbers"):
        written(tmp_path / "set", store)
    with pytest.raises(ValueError, match="crf is 64, expected 0"):
        Compression(crf=64)


class Drawn(LazyFrames):
    """Pictures that are never all in memory."""

    largest = 0

    def _read(self, steps):
        type(self).largest = max(self.largest, len(steps))
        return np.broadcast_to((steps % 60 * 4).astype(np.uint8)[:, None, None, None], (len(steps), *self.shape[1:]))


def test_memory_does_not_grow_with_the_set(tmp_path):
    """1.8 GB of pictures go through some megabytes."""
    steps = 600
    store = made_up((300, 300), video={"top": Drawn((steps, 1000, 1000, 3))})
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    written(tmp_path / "set", store, SPEC, Compression(40))
    assert Drawn.largest <= 100
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1_200_000


def test_the_command(tmp_path, capsys):
    source = write_set(tmp_path / "source")
    out = tmp_path / "out"
    options = ["--data", "LeRobot", "--data.path", source, "--data.image_size", "48"]
    assert uva("convert", "lerobot", *options, "--out", out) == 0
    said = capsys.readouterr().out
    assert f"{out}: 3 episodes, {sum(LENGTHS)} steps" in said
    assert "numbers, ends and instructions are equal" in said
    store = LeRobot(out, 48).store
    np.testing.assert_array_equal(store.action, numbers()[0])
    assert store.instructions == [TASKS[0], TASKS[1], TASKS[0]]
    assert uva("convert", "lerobot", *options, "--out", out) == 2
    assert "exists and is not empty, expected a new folder" in capsys.readouterr().err


def test_nothing_is_left_half(tmp_path, capsys):
    source = write_set(tmp_path / "source")
    write_film(next(source.glob("videos/**/episode_000002.mp4")), numbered(20))
    options = ["--data", "LeRobot", "--data.path", source, "--data.image_size", "48"]
    assert uva("convert", "lerobot", *options, "--out", tmp_path / "out") == 2
    assert "has 20 frames, but its table has 36 rows" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_the_command_lists_what_data_can_become(capsys):
    assert uva("convert") == uva("convert", "--help") == 0
    said = capsys.readouterr().out
    assert "usage: uva convert NAME" in said
    assert all(name in said for name in TARGETS)
    assert uva("convert", "lerbot") == 2
    assert capsys.readouterr().err == "uva: error: uva convert knows no 'lerbot'. Did you mean 'lerobot'?\n"


@pytest.mark.parametrize("target", TARGETS)
def test_every_target_has_help(target, capsys):
    assert uva("convert", target, "--help") == 0
    assert "--out" in capsys.readouterr().out


def test_a_data_class_reads_what_was_made_of_its_data(tiny_data, tmp_path):
    data = tiny_data()
    to_lerobot(data, tmp_path / "set")
    again = PushT(tmp_path / "set").store
    np.testing.assert_array_equal(again.action, data.store.action)
    np.testing.assert_array_equal(again.state["agent"], data.store.state["agent"])
