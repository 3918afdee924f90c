"""A folder of videos becomes episodes without actions."""

import json
import pickle

import numpy as np
import pytest

pytest.importorskip("av")
import av

from films import numbered, numbers_of, write_film
from uva_lightning.datamodules.faults import Broken
from uva_lightning.datamodules.instructions import RandomInstructions
from uva_lightning.datamodules.reading import Reading
from uva_lightning.datamodules.videos import Videos
from uva_lightning.datamodules.windows import Window


@pytest.fixture
def folder(tmp_path):
    """Three videos of other rates, sizes and containers, and a file that is none."""
    write_film(tmp_path / "b.mp4", numbered(120), rate=30)
    write_film(tmp_path / "a/second.mkv", numbered(50, (64, 48)), rate=10)
    write_film(tmp_path / "a/first.MOV", numbered(100, (64, 48)), rate=20)
    (tmp_path / "a/notes.md").write_text("no video")
    (tmp_path / "a/._first.mov").write_text("left by another system")
    return tmp_path


def test_every_video_is_an_episode_at_the_rate_of_the_facts(folder):
    store = Videos(folder, image_size=48, rate_hz=10).store
    assert store.names == ["a/first.MOV", "a/second.mkv", "b.mp4"]
    assert store.lengths.tolist() == [50, 50, 40]
    assert (store.action, store.state, store.instructions) == (None, {}, None)
    frames = pickle.loads(pickle.dumps(store.video["camera"]))
    assert frames.shape == (140, 48, 48, 3)
    expected = np.concatenate([np.arange(0, 100, 2), np.arange(50), np.arange(0, 120, 3)]) % 62
    order = np.random.default_rng(0).permutation(140)
    np.testing.assert_array_equal(numbers_of(frames[order]), expected[order])


def test_a_rate_above_that_of_the_video_repeats_frames(folder):
    data = Videos(folder, image_size=48, rate_hz=20)
    assert data.spec.rate_hz == 20
    assert data.store.lengths.tolist() == [100, 100, 80]
    shown = numbers_of(data.store.video["camera"][100:106])
    assert np.abs(shown - np.arange(6) / 2).max() <= 0.5


def test_batches_without_actions(folder):
    data = Videos(folder, image_size=32, batch_size=4, window=Window(pad=(1, 7)), text=RandomInstructions())
    with pytest.raises(ValueError, match="has no instructions"):
        data.setup("fit")
    (folder / "captions.json").write_text(json.dumps({"b.mp4": "a hand lifts a cup", "a/first.MOV": "nothing"}))
    (folder / "a/first.txt").write_text("a towel\nis folded\n")
    data = Videos(folder, image_size=32, batch_size=4, window=Window(pad=(1, 7)), text=RandomInstructions())
    data.setup("fit")
    assert data.store.instructions == ["a towel is folded", "", "a hand lifts a cup"]
    batch = next(iter(data.train_dataloader()))
    assert batch.video["camera"].shape == (4, 8, 32, 32, 3)
    assert batch.action is None
    assert "action" not in batch.present or not batch.present["action"].any()


def test_captions_that_do_not_fit(folder):
    file = folder / "captions.json"
    for content, words in (
        ("{", r"captions\.json is no valid JSON"),
        ('{"b.mp4": 3}', 'is expected to hold {"video.mp4": "what is done"}'),
        ('{"c.mp4": "x"}', r"speaks of c\.mp4 \(1 in all\), which are not there; expected names such as a/first"),
    ):
        file.write_text(content)
        with pytest.raises(ValueError, match=words):
            Videos(folder).store  # noqa: B018


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("empty.mp4", b"", r"empty\.mp4 cannot be opened as a video"),
        ("text.avi", b"not a video" * 100, r"text\.avi cannot be opened as a video"),
    ],
)
def test_broken_videos_stop_or_are_counted(folder, name, content, words):
    (folder / name).write_bytes(content)
    with pytest.raises(Broken, match=words):
        Videos(folder).store  # noqa: B018
    data = Videos(folder, reading=Reading(on_error="skip"))
    with pytest.warns(UserWarning, match="1 broken episodes were left out, 3 are whole"):
        assert data.store.episodes == 3


def test_videos_that_are_too_short(folder):
    write_film(folder / "z.mp4", numbered(20), rate=10)
    with pytest.raises(Broken, match=r"z\.mp4 has 20 steps at 10 Hz, expected at least 24 for a window"):
        Videos(folder).store  # noqa: B018
    assert Videos(folder, window=Window(allow_short_episodes=True)).store.episodes == 4
    with pytest.warns(UserWarning, match="1 broken episodes were left out"):
        assert Videos(folder, reading=Reading(on_error="skip")).store.episodes == 3


def test_a_video_that_is_cut_off(folder):
    file = write_film(folder / "z.mp4", numbered(60), rate=10, container={"movflags": "faststart"})
    file.write_bytes(file.read_bytes()[:-500])
    with pytest.raises(Broken, match=r"z\.mp4 is cut off after \d+ of 60 frames"):
        Videos(folder).store  # noqa: B018


def test_identity_follows_the_files(folder):
    one = Videos(folder).store.identity
    assert Videos(folder).store.identity == one
    assert Videos(folder, rate_hz=5, window=Window(allow_short_episodes=True)).store.identity != one
    write_film(folder / "b.mp4", numbered(121), rate=30)
    assert Videos(folder).store.identity != one


def test_nothing_there(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"There is no folder .*nowhere, expected one with videos \(\.avi"):
        Videos(tmp_path / "nowhere").store  # noqa: B018
    with pytest.raises(FileNotFoundError, match="has no videos .* in it or below"):
        Videos(tmp_path).store  # noqa: B018
    with pytest.raises(ValueError, match="rate_hz is 0, expected more than 0"):
        Videos(tmp_path, rate_hz=0)


def test_a_phone_held_upright(tmp_path):
    """The file keeps the picture as the sensor saw it, and by how much to turn it counter-clockwise."""
    bright = np.zeros((48, 64, 3), np.uint8)
    bright[:16, :16] = 255
    with av.open(str(tmp_path / "x.mp4"), "w") as file:
        stream = file.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        if not hasattr(stream, "set_display_rotation"):
            pytest.skip("this PyAV cannot write how a phone was held")
        stream.set_display_rotation(90)
        for _ in range(40):
            file.mux(stream.encode(av.VideoFrame.from_ndarray(bright, format="rgb24")))
        file.mux(stream.encode())
    picture = Videos(tmp_path, image_size=64, reading=Reading(fit="stretch")).store.video["camera"][:1][0]
    assert picture[-8:, :8].mean() > 200
    assert picture[:8, :8].mean() < 50
