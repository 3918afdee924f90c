"""Our driver on the SDK's own code: what reaches the motors."""

from __future__ import annotations

import signal

import numpy as np
import pytest

from uva_lightning.robot.arm_model import arm_model

pytestmark = pytest.mark.arx

HOME = """
place()
arm, keeper, events = kept()
keep(keeper, 0.3)
soft = arm.state().q
keeper.home(time.monotonic())
keep(keeper, 8, lambda: keeper.mode is not Mode.HOMING)
keep(keeper, 0.4)
tell(mode=keeper.mode, soft=soft.tolist(), home=arm.state().q.tolist(), opening=arm.state().opening)
"""


def per_joint(frames):
    return [frames[frames["id"] == motor] for motor in (1, 2, 4, 5, 6, 7)]


def speeds(frames):
    """Fastest change of a joint's set-point while it is stiff, over 20 frames, rad/s."""
    found = []
    for joint in per_joint(frames[frames["kp"] > 0]):
        late, early = joint[20:], joint[:-20]
        near = late["time"] - early["time"] < 0.2  # not over a time in which it was soft
        found.append(np.abs((late["pos"] - early["pos"]) / (late["time"] - early["time"]))[near].max())
    return np.array(found)


def test_homing_and_a_trajectory(bus):
    told = bus.run(
        HOME
        + """
go(keeper, [0.15, 0.3, 0.3, 0.15, -0.15, 0.15], 0.066)
keep(keeper, 3.2)
tell(end=arm.state().q.tolist(), grip=arm.state().opening, running=keeper.mode)
keeper.park(time.monotonic(), "done")
keep(keeper, 8, lambda: keeper.mode is Mode.IDLE)
tell(parked=keeper.mode)
keeper.close()
tell(events=[event for event, _ in events], fault=arm._watch.fault)
""",
        60,
    )
    assert told["mode"] == "homed"
    np.testing.assert_allclose(told["soft"], [0.1, 0.15, 0.2, -0.15, 0.1, -0.1], atol=0.01)
    arm = arm_model("X5_umi")
    np.testing.assert_allclose(told["home"], np.clip(0.0, arm.lower + 0.05, arm.upper - 0.05), atol=0.01)
    assert told["opening"] == pytest.approx(0.086, abs=2e-3)
    assert told["running"] == "running"
    np.testing.assert_allclose(told["end"], [0.15, 0.3, 0.3, 0.15, -0.15, 0.15], atol=0.015)
    assert told["grip"] == pytest.approx(0.066, abs=2e-3)
    assert (told["parked"], told["fault"]) == ("idle", None)
    assert told["events"] == ["idle", "homing", "homed", "armed", "running", "parking", "idle", "disconnected"]

    frames = bus.frames()
    assert np.isfinite(frames["pos"]).all()
    assert (speeds(bus.frames(bus.joints)) < 1.6).all()  # the keeper's 1.0, or what the SDK lets through
    for joint, low, high in zip(per_joint(frames), arm.lower, arm.upper, strict=True):
        stiff = joint[joint["kp"] > 0]
        assert stiff["pos"].min() >= low - 1e-6
        assert stiff["pos"].max() <= high + 1e-6
        assert np.abs(stiff["pos"] - stiff["angle"]).max() < 0.13  # never far from where it is
        rise = np.diff(joint["kp"])
        assert rise.max() < 0.3 * joint["kp"].max()  # a ramp, not a jump
    last = frames[-7 * 100 :]
    assert (last["kp"] == 0).all()  # soft in the end, with damping
    assert (last["kd"][np.isin(last["id"], bus.joints)] > 0).all()


def test_a_set_point_that_is_not_finite_never_reaches_the_bus(bus):
    told = bus.run(
        HOME
        + """
refused = []
for q, opening in ((np.full(6, np.nan), 0.05), (np.array([0.1, np.inf, 0, 0, 0, 0]), 0.05), (np.zeros(6), np.nan),
                   (np.zeros(5), 0.05), (np.array([0, 3.9, 0, 0, 0, 0]), 0.05), (np.full(6, 0.2), 0.2)):
    try:
        arm.command(q, opening)
    except RobotError as error:
        refused.append(type(error).__name__)
keep(keeper, 0.5)
tell(refused=refused, after=keeper.mode)
keeper.close()
"""
    )
    assert told["refused"] == ["NonFinite"] * 3 + ["BadShape", "OutOfLimits", "OutOfLimits"]
    assert told["after"] == "homed"
    frames = bus.frames()
    assert np.isfinite([frames[name] for name in ("kp", "kd", "pos", "vel", "tor")]).all()
    assert (speeds(bus.frames(bus.joints)) < 1.6).all()


def test_too_much_torque_is_taken_away_before_the_sdk_hangs(bus):
    told = bus.run(
        HOME
        + """
began = time.monotonic()
can.fake_current(2, 40 * 0.8 / 1.96)  # 80 % of joint 2, and whatever else it feels
fault = None
while time.monotonic() < began + 1 and fault is None:
    keeper.tick(time.monotonic()); fault = arm.state().fault; time.sleep(0.005)
tell(began=began, fault=fault)
can.fake_current(2, 0.0)
keep(keeper, 0.3)
tell(mode=keeper.mode, reason=keeper.reason)
keep(keeper, 1.2)
tell(calm=arm.state().fault)
keeper.reset(time.monotonic())
keep(keeper, 0.3)
tell(again=keeper.mode)
keeper.close()
"""
    )
    assert "joint 2 feels" in told["fault"]
    after = bus.frames(bus.joints)
    after = after[after["time"] > told["began"]]
    reaction = after["time"][after["kp"] == 0][0] - told["began"]
    assert 0.02 <= reaction < 0.3, reaction  # 10 cycles, and what a busy machine adds
    assert told["mode"] == "fault"
    assert "joint 2 feels" in told["reason"]
    assert (told["calm"], told["again"]) == (None, "hold")
    assert "Emergency" not in bus.output.read_text()


def test_an_obstacle_does_not_build_up_torque(bus):
    """The keeper's set-point goes on into a wall; what the motor is told stays near, and the keeper stops in time."""
    told = bus.run(
        HOME
        + """
can.fake_wall(1, 0.2)
go(keeper, [0.7, 0.05, 0.05, 0, 0, 0], 0.086)
most = [0.0]
def watch(): most[0] = max(most[0], abs(arm.state().torque[0]))
keep(keeper, 4, lambda: keeper.mode is Mode.FAULT, watch)
tell(mode=keeper.mode, reason=keeper.reason, most=most[0])
keep(keeper, 1.0)
tell(left=abs(float(arm.state().torque[0])))
keeper.close()
"""
    )
    assert told["mode"] == "fault"
    assert "Joint 1 is" in told["reason"]
    assert told["most"] < 0.7 * 30
    assert told["left"] < 1.0


def test_a_load_that_stays_makes_it_go_soft(bus):
    told = bus.run(
        HOME
        + """
can.fake_current(5, 15 * 0.9 / 0.424)
keep(keeper, 1.5)
tell(fault=arm.state().fault, mode=keeper.mode)
keeper.close()
"""
    )
    assert "joint 4 feels" in told["fault"]
    assert told["mode"] == "fault"
    last = bus.frames(bus.joints)[-6 * 1100 : -6 * 1000]  # before the SDK's end of two seconds
    assert (last["kp"] == 0).all()
    assert np.abs(last["tor"][last["id"] == 4]).min() > 0.5  # the weight is carried


def test_readings_that_stop_are_a_fault(bus):
    told = bus.run(
        HOME
        + """
can.fake_bus(True, False, False)
keep(keeper, 1.6)
tell(fault=arm.state().fault, mode=keeper.mode)
keeper.close()
"""
    )
    assert "the very same for" in told["fault"]
    assert told["mode"] == "fault"


def test_an_arm_that_is_not_there_is_refused(bus):
    told = bus.run(
        """
said = {}
def attempt(name, **options):
    try:
        arm = ArxArm(**options); arm.connect(5.0); arm.close(); said[name] = "connected"
    except RobotError as error:
        said[name] = f"{type(error).__name__}: {error}"
can.fake_bus(False, True, False); attempt("zero")
can.fake_bus(False, False, True); place(); attempt("still")
can.fake_bus(False, False, False); place(gripper=-0.6); attempt("gripper")
place(q=[0.2, 0.3, -0.9, 0, 0, 0]); attempt("joint")
place(); attempt("mistaken", model="X9"); attempt("fast", velocity=7.0); attempt("good")
first = ArxArm(); first.connect(5.0); first.connect(5.0); attempt("second", interface="can1"); first.close()
import types; sys.modules["torch"] = types.ModuleType("torch"); attempt("training")
tell(**said)
""",
        60,
    )
    assert "None of the motors are initialized" in told["zero"]
    assert "readings in a row are the very same" in told["still"]
    assert "the gripper reads -10.5 mm, expected 0 to 86" in told["gripper"]
    assert "joint 3 reads -0.90 rad" in told["joint"]
    assert "RobotConfigError: There is no arm model 'X9'" in told["mistaken"]
    assert "velocity of the arm is 7.0, expected more than 0 and at most 5" in told["fast"]
    assert told["good"] == "connected"
    assert "RobotConfigError: This process drives the arm at can0 already" in told["second"]
    assert "RobotConfigError: This process has torch loaded" in told["training"]
    noise = [line for line in bus.output.read_text().splitlines() if not line.startswith("{")]
    assert noise == []  # what the SDK prints is kept away


def test_an_sdk_that_hangs_while_it_connects_ends_the_process(bus):
    process = bus.start("place(); can.fake_wild(1); arm = ArxArm(); tell(begins=1); arm.connect(1.0)")
    assert process.wait(20) == 1
    said = bus.output.read_text()
    assert "Timeout" in said
    assert "in open_controller" in said


def test_two_processes_do_not_share_an_arm(bus, library, tmp_path):
    bus.run("place(); arm = ArxArm(); arm.connect(5.0)")  # ends without closing: the claim ends with it
    bus.start("place(); arm = ArxArm(); arm.connect(5.0); tell(there=1); time.sleep(20)")
    bus.wait_for("there")
    folder = tmp_path / "other"
    folder.mkdir()
    other = type(bus)(library, folder)
    told = other.run(
        """
try:
    ArxArm().connect(5.0)
except RobotError as error:
    tell(said=str(error))
"""
    )
    assert "Another process drives the arm at can0" in told["said"]


def test_the_drivers_end_leaves_the_arm_damped(bus):
    """SIGTERM alone would stop the frames at full stiffness; a driver that handles it closes the arm."""
    process = bus.start(
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))\n"
        + HOME
        + """
tell(ready=1)
try:
    keep(keeper, 30)
finally:
    keeper.close()
"""
    )
    bus.wait_for("ready")
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == 0
    last = bus.frames()
    last = last[last["time"] > last["time"][-1] - 1.0]
    assert len(last) > 1000
    assert (last["kp"] == 0).all()
    assert (last["kd"][last["id"] != bus.gripper] > 0).all()


def test_the_sdk_alone_would_end_at_full_stiffness(bus):
    process = bus.start(HOME + "tell(ready=1)\nkeep(keeper, 30)")
    bus.wait_for("ready")
    process.send_signal(signal.SIGTERM)
    process.wait(10)
    assert (bus.frames(bus.joints)["kp"][-6:] > 0).all()
