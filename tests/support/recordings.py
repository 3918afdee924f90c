"""Recordings of a simulated station: an ideal arm goes its way before a fake camera, on a clock of its own."""

from dataclasses import asdict
from pathlib import Path

import av
import numpy as np

from uva_lightning.robot.camera import FakeCamera
from uva_lightning.robot.control import Control
from uva_lightning.robot.fake_arm import FakeArm
from uva_lightning.robot.keeper import Keeper
from uva_lightning.robot.limits import Limits
from uva_lightning.robot.operator import Label, ScriptedOperator
from uva_lightning.robot.recorder import Recorder
from uva_lightning.robot.recorder_rows import measured_row, step_row
from uva_lightning.robot.rollout import RolloutRunner
from uva_lightning.robot.sight import History
from uva_lightning.robot.station import KeeperStation
from uva_lightning.robot.tool_poses import to_six

PERIOD = 0.02
READY = np.array([0.0, 1.49, 1.7, -1.2, 0.0, 0.0])
LIMITS = Limits(workspace_min=(0.1, -0.35, -0.03))
META = {"task": "go forward", "arm": "X5_umi", "operator": "nobody", "seed": 3, "limits": asdict(LIMITS)}


class Onwards:
    """Goes along the tool at a constant speed in m/s, and turns about it in rad/s."""

    def __init__(self, speed=0.02, turn=0.1):
        self.speed, self.turn = speed, turn

    def reset(self, seed):
        pass

    def act(self, observation):
        later = 0.2 * np.arange(1, 17)
        chunk = np.zeros((1, 16, 10))
        chunk[0, :, 2] = self.speed * later
        cosine, sine, zero = np.cos(self.turn * later), np.sin(self.turn * later), np.zeros(16)
        matrices = np.stack([cosine, -sine, zero, sine, cosine, zero, zero, zero, zero + 1], axis=1)
        chunk[0, :, 3:9], chunk[0, :, 9] = to_six(matrices.reshape(16, 3, 3)), 0.07
        return chunk


class RecordedRun:
    """One episode; also the measurements and set-points of every ``every``-th tick are recorded."""

    def __init__(self, policy, steps=20, every=2, rate_hz=10.0, limits=LIMITS):
        self.now, self.ticks, self.every, self.recording = 50.0, 0, every, None
        self.arm = FakeArm(clock=lambda: self.now)
        self.arm.q = READY.copy()
        self.keeper = Keeper(self.arm, limits, PERIOD, READY, record=self.event)
        self.keeper.connect(self.now)
        self.keeper.home(self.now)
        self.camera = FakeCamera("wrist", 48, 32, rate_hz, clock=lambda: self.now)
        self.camera.connect(1.0)
        self.wait(0.1)
        self.runner = RolloutRunner(
            policy,
            KeeperStation(self.keeper, lambda: self.now),
            [self.camera],
            ScriptedOperator(self.allow, lambda: Label.FAILURE),
            Control(max_steps=steps),
            History(image_side=32),
            lambda: self.now,
            self.wait,
            lambda step: self.recording.step(step_row(step, self.arm.model.chain)),
        )

    def allow(self, episode):
        self.keeper.allow(self.now)
        return True

    def event(self, kind, text):
        if self.recording is not None:
            self.recording.event(kind, text, self.now)

    def wait(self, seconds):
        for _ in range(max(1, round(seconds / PERIOD))):
            self.now += PERIOD
            self.ticks += 1
            state = self.keeper.tick(self.now)
            if self.recording is not None and self.ticks % self.every == 0:
                row = measured_row(state, self.arm.model.chain)
                self.recording.step(row | {"sent_q": self.arm.q, "sent_opening": self.arm.opening})
                frames, times = self.camera.latest(1)
                self.recording.frame("wrist", frames[-1], float(times[-1]))

    def record(self, folder, label, meta=META):
        self.recording = Recorder(folder, 1000).begin(meta)
        recording, result = self.recording, self.runner.run()
        self.recording = None
        return recording.end(label, result.reason)


def made_recordings(folder: Path, labels=("success",), **options) -> list[Path]:
    """Record an episode for each label, each a little faster than the one before."""
    runs = [RecordedRun(Onwards(0.02 + 0.005 * number), **options) for number in range(len(labels))]
    return [run.record(folder, Label(label)) for run, label in zip(runs, labels, strict=True)]


def picture(number, size=(32, 48)):
    """A grey picture by which a number is known again."""
    return np.full((*size, 3), 10 * number % 250, np.uint8)


def frames_of(path: Path) -> list:
    """Times in s and pictures of a film."""
    with av.open(str(path)) as film:
        return [(float(frame.time), frame.to_ndarray(format="rgb24")) for frame in film.decode(video=0)]
