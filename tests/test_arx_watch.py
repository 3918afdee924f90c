"""When an ARX arm has to let go: judged from readings alone."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from uva_lightning.robot.arm import ArmState
from uva_lightning.robot.arm_model import arm_model
from uva_lightning.robot.arx_watch import CALM, HOPELESS, OVER, ArxWatch
from uva_lightning.robot.errors import RobotUnavailable

MODEL = arm_model("X5_umi")
STEP = 0.002


class Readings:
    """An arm that is read every 2 ms, with noise."""

    def __init__(self, frozen=1.0):
        self.watch, self.now, self.draws = ArxWatch(MODEL, 0.7, frozen), 100.0, np.random.default_rng(0)

    def read(self, share=0.0, joint=1, q=None, opening=0.04, grip=0.0, still=False, step=STEP):
        self.now += step
        torque = np.zeros(6)
        torque[joint] = share * MODEL.torque[joint]
        noise = 0.0 if still else self.draws.normal(0, 1e-4, 6)
        state = ArmState(self.now, (np.full(6, 0.2) if q is None else q) + noise, np.zeros(6), torque, opening)
        self.watch.see(state, grip, self.now)
        return state

    def during(self, seconds, **what):
        for _ in range(round(seconds / STEP)):
            self.read(**what)


@settings(max_examples=25)
@given(st.integers(0, 5), st.floats(0.71, 5.0), st.sampled_from([-1, 1]))
def test_too_much_torque_is_a_fault_after_ten_cycles(joint, share, sign):
    arm = Readings()
    arm.during(0.1, share=0.69 * sign, joint=joint)
    assert arm.watch.fault is None
    arm.during(OVER - STEP, share=share * sign, joint=joint)
    assert arm.watch.fault is None
    arm.during(3 * STEP, share=share * sign, joint=joint)
    assert f"joint {joint + 1} feels" in arm.watch.fault


def test_a_peak_of_torque_is_none():
    arm = Readings()
    for _ in range(20):
        arm.during(OVER - STEP, share=0.95)
        arm.read()
    assert arm.watch.fault is None


def test_late_readings_do_not_put_it_off():
    arm = Readings()
    arm.read()
    arm.read(share=0.8, step=0.03)
    arm.read(share=0.8, step=0.03)
    assert arm.watch.fault is not None


def test_the_grippers_torque_counts():
    arm = Readings()
    arm.during(OVER + 2 * STEP, grip=-1.2)
    assert arm.watch.fault == "the gripper feels 80% of its torque, expected at most 70%"


def test_it_eases_once_and_a_fault_ends_after_a_second_in_order():
    arm = Readings()
    state = arm.read()
    assert not arm.watch.ease(state)
    arm.during(OVER + 2 * STEP, share=0.9)
    assert arm.watch.ease(arm.read(share=0.9))
    assert not arm.watch.ease(arm.read())
    arm.during(CALM - 0.1)
    assert arm.watch.fault is not None
    assert not arm.watch.hopeless()
    arm.during(0.2)
    assert arm.watch.fault is None
    arm.during(OVER + 2 * STEP, share=0.9)
    assert arm.watch.ease(arm.read())


def test_a_torque_that_stays_is_hopeless():
    arm = Readings()
    arm.during(OVER + HOPELESS / 2, share=0.9)
    assert not arm.watch.hopeless()
    arm.during(HOPELESS, share=0.9)
    assert arm.watch.hopeless()


def test_readings_that_repeat_are_a_fault_where_that_is_looked_for():
    arm, blind = Readings(), Readings(frozen=None)
    arm.during(1.1, still=True)
    blind.during(1.1, still=True)
    assert "the very same for 1.0 s" in arm.watch.fault
    assert not arm.watch.ease(arm.read(still=True))  # where it is, is not known
    assert blind.watch.fault is None


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ({"opening": -0.004}, "the gripper reads -4.0 mm, expected 0 to 86"),
        ({"opening": 0.0895}, "the gripper reads 89.5 mm"),
        ({"q": np.array([0, 0, -0.5, 0, 0, 0.0])}, "joint 3 reads -0.50 rad, expected -0.10 to 3.20"),
        ({"q": np.array([0, np.nan, 0, 0, 0, 0.0])}, "a reading is not finite"),
        ({"grip": np.inf}, "a reading is not finite"),
    ],
)
def test_impossible_readings_are_a_fault_at_once(what, said):
    arm = Readings()
    arm.read(**what)
    assert said in arm.watch.fault


def test_the_first_readings_are_looked_at():
    arm = Readings()
    arm.watch.accept([arm.read() for _ in range(5)])
    with pytest.raises(RobotUnavailable, match="exactly 0"):
        arm.watch.accept([arm.read(q=np.zeros(6), still=True) for _ in range(5)])
    with pytest.raises(RobotUnavailable, match="5 readings in a row are the very same"):
        arm.watch.accept([arm.read(still=True) for _ in range(5)])
    with pytest.raises(RobotUnavailable, match="the gripper reads 95"):
        arm.watch.accept([arm.read(opening=0.095) for _ in range(5)])


CODE = """
import sys, types
from uva_lightning.robot.arx_arm import ArxArm
from uva_lightning.robot.errors import RobotConfigError
ArxArm()
assert not {"torch", "lightning", "arx5_interface"} & set(sys.modules), "it loads what it must not"
for wrong in ({"stiffness": 1.5}, {"frozen": 0.0}, {"gripper_readout": 0.0}, {"velocity": float("nan")}):
    try:
        ArxArm(**wrong)
    except RobotConfigError as error:
        assert next(iter(wrong)) in str(error)
    else:
        raise AssertionError(wrong)
sys.modules["torch"] = types.ModuleType("torch")
try:
    ArxArm()
except RobotConfigError as error:
    print(error)
"""


def test_an_arm_is_made_without_the_sdk_and_never_beside_torch():
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert "This process has torch loaded, expected a driver process of its own" in done.stdout
