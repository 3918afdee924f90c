"""Episodes go from observation to arm and end in a hold, whatever the policy, the camera or the arm do."""

from dataclasses import replace
from importlib.util import find_spec

import numpy as np
import pytest

from uva_lightning.robot.camera import FakeCamera, FreshCamera
from uva_lightning.robot.control import Control
from uva_lightning.robot.errors import RobotUnavailable
from uva_lightning.robot.fake_arm import FakeArm
from uva_lightning.robot.keeper import Keeper, Mode
from uva_lightning.robot.limits import Limits
from uva_lightning.robot.operator import Label, ScriptedOperator
from uva_lightning.robot.reaching import ReachingPolicy
from uva_lightning.robot.rollout import Ended, RolloutRunner
from uva_lightning.robot.sight import History
from uva_lightning.robot.station import KeeperStation
from uva_lightning.robot.tool_poses import to_six

PERIOD = 0.01
READY = np.array([0.0, 1.49, 1.7, -1.2, 0.0, 0.0])
LIMITS = Limits(workspace_min=(0.1, -0.35, -0.03))
CONTROL = Control(max_steps=20)
HISTORY = History(image_side=32)


class Straight:
    """Goes on along the tool at a constant speed; remembers what it saw."""

    def __init__(self, speed=0.02, act=None):
        self.speed, self.seen, self.seeds, self._act = speed, [], [], act

    def reset(self, seed):
        self.seeds.append(seed)

    def act(self, observation):
        self.seen.append(observation)
        chunk = np.zeros((1, 16, 10))
        chunk[0, :, 2] = self.speed * 0.2 * np.arange(1, 17)
        chunk[0, :, 3:9], chunk[0, :, 9] = to_six(np.eye(3)), 0.08
        return chunk if self._act is None else self._act(len(self.seen), chunk)


class Bench:
    """An arm at home, its keeper, a camera, and a clock that goes when somebody waits."""

    def __init__(self, policy, camera=None, arm=None, control=CONTROL, done=lambda: False, history=HISTORY, **options):
        self.now, self.events, self.steps = 0.0, [], []
        self.arm = arm or FakeArm(clock=lambda: self.now)
        self.arm.clock = lambda: self.now
        self.arm.q = READY.copy()
        record = lambda event, said: self.events.append((self.now, event, said))  # noqa: E731
        self.keeper = Keeper(self.arm, LIMITS, PERIOD, READY, record=record)
        self.keeper.connect(self.now)
        self.keeper.home(self.now)
        self.wait(0.1)
        self.camera = FreshCamera(camera or FakeCamera(clock=lambda: self.now), clock=lambda: self.now)
        self.camera.connect(1.0)
        self.labels = []
        self.runner = RolloutRunner(
            policy,
            KeeperStation(self.keeper, lambda: self.now),
            [self.camera],
            ScriptedOperator(self.allow, self.judge, done),
            control,
            history,
            lambda: self.now,
            self.wait,
            self.steps.append,
            **options,
        )

    def wait(self, seconds):
        for _ in range(max(1, round(seconds / PERIOD))):
            self.now += PERIOD
            self.keeper.tick(self.now)

    def allow(self, episode):
        self.keeper.allow(self.now)
        return True

    def judge(self):
        self.labels.append(self.now)
        return Label.FAILURE


def test_an_episode_goes_where_the_policy_says():
    policy = Straight()
    bench = Bench(policy, constant={"text": {"instruction": np.ones((1, 512), np.float32)}})
    before = bench.arm.model.chain.forward(bench.arm.q)
    result = bench.runner.run(episode=7, seed=3)
    assert (result.episode, result.label, result.ended) == (7, Label.FAILURE, Ended.LENGTH)
    assert (len(result.steps), result.chunks, result.rejected) == (20, 5, 0)
    assert result.duration == pytest.approx(4.0)
    assert policy.seeds == [3]
    after = bench.arm.model.chain.forward(bench.arm.q)
    way = before[:3, :3].T @ (after[:3, 3] - before[:3, 3])
    np.testing.assert_allclose(way, [0.08, 0, 0], atol=0.005)  # 4 s at 0.02 m/s, along the arm's x: the tool's z
    np.testing.assert_allclose(after[:3, :3], before[:3, :3], atol=1e-3)
    assert bench.steps == list(result.steps)
    assert bench.keeper.mode == Mode.HOLD
    seen = policy.seen[-1]
    assert seen["video"]["wrist"].shape == (1, 4, 32, 32, 3)
    assert seen["text"]["instruction"].shape == (1, 512)
    assert {name: value.shape for name, value in seen["state"].items()} == {
        "eef_pos": (1, 4, 3),
        "eef_rot": (1, 4, 6),
        "gripper_width": (1, 4, 1),
        "eef_rot_wrt_start": (1, 4, 6),
    }
    np.testing.assert_allclose(seen["state"]["eef_pos"][0, :, 2], [-0.048, -0.032, -0.016, 0], atol=0.002)
    assert set(result.latencies()) == {"age", "inference", "late"}
    assert len(result.latencies()["inference"]) == 5


def test_nothing_moves_without_the_operator():
    bench = Bench(Straight())
    bench.runner.operator = ScriptedOperator(lambda episode: False, bench.judge)
    result = bench.runner.run()
    assert (result.label, result.ended, result.steps) == (Label.INVALID, Ended.REFUSED, ())
    bench.runner.operator = ScriptedOperator(lambda episode: True, bench.judge)  # says yes, but the arm was not allowed
    result = bench.runner.run()
    assert result.ended == Ended.FAULT
    assert "NotArmed" in result.reason
    np.testing.assert_array_equal(bench.arm.q, READY)


def test_the_operator_ends_an_episode_at_once():
    policy = Straight()
    bench = Bench(policy, done=lambda: len(policy.seen) == 2)
    result = bench.runner.run()
    assert (result.ended, result.label, len(result.steps)) == (Ended.OPERATOR, Label.FAILURE, 5)
    assert bench.keeper.mode == Mode.HOLD


def broken(number, chunk):
    raise RuntimeError("no memory")


WRONG = {
    "RuntimeError: no memory": broken,
    "NonFinite": lambda number, chunk: chunk * np.nan,
    "BadShape: The policy gives shape": lambda number, chunk: chunk[0],
    "BadShape: The chunk has shape": lambda number, chunk: chunk[:, :5],
    "Unreachable": lambda number, chunk: chunk + 2.0 * np.eye(10)[2],
    "OutOfLimits": lambda number, chunk: chunk + 0.1 * np.eye(10)[9],
    "ActionRejected: Rows of a rotation": lambda number, chunk: chunk * (np.arange(10) > 8),
}


@pytest.mark.parametrize("reason", WRONG)
def test_a_policy_that_goes_wrong_is_held(reason):
    bench = Bench(Straight(act=lambda number, chunk: chunk if number == 1 else WRONG[reason](number, chunk)))
    result = bench.runner.run()
    assert result.ended == Ended.REJECTED
    assert reason in result.reason
    assert (result.rejected, result.chunks) == (3, 4)
    assert [step.number for step in result.steps if step.rejected] == [4, 5, 6]
    assert bench.keeper.mode == Mode.HOLD
    assert len(bench.labels) == 1


def test_it_goes_on_after_one_refusal():
    bench = Bench(Straight(act=lambda number, chunk: chunk * np.nan if number in (2, 4) else chunk))
    result = bench.runner.run()
    assert (result.ended, result.rejected) == (Ended.LENGTH, 2)
    sent = [step.number for step in result.steps if step.sent is not None]
    assert sent == [0, 5, 10, 14, 18]  # again at the next step, then after four


def test_a_policy_that_thinks_too_long_is_stopped_by_the_watchdog():
    bench = Bench(None)

    def act(number, chunk):
        bench.wait(0.4)
        return chunk

    bench.runner.policy = Straight(act=act)
    result = bench.runner.run()
    assert (result.ended, result.label) == (Ended.FAULT, Label.INVALID)
    assert "no heartbeat" in result.reason
    assert not bench.labels  # nobody is asked about an episode that says nothing


def test_old_heads_of_a_chunk_are_dropped():
    bench = Bench(None)

    def act(number, chunk):
        bench.wait(0.2)
        return chunk

    bench.runner.policy = Straight(act=act)
    result = bench.runner.run()
    assert (result.ended, result.rejected) == (Ended.LENGTH, 0)
    first = result.steps[0]
    assert first.inference == pytest.approx(0.2)
    assert first.sent.time[0] == pytest.approx(first.observed + 0.4)


class Dying(FakeCamera):
    """Takes no more pictures at some time."""

    def _newest(self):
        return min(super()._newest(), 30)


def test_a_frozen_camera_ends_the_episode():
    bench = Bench(Straight())
    camera = Dying(clock=lambda: bench.now)
    camera.connect(1.0)
    bench.camera.camera = camera
    result = bench.runner.run()
    assert (result.ended, result.label) == (Ended.FAULT, Label.INVALID)
    assert "CameraLost: The newest frame of camera 'wrist' is 0." in result.reason
    assert bench.now < 1.0 + 0.5 + 0.2 + 0.1
    assert bench.keeper.mode == Mode.HOLD


def test_an_old_observation_is_not_planned_on():
    bench = Bench(Straight(), control=replace(CONTROL, observation_age=0.1))
    slow = FakeCamera(latency=0.17, clock=lambda: bench.now)
    slow.connect(1.0)
    bench.camera.camera = slow
    result = bench.runner.run()
    assert result.ended == Ended.REJECTED
    assert "The newest observation is 0." in result.reason


class Breaking(FakeArm):
    def state(self):
        if self.clock() > 1.0:
            raise RobotUnavailable("The cable is out.")
        return super().state()


def test_an_arm_that_is_gone_ends_the_episode():
    bench = Bench(Straight(), arm=Breaking())
    result = bench.runner.run()
    assert (result.ended, result.label) == (Ended.FAULT, Label.INVALID)
    assert "RobotUnavailable: The cable is out." in result.reason
    assert 0 < len(result.steps) < 10
    assert bench.keeper.mode == Mode.FAULT


def test_an_interrupt_holds_the_arm_too():
    def act(number, chunk):
        raise KeyboardInterrupt

    bench = Bench(Straight(act=act))
    with pytest.raises(KeyboardInterrupt):
        bench.runner.run()
    assert bench.keeper.mode == Mode.HOLD


@pytest.mark.slow
@pytest.mark.skipif(find_spec("mujoco") is None, reason="needs MuJoCo, extra [sim]")
def test_a_scripted_policy_lifts_the_cube_in_simulation():
    from uva_lightning.robot.mujoco_arm import MujocoArm, MujocoCamera
    from uva_lightning.robot.mujoco_world import MujocoWorld

    world = MujocoWorld()
    world.reset(READY, cube=(0.37, 0.06))
    clock = lambda: world.time  # noqa: E731
    arm = MujocoArm(world)
    keeper = Keeper(arm, LIMITS, PERIOD, READY)

    def wait(seconds):
        for _ in range(round(seconds / PERIOD)):
            world.advance(PERIOD)
            keeper.tick(world.time)

    def allow(episode):
        keeper.allow(world.time)
        return True

    keeper.connect(world.time)
    keeper.home(world.time)
    wait(0.5)
    camera = MujocoCamera(world, "wrist", 64, 48)
    try:
        camera.connect(1.0)
    except RobotUnavailable as error:
        pytest.skip(str(error))
    lifted = lambda: world.cube()[2] > 0.1  # noqa: E731
    policy = ReachingPolicy(lambda: world.model.chain.forward(arm.state().q), world.cube, CONTROL, clock)
    operator = ScriptedOperator(allow, lambda: Label.SUCCESS if lifted() else Label.FAILURE, lifted)
    control = replace(CONTROL, max_steps=50)
    runner = RolloutRunner(
        policy,
        KeeperStation(keeper, clock),
        [FreshCamera(camera, clock=clock)],
        operator,
        control,
        HISTORY,
        clock,
        wait,
    )
    result = runner.run()
    assert (result.label, result.ended, result.rejected) == (Label.SUCCESS, Ended.OPERATOR, 0), result
    assert result.duration < 8.0
    world.close()


@pytest.mark.slow
def test_a_trained_model_drives_the_arm(tmp_path, tiny_module):
    """The model of UMI's data takes what is seen here, and what it says is planned or refused as poses."""
    pytest.importorskip("zarr"), pytest.importorskip("imagecodecs")
    from uva_lightning.datamodules.generate import RandomEpisodes
    from uva_lightning.datamodules.umi import UMI
    from uva_lightning.datamodules.windows import Window
    from uva_lightning.model.fitted import fit_together
    from uva_lightning.model.tokenizers.linear_patches import LinearPatches
    from uva_lightning.policy.windows import WindowPolicy

    window = Window(pad=(15, 16), state_steps=16, shift_action=False)
    data = UMI(tmp_path / "cup.zarr", 4, window, 0.5, generate=RandomEpisodes(2, 40))
    data.prepare_data()
    data.setup("fit")
    module = tiny_module(data.spec, tokenizer=LinearPatches(channels=8, patch=16))
    module.tokenizer.fit(data.training_frames())
    fit_together([module.actions, module.proprioception], data.training_numbers())
    spec = data.spec
    history = History(spec.frames, spec.stride, spec.proprio_steps, spec.image_size)
    bench = Bench(WindowPolicy(module.eval()), control=replace(CONTROL, max_steps=4), history=history)
    (bench.camera.camera.name,) = (bench.camera.name,) = spec.cameras
    result = bench.runner.run()
    said = [step for step in result.steps if step.action is not None]
    assert said, result.reason  # not one call of the model failed
    assert said[0].action.shape == (16, 10)
    assert np.isfinite(said[0].action).all()
    assert result.ended in (Ended.LENGTH, Ended.REJECTED)
