"""Cameras give their newest frames with times, and one that no longer sees says so."""

import numpy as np
import pytest

from uva_lightning.robot.camera import FakeCamera, FreshCamera
from uva_lightning.robot.errors import CameraLost, RobotConfigError, RobotUnavailable
from uva_lightning.robot.video_cameras import ReplayCamera, UvcCamera
from uva_lightning.video_files import write_mp4


class Clock:
    def __init__(self, now=10.0):
        self.now = now

    def __call__(self):
        return self.now


def connected(camera):
    camera.connect(1.0)
    return camera


def test_a_fake_camera_takes_frames_at_its_rate_and_tells_when():
    clock = Clock()
    camera = connected(FakeCamera(rate_hz=10, latency=0.15, clock=clock))
    assert len(camera.latest(5)[0]) == 1  # the first was taken just now
    clock.now += 0.5
    frames, times = camera.latest(3)
    assert frames.shape == (3, 48, 64, 3)
    assert frames.dtype == np.uint8
    np.testing.assert_allclose(times, [10.1, 10.2, 10.3])  # 10.5 less the latency is 10.35
    assert (frames[0] != frames[1]).any()
    assert len(camera.latest(100)[0]) == 6
    np.testing.assert_array_equal(camera.latest(3)[0], frames)
    with pytest.raises(ValueError, match="at least one frame"):
        camera.latest(0)


def test_a_camera_that_is_not_connected_says_so():
    with pytest.raises(CameraLost, match="connect it first"):
        FakeCamera().latest()
    camera = connected(FakeCamera())
    camera.close()
    with pytest.raises(CameraLost, match="connect it first"):
        camera.latest()
    with pytest.raises(CameraLost, match="connect it first"):
        UvcCamera("/dev/video0").latest()


def test_one_whose_times_stand_still_is_lost():
    clock, sensor = Clock(), Clock()
    camera = connected(FreshCamera(FakeCamera(clock=sensor), age=0.5, clock=clock))
    clock.now += 0.45
    camera.latest()
    clock.now += 0.1
    with pytest.raises(CameraLost, match=r"is 0.55 s old, expected at most 0.5 s"):
        camera.latest()
    sensor.now = clock.now
    camera.latest()


class Stuck(FakeCamera):
    """New times, the same pixels: a capture card without a picture."""

    def picture(self, number):
        return super().picture(0)


class Black(FakeCamera):
    def picture(self, number):
        return np.ones((self.height, self.width, 3), np.uint8)


class Backwards(FakeCamera):
    def latest(self, count=1):
        frames, times = super().latest(count)
        return frames, times[::-1]


def test_one_whose_pixels_stand_still_is_lost():
    clock = Clock()
    camera = connected(FreshCamera(Stuck(clock=clock), frozen=1.0, clock=clock))
    for _ in range(10):
        camera.latest()
        clock.now += 0.1
    clock.now += 0.1
    with pytest.raises(CameraLost, match="the very same picture"):
        camera.latest()
    camera.connect(1.0)  # again from the begin
    camera.latest()
    still = connected(FreshCamera(Stuck(clock=clock), frozen=None, clock=clock))
    for _ in range(30):
        still.latest()
        clock.now += 0.1


def test_black_small_or_unordered_frames_are_refused():
    clock = Clock()
    with pytest.raises(CameraLost, match="black frames"):
        connected(FreshCamera(Black(clock=clock), clock=clock)).latest()
    small = FreshCamera(FakeCamera(width=32, clock=clock), clock=clock)
    small.width = 64
    with pytest.raises(CameraLost, match="expected uint8 of"):
        connected(small).latest()
    unordered = connected(FreshCamera(Backwards(clock=clock), clock=clock))
    clock.now += 0.2
    with pytest.raises(CameraLost, match="do not ascend"):
        unordered.latest(3)
    with pytest.raises(RobotConfigError, match="age of camera 'wrist' is 0"):
        FreshCamera(FakeCamera(), age=0)


def test_a_recording_is_played_from_when_it_is_connected(tmp_path):
    shades = np.linspace(20, 220, 5).astype(np.uint8)
    film = np.broadcast_to(shades[:, None, None, None], (5, 256, 256, 3))
    write_mp4(tmp_path / "wrist.mp4", film, 10)
    clock = Clock()
    camera = connected(ReplayCamera(tmp_path / "wrist.mp4", clock=clock))
    assert (camera.width, camera.height) == (256, 256)
    clock.now += 0.21
    frames, times = camera.latest(2)
    np.testing.assert_allclose(times, [10.1, 10.2])
    np.testing.assert_allclose(frames.mean(axis=(1, 2, 3)), shades[1:3], atol=3)  # the codec loses a little
    fresh = FreshCamera(camera, age=0.5, clock=clock)
    fresh.latest()
    clock.now += 1.0
    with pytest.raises(CameraLost, match="old"):  # the film is over
        fresh.latest()


def test_an_array_is_played_at_its_own_times():
    clock = Clock()
    film = np.arange(3, dtype=np.uint8)[:, None, None, None].repeat(4, 1).repeat(6, 2).repeat(3, 3)
    camera = connected(ReplayCamera(film, np.array([5.0, 5.5, 7.0]), latency=0.1, clock=clock))
    clock.now += 0.6
    frames, times = camera.latest(9)
    assert frames[:, 0, 0, 0].tolist() == [0, 1]
    np.testing.assert_allclose(times, [9.9, 10.4])


@pytest.mark.parametrize("times", [None, np.array([0.0, 1.0]), np.array([0.0, 2.0, 1.0]), np.array([0, np.nan, 1])])
def test_times_have_to_fit(times):
    with pytest.raises(RobotConfigError, match="one ascending time per frame"):
        ReplayCamera(np.zeros((3, 4, 6, 3), np.uint8), times)


def test_what_is_no_video_is_refused(tmp_path):
    (tmp_path / "x.mp4").write_bytes(b"nothing")
    with pytest.raises(RobotConfigError, match="cannot be played"):
        ReplayCamera(tmp_path / "x.mp4")
    with pytest.raises(RobotConfigError, match=r"expected uint8 \[n, H, W, 3\]"):
        ReplayCamera(np.zeros((3, 4, 6)), np.arange(3.0))


def test_an_absent_device_is_unavailable(tmp_path):
    with pytest.raises(RobotUnavailable, match="expected a Video4Linux device with 640x480 px at 30 Hz"):
        UvcCamera(str(tmp_path / "video0")).connect(0.2)
