"""A robot and a camera with exactly the interface of LeRobot's, and, where LeRobot is installed, as its subclasses."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from importlib.util import find_spec

import numpy as np

JOINTS = ("pan", "lift")
URDF = """<robot name="two"><link name="base_link"/>
<link name="a"><inertial><origin xyz="0.2 0 0"/><mass value="1"/></inertial></link>
<link name="b"><inertial><origin xyz="0.1 0 0"/><mass value="0.5"/></inertial></link><link name="eef_link"/>
<joint name="pan" type="revolute"><origin xyz="0 0 0.1"/><parent link="base_link"/><child link="a"/><axis xyz="0 0 1"/>
<limit lower="-1.5" upper="1.5" velocity="3" effort="5"/></joint>
<joint name="lift" type="revolute"><origin xyz="0.2 0 0"/><parent link="a"/><child link="b"/><axis xyz="0 1 0"/>
<limit lower="-1" upper="1" velocity="3" effort="5"/></joint>
<joint name="f" type="fixed"><origin xyz="0.2 0 0"/><parent link="b"/><child link="eef_link"/></joint></robot>"""


class SmallRobot:
    """Two servos and a gripper, in degrees and percent; each step they go a third of the way."""

    name = "small"

    def __init__(self, config=None):
        if hasattr(super(), "observation_features"):  # LeRobot's own class is below
            super().__init__(config)
        self.connected, self.calibrated, self.broken, self.hangs = False, True, False, threading.Event()
        self.hangs.set()
        self.at = {"pan": 10.0, "lift": -5.0, "gripper": 50.0}
        self.goal, self.said = dict(self.at), []
        self.bus = self

    @property
    def observation_features(self):
        return {f"{joint}.pos": float for joint in self.at}

    @property
    def action_features(self):
        return self.observation_features

    @property
    def is_connected(self):
        return self.connected

    @property
    def is_calibrated(self):
        return self.calibrated

    def connect(self, calibrate=True):
        self.hangs.wait(5)
        assert not calibrate
        self.connected = True

    def calibrate(self):
        raise AssertionError("asks questions on a terminal")

    def configure(self):
        pass

    def get_observation(self):
        if self.broken:
            raise ConnectionError("no status packet")
        for joint, goal in self.goal.items():
            self.at[joint] += (goal - self.at[joint]) / 3
        return {f"{joint}.pos": number for joint, number in self.at.items()}

    def send_action(self, action):
        self.said.append(dict(action))
        self.goal = {key.removesuffix(".pos"): number for key, number in action.items()}
        return action

    def disconnect(self):
        self.connected = False

    def disable_torque(self):
        self.said.append("soft")

    def enable_torque(self):
        self.said.append("stiff")


class SmallCamera:
    """Frames that count, 50 a second."""

    def __init__(self, config=None):
        if config is not None:
            super().__init__(config)
        self.fps, self.width, self.height = 50, 16, 12
        self.count, self.error = 0, None

    is_connected = False

    @staticmethod
    def find_cameras():
        return []

    def connect(self, warmup=True):
        if self.error is not None:
            raise self.error

    def read(self):
        return self.async_read()

    def async_read(self, timeout_ms=200.0):
        time.sleep(0.02)
        if self.error is not None:
            raise self.error
        self.count += 1
        return np.full((self.height, self.width, 3), self.count % 256, np.uint8)

    def disconnect(self):
        self.count = -1


if find_spec("lerobot") is not None:
    from lerobot.cameras import Camera, CameraConfig
    from lerobot.robots import Robot, RobotConfig

    @RobotConfig.register_subclass("small")
    @dataclass(kw_only=True)
    class SmallLeRobotConfig(RobotConfig):
        port: str

    class SmallLeRobot(SmallRobot, Robot):
        config_class = SmallLeRobotConfig

    @CameraConfig.register_subclass("counting")
    @dataclass(kw_only=True)
    class SmallLeRobotCameraConfig(CameraConfig):
        pass

    class SmallLeRobotCamera(SmallCamera, Camera):
        pass
