"""A policy sees the frames and the gripper of the same moments, as far apart as in its data."""

import numpy as np
import pytest

from uva_lightning.robot.arm import ArmState
from uva_lightning.robot.arm_model import arm_model
from uva_lightning.robot.camera import FakeCamera
from uva_lightning.robot.errors import RobotConfigError
from uva_lightning.robot.sight import History, Watcher, squared
from uva_lightning.robot.tool_poses import tool_pose

READY = np.array([0.0, 1.49, 1.7, -1.2, 0.0, 0.0])
CHAIN = arm_model("X5_umi").chain
RATE = np.array([0.1, 0.0, -0.05, 0.0, 0.0, 0.0])


class Numbered(FakeCamera):
    """Paints the number of the frame."""

    def picture(self, number):
        return np.full((self.height, self.width, 3), number % 256, np.uint8)


class Bench:
    def __init__(self, latency=0.0, rate_hz=50.0, **history):
        self.now = 0.0
        cameras = [
            Numbered(name, rate_hz=rate_hz, latency=latency, clock=lambda: self.now) for name in ("wrist", "scene")
        ]
        for camera in cameras:
            camera.connect(1.0)
        self.watcher = Watcher(cameras, CHAIN, History(image_side=None, **history), 0.2)

    def look(self):
        state = ArmState(self.now, READY + RATE * self.now, RATE, 0 * RATE, 0.08 - 0.01 * self.now)
        return self.watcher.look(state)

    def run(self, steps, period=0.2):
        for _ in range(steps):
            self.now += period
            self.look()


def test_the_history_is_as_far_apart_as_in_the_data():
    bench = Bench()
    bench.run(16)
    seen = bench.watcher.observation()
    assert seen["video"]["wrist"].shape == (1, 4, 48, 64, 3)
    assert seen["video"]["scene"][0, :, 0, 0, 0].tolist() == [40, 80, 120, 160]  # 0.8, 1.6, 2.4 and 3.2 s at 50 Hz
    np.testing.assert_allclose(
        seen["state"]["gripper_width"][0, :, 0], 0.08 - 0.01 * np.array([0.8, 1.6, 2.4, 3.2]), 1e-5
    )
    pose = {time: tool_pose(CHAIN.forward(READY + RATE * time)) for time in (0.2, 0.8, 3.2)}
    expected = np.linalg.inv(pose[3.2]) @ pose[0.8]
    np.testing.assert_allclose(seen["state"]["eef_pos"][0, 0], expected[:3, 3], atol=1e-5)
    np.testing.assert_allclose(seen["state"]["eef_rot"][0, -1], [1, 0, 0, 0, 1, 0], atol=1e-6)
    turned = pose[0.2][:3, :3].T @ pose[3.2][:3, :3]  # since the begin of the episode
    np.testing.assert_allclose(seen["state"]["eef_rot_wrt_start"][0, -1], turned[:2].ravel(), atol=1e-5)


def test_at_the_begin_the_oldest_is_repeated_and_a_reset_forgets():
    bench = Bench()
    bench.run(6)
    assert bench.watcher.observation()["video"]["wrist"][0, :, 0, 0, 0].tolist() == [10, 10, 20, 60]
    bench.watcher.reset()
    with pytest.raises(ValueError, match="look first"):
        bench.watcher.observation()
    bench.run(1)
    assert bench.watcher.observation()["video"]["wrist"][0, :, 0, 0, 0].tolist() == [70] * 4


def test_proprioception_may_be_of_every_step():
    bench = Bench(states=16)
    bench.run(20)
    seen = bench.watcher.observation()
    assert seen["video"]["wrist"].shape[1] == 4
    np.testing.assert_allclose(seen["state"]["gripper_width"][0, :, 0], 0.08 - 0.002 * np.arange(5, 21), 1e-5)
    with pytest.raises(RobotConfigError, match=r"history.frames is 0, expected at least 1"):
        History(frames=0)


def test_irregular_steps_do_not_stretch_the_history():
    bench = Bench()
    bench.run(4)
    bench.run(1, 1.2)  # the policy thought for long
    bench.run(4)
    assert bench.watcher.observation()["video"]["wrist"][0, :, 0, 0, 0].tolist() == [20, 40, 100, 140]


def test_the_arm_is_where_it_was_when_the_frame_was_taken():
    bench = Bench(latency=0.17, rate_hz=100.0)
    bench.run(30, 0.1)
    sight = bench.look()
    assert sight.time == pytest.approx(2.83)
    np.testing.assert_allclose(sight.q, READY + RATE * 2.83, atol=1e-9)
    assert sight.opening == pytest.approx(0.08 - 0.0283)


def test_cameras_have_names_of_their_own():
    with pytest.raises(RobotConfigError, match="each with its own name"):
        Watcher([FakeCamera("a"), FakeCamera("a")], CHAIN, History(), 0.2)
    with pytest.raises(RobotConfigError, match="at least one"):
        Watcher([], CHAIN, History(), 0.2)


def test_frames_are_cropped_in_the_middle():
    frame = np.zeros((90, 160, 3), np.uint8)
    frame[:, 35:125] = 200
    assert (squared(frame, 45) == 200).mean() > 0.95
    assert squared(frame, 45).shape == (45, 45, 3)
    assert squared(frame.transpose(1, 0, 2), 64).shape == (64, 64, 3)
    assert squared(frame, None) is frame
