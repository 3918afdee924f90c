"""The arm of docs/hardware.md: one class, and a keeper drives it."""

import re
from pathlib import Path

import numpy as np
import pytest
import small_robot

from uva_lightning.robot.arm_model import urdf_model
from uva_lightning.robot.keeper import Keeper, Mode
from uva_lightning.robot.limits import Limits

TEXT = (Path(__file__).parents[1] / "docs" / "hardware.md").read_text()


class Bus:
    """What such an arm speaks: it is at once where it is sent."""

    def __init__(self, port, timeout):
        self.now, self.q, self.opening, self.soft = 0.0, np.array([0.4, -0.3]), 0.02, True

    def newest(self):
        still = np.zeros(2)
        return self.now, self.q, still, still, self.opening

    def send(self, q, opening):
        self.q, self.opening, self.soft = q, opening, False

    def relax(self):
        self.soft = True

    def close(self):
        self.q = None


@pytest.fixture
def urdf(tmp_path):
    path = tmp_path / "two.urdf"
    path.write_text(small_robot.URDF)
    return path


def test_a_second_arm_is_one_class(urdf):
    (code,) = re.findall(r"```python\n(# two_joints\.py.*?)```", TEXT, re.S)
    names = {"open_bus": Bus, "__name__": "two_joints"}
    exec(compile(code, "two_joints.py", "exec"), names)
    arm = names["TwoJoints"](str(urdf), "/dev/ttyUSB0")
    wide = Limits(workspace_min=(-1, -1, -1), workspace_max=(1, 1, 1), singular=1e-3)
    keeper = Keeper(arm, wide)
    keeper.connect(0.0)
    assert arm.bus.soft
    keeper.home(0.0)
    now = 0.0
    while keeper.mode is Mode.HOMING and now < 10:
        now += 0.01
        arm.bus.now = now
        keeper.heartbeat(now)
        keeper.tick(now)
    assert keeper.mode is Mode.HOMED, keeper.reason
    np.testing.assert_allclose(arm.bus.q, 0.0, atol=2e-3)
    assert arm.bus.opening == pytest.approx(0.08, abs=2e-3)
    keeper.close()
    assert arm.bus.q is None


def test_a_urdf_gives_limits_in_the_order_of_the_chain(urdf):
    model = urdf_model(urdf, 0.08)
    assert model.name == "two"
    assert model.lower.tolist() == [-1.5, -1.0]
    assert model.upper.tolist() == [1.5, 1.0]
    assert model.torque.tolist() == [5.0, 5.0]
    assert urdf_model(urdf, 0.08, tip="a").chain.joints == 1
    with pytest.raises(ValueError, match="no chain from 'base_link' to 'hand'"):
        urdf_model(urdf, 0.08, tip="hand")
