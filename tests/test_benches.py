"""Benches are built again from plain values; a dry run plans and checks everything and sends nothing."""

from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from uva_lightning.datamodules.umi import UMI
from uva_lightning.robot.benches.base import Bench, Kept, Session, dry
from uva_lightning.robot.benches.drivers import SEEN, Driver, Driving, Reaching, TrainedModel
from uva_lightning.robot.benches.fake import READY, FakeBench
from uva_lightning.robot.benches.sim import SimBench
from uva_lightning.robot.camera import FakeCamera
from uva_lightning.robot.control import Control
from uva_lightning.robot.errors import RobotConfigError, RobotUnavailable
from uva_lightning.robot.fake_arm import FakeArm
from uva_lightning.robot.keeper import Mode
from uva_lightning.robot.limits import Limits
from uva_lightning.robot.operator import Label, ScriptedOperator
from uva_lightning.robot.rollout import Ended, RolloutRunner
from uva_lightning.robot.sight import History
from uva_lightning.robot.station import KeeperStation
from uva_lightning.robot.tool_poses import to_six

CONTROL = Control(max_steps=12)
HISTORY = History(image_side=32)
LIMITS = Limits(workspace_min=(0.1, -0.35, -0.03))
SPEC = UMI("nowhere").spec


class Straight:
    """Goes on along the tool at a constant speed."""

    def __init__(self, speed=0.02):
        self.speed = speed

    def reset(self, seed):
        self.seed = seed

    def act(self, observation):
        chunk = np.zeros((1, 16, 10))
        chunk[0, :, 2] = self.speed * 0.2 * np.arange(1, 17)
        chunk[0, :, 3:9], chunk[0, :, 9] = to_six(np.eye(3)), 0.08
        return chunk


class SpyStation(KeeperStation):
    """Remembers what it was asked for."""

    def __init__(self, *args):
        super().__init__(*args)
        self.asked = []

    def begin(self):
        self.asked.append("begin")
        super().begin()

    def send(self, trajectory):
        self.asked.append("send")
        return super().send(trajectory)


class Spied:
    """A bench whose arm remembers every set-point."""

    def __init__(self):
        self.now, self.sent = 0.0, []
        self.arm = FakeArm(clock=lambda: self.now)
        self.arm.q = np.array(READY)
        command = self.arm.command
        self.arm.command = lambda q, opening: (self.sent.append(q), command(q, opening))
        kept = Kept(self.arm, LIMITS, np.array(READY), lambda: self.now, self.advance)
        self.station = SpyStation(kept.keeper, lambda: self.now)
        camera = FakeCamera(clock=lambda: self.now)
        camera.connect(1.0)
        self.closed = 0
        operator = ScriptedOperator(lambda episode: kept.prepare() is None, lambda: Label.SUCCESS)
        self.session = Session(
            self.station, [camera], operator, LIMITS, lambda: self.now, kept.wait, self.close
        )  # fmt: skip
        kept.keeper.connect(0.0)

    def advance(self, seconds):
        self.now += seconds

    def close(self):
        self.closed += 1


def run(session, policy=None):
    runner = RolloutRunner(
        policy or Straight(), session.station, session.cameras, session.operator, CONTROL, HISTORY, session.clock,
        session.wait,
    )  # fmt: skip
    return runner.run()


def test_a_dry_run_sends_nothing_and_plans_everything():
    bench = Spied()
    result = run(dry(bench.session))
    assert (result.ended, result.label, result.chunks, result.rejected) == (Ended.LENGTH, Label.INVALID, 3, 0)
    assert all(step.sent is not None for step in result.steps if step.action is not None)
    assert bench.sent == []
    assert bench.station.asked == []
    assert bench.arm.soft
    np.testing.assert_array_equal(bench.arm.q, READY)
    wet = run(bench.session)
    assert (wet.label, wet.chunks) == (Label.SUCCESS, 3)
    assert bench.sent
    assert "send" in bench.station.asked


def test_a_dry_run_checks_the_limits_and_may_be_repeated():
    bench = Spied()
    session = dry(bench.session)
    for _ in range(2):
        result = run(session, Straight(speed=0.5))
        assert result.ended == Ended.REJECTED, result
    assert run(session).rejected == 0
    assert bench.sent == []
    session.close()
    assert bench.closed == 1


def test_the_fake_bench_runs_several_episodes_and_parks():
    session = FakeBench().open(0)
    for _ in range(2):
        result = run(session)
        assert (result.ended, result.label, result.rejected) == (Ended.LENGTH, Label.FAILURE, 0), result
    session.close()
    assert session.station.keeper.mode == Mode.DISCONNECTED


@pytest.mark.skipif(find_spec("mujoco") is None, reason="needs MuJoCo, extra [sim]")
def test_the_simulated_bench_puts_the_cube_where_the_episode_says():
    bench = SimBench(image_size=32)
    try:
        session = bench.open(3)
    except RobotUnavailable as error:
        pytest.skip(str(error))
    places = []
    for episode in (0, 1, 0):
        assert session.operator.confirm(episode)
        places.append(session.cube()[:2].copy())
        np.testing.assert_allclose(places[-1], bench.place(3, episode), atol=2e-3)
    np.testing.assert_allclose(places[0], places[2], atol=1e-3)
    assert np.linalg.norm(places[0] - places[1]) > 0.005
    assert [camera.name for camera in session.cameras] == list(bench.camera_names)
    session.close()


def test_the_model_must_fit_the_bench():
    TrainedModel().check(FakeBench(), CONTROL, SPEC)
    told = replace(SPEC, text_dim=512)
    TrainedModel(instruction="lift it").check(FakeBench(), CONTROL, told)
    cases = [
        (TrainedModel(), replace(SPEC, action_dim=2), FakeBench(), "actions of 2 numbers"),
        (TrainedModel(), replace(SPEC, state_dims={"agent": 2}), FakeBench(), "agent"),
        (TrainedModel(), SPEC, FakeBench(cameras=("wrist",)), r"name 'camera0' in bench\.cameras"),
        (TrainedModel(), told, FakeBench(), "without an instruction, the model is trained with"),
        (TrainedModel(instruction="lift it"), SPEC, FakeBench(), "with an instruction, the model is trained without"),
        (Reaching(), SPEC, FakeBench(), "FakeBench does not know where the cube is"),
        (TrainedModel(), replace(SPEC, horizon=4, frames=4, state_steps=None), FakeBench(), "more than predict 4"),
    ]
    for driver, spec, bench, words in cases:
        with pytest.raises(RobotConfigError, match=words):
            driver.check(bench, CONTROL, spec)
    Reaching().check(SimBench(), CONTROL, SPEC)
    assert dict(SPEC.state_dims) == SEEN


def test_benches_refuse_what_they_cannot_have():
    with pytest.raises(RobotConfigError, match="at least one, each with its own name"):
        FakeBench(cameras=("a", "a"))
    with pytest.raises(RobotConfigError, match="no camera 'top' in the world, expected wrist or scene"):
        SimBench(cameras={"camera0": "top"})
    with pytest.raises(RobotConfigError, match="expected x and y in m each"):
        SimBench(cube_min=(0.5, 0.0))


@dataclass(frozen=True)
class StraightDriver(Driver):
    """For tests of what is around a policy."""

    trained = False
    speed: float = 0.02

    def check(self, bench: Bench, control: Control, spec: object) -> None:
        return

    def build(self, session: Session, control: Control, weights: Path, seed: int) -> Driving:
        return Driving(Straight(self.speed), control, HISTORY)
