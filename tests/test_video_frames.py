"""Frames that stay in video files: any order, any container, any distance of the keyframes."""

import gc
import multiprocessing
import pickle

import numpy as np
import pytest

av = pytest.importorskip("av")

from films import numbered, numbers_of, write_film  # noqa: E402
from uva_lightning.datamodules.faults import Broken  # noqa: E402
from uva_lightning.datamodules.film import Film  # noqa: E402
from uva_lightning.datamodules.video_frames import Clip, VideoFrames  # noqa: E402
from uva_lightning.video_speed import window_speed  # noqa: E402

COUNT, SIZE = 60, (48, 64)
FILES = {
    "x.mp4": {},
    "every_second.mp4": {"gop": 2},
    "one_keyframe.mp4": {"gop": 250},
    "av1.mp4": {"codec": "libsvtav1", "gop": 2, "options": {"preset": "10"}},
    "x.mkv": {},
    "x.avi": {"codec": "mpeg4", "options": {"bf": "0", "qmax": "2"}},
    "x.webm": {"codec": "libvpx-vp9", "options": {"deadline": "realtime"}},
    "x.mov": {"codec": "mjpeg"},
}


@pytest.fixture
def film(tmp_path):
    def make(name="x.mp4", count=COUNT, first=0, **options):
        return write_film(tmp_path / name, numbered(count, first=first), **options)

    return make


@pytest.mark.parametrize("name", FILES)
def test_any_frames_in_any_order(name, film):
    frames = VideoFrames([Clip(film(name, **FILES[name]), COUNT)], 10, SIZE)
    assert (frames.shape, frames.dtype, len(frames)) == ((COUNT, *SIZE, 3), np.uint8, COUNT)
    np.testing.assert_array_equal(numbers_of(frames[:]), np.arange(COUNT))
    rng = np.random.default_rng(0)
    for _ in range(20):
        wanted = rng.integers(0, COUNT, 7)
        frames._forget()
        np.testing.assert_array_equal(numbers_of(frames[wanted]), wanted)
    wanted = np.array([59, 3, 3, 30])
    np.testing.assert_array_equal(numbers_of(frames[wanted]), wanted)
    np.testing.assert_array_equal(numbers_of(frames[50:40:-3]), [50, 47, 44, 41])
    assert frames[np.zeros(0, np.int64)].shape == (0, *SIZE, 3)
    with pytest.raises(IndexError, match="60 were asked for"):
        frames[np.array([60])]


def test_only_the_frames_since_the_keyframe_are_decoded(film, monkeypatch):
    decoded = []
    plain = Film._frames

    def counted(self):
        for number, frame in plain(self):
            decoded.append(number)
            yield number, frame

    monkeypatch.setattr(Film, "_frames", counted)
    frames = VideoFrames([Clip(film(gop=12), COUNT)], 10, SIZE, cache_bytes=0)
    frames[np.array([30, 27])]
    assert decoded == list(range(24, 31))
    frames[np.array([33])]
    assert decoded == list(range(24, 34))  # goes on where it stands
    frames[np.array([32])]
    assert decoded == [*range(24, 34), *range(24, 33)]


def test_many_episodes_in_many_files(film):
    clips = [
        Clip(film("a.mp4"), 20, 1.0),
        Clip(film("b.mp4", first=1, rate=10), 30, 0.0),
        Clip(film("a.mp4"), 10, 4.0),
    ]
    frames = VideoFrames(clips, 10, SIZE, open_files=1)
    expected = np.concatenate([np.arange(10, 30), np.arange(1, 31), np.arange(40, 50)])
    order = np.random.default_rng(0).permutation(60)
    np.testing.assert_array_equal(numbers_of(frames[order]), expected[order])
    assert len(frames._films) == 1


def test_memory_is_bounded(film):
    frames = VideoFrames([Clip(film(), COUNT)], 10, SIZE, cache_bytes=5 * 48 * 64 * 3)
    for first in range(0, 60, 7):
        frames[first : first + 7]
        assert frames._held == sum(picture.nbytes for picture in frames._kept.values()) <= frames.cache_bytes
    assert len(frames._kept) == 5


def test_rates_are_resampled_by_the_nearest_frame(film):
    frames = VideoFrames([Clip(film(rate=30), 20)], 10, SIZE)
    np.testing.assert_array_equal(numbers_of(frames[:]), np.arange(0, 60, 3))


def _read(frames, queue):
    queue.put(numbers_of(frames[np.array([7, 50])]).tolist())


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_other_processes_open_the_files_anew(film, method):
    frames = VideoFrames([Clip(film(), COUNT)], 10, SIZE)
    frames[10:12]
    assert not pickle.loads(pickle.dumps(frames))._films
    context = multiprocessing.get_context(method)
    queue = context.Queue()
    processes = [context.Process(target=_read, args=(frames, queue)) for _ in range(2)]
    for process in processes:
        process.start()
    assert [queue.get(timeout=60) for _ in processes] == [[7, 50]] * 2
    for process in processes:
        process.join()
    np.testing.assert_array_equal(numbers_of(frames[12:14]), [12, 13])


def _read_and_collect(frames):
    frames[np.array([7])]
    gc.collect()  # frees what was inherited


def test_what_a_worker_inherits_can_be_freed(film):
    """A converter of colours with threads of its own would keep the worker waiting for ever."""
    frames = VideoFrames([Clip(film(), COUNT)], 10, SIZE)
    frames[10:12]
    process = multiprocessing.get_context("fork").Process(target=_read_and_collect, args=(frames,))
    process.start()
    process.join(timeout=30)
    alive = process.is_alive()
    process.kill()
    process.join()
    assert not alive


def test_too_few_frames(film):
    frames = VideoFrames([Clip(film(count=50), COUNT, name="episode 3")], 10, SIZE)
    np.testing.assert_array_equal(numbers_of(frames[:50]), np.arange(50))
    with pytest.raises(Broken, match=r"episode 3: .*x\.mp4 lacks 10 of the 60 frames, first asked for at 5\.50 s"):
        frames[np.array([3, 55])]


def test_pictures_of_another_size(film):
    with pytest.raises(Broken, match="has pictures of 48 x 64 px, expected 96 x 96"):
        VideoFrames([Clip(film(), COUNT)], 10, (96, 96))[:2]


@pytest.mark.parametrize("place", ["end", "front"])
def test_a_file_that_is_cut_off(film, place):
    path = film(container={"movflags": "faststart"} if place == "front" else {})
    path.write_bytes(path.read_bytes()[:-900])
    with pytest.raises(ValueError, match=r"cut off after \d+ of 60 frames; copy" if place == "front" else "cannot be"):
        Film(path).header()
    with pytest.raises(Broken, match=r"a video: .*x\.mp4 "):
        VideoFrames([Clip(path, COUNT)], 10, SIZE)[:]


def test_what_is_no_video(tmp_path):
    (tmp_path / "a.mp4").write_text("version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(Broken, match=r"a\.mp4 cannot be opened as a video .*git lfs pull"):
        VideoFrames([Clip(tmp_path / "a.mp4", 5)], 10, SIZE)[:]
    with pytest.raises(Broken, match=r"b\.mp4 cannot be opened as a video \(No such file"):
        VideoFrames([Clip(tmp_path / "b.mp4", 5)], 10, SIZE)[:]


def test_speed_is_measured(film):
    speed = window_speed(VideoFrames([Clip(film(), COUNT)], 10, SIZE), windows=3)
    assert min(speed.seeking, speed.whole, speed.lean, speed.opening) > 0
    assert "ms a window; decoding all its steps takes" in speed.sentence()
