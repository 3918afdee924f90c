"""The arm server's own driver process with the SDK in it."""

from __future__ import annotations

import numpy as np
import pytest

pytestmark = pytest.mark.arx

SERVER = """
from uva_lightning.robot.driver_child import DriverOptions
from uva_lightning.robot.driver_process import DriverProcess
from uva_lightning.robot.errors import DriverDead
from uva_lightning.robot.watchdogs import Watchdogs
from uva_lightning.robot.limits import Limits

wide = Limits(workspace_min=(-1, -1, -1), workspace_max=(1, 1, 1), singular=1e-4, joint_velocity=0.3)
arm = {"class_path": "uva_lightning.robot.arx_arm.ArxArm", "init_args": {"model": "X5_umi"}}
rest = (0.1, 0.1, 0.1, 0.1, 0.1, 0.1)
server = DriverProcess(DriverOptions(arm, wide, Watchdogs(park=1.0), rest), dead=2.0)
assert "arx5_interface" not in sys.modules
server.ask("home", time.monotonic())
for _ in range(1000):
    time.sleep(0.01)
    if server.status().mode == Mode.HOMED:
        break
tell(mode=server.status().mode, q=server.status().state.q.tolist(), torch="torch" in sys.modules)
"""


def test_the_arm_in_the_servers_driver_process_parks_at_its_end(bus):
    told = bus.run(SERVER + "server.close()\ntell(status=server.process.poll())", 60)
    assert (told["mode"], told["status"], told["torch"]) == ("homed", 0, False)
    np.testing.assert_allclose(told["q"], 0.1, atol=0.02)
    last = bus.frames(bus.joints)
    assert (last["kp"][-600:] == 0).all()  # the SDK's end, 2 s without stiffness
    assert (last["kd"][-600:] > 0).all()


def test_a_server_that_is_killed_leaves_the_arm_soft(bus):
    process = bus.start(SERVER + "tell(ready=1)\ntime.sleep(30)")
    bus.wait_for("ready")
    process.kill()
    process.wait(10)
    bus.wait_until_silent()
    last = bus.frames(bus.joints)
    assert (last["kp"][-600:] == 0).all()
    assert (last["kd"][-600:] > 0).all()


def test_the_sdks_hang_is_noticed_by_the_server(bus):
    """A joint that is read far out of range is the one way left into the SDK's emergency stop."""
    process = bus.start(
        SERVER
        + """
tell(ready=1)
try:
    while True:
        time.sleep(0.05)
        server.status()
except DriverDead as error:
    tell(said=str(error))
server.process.kill()
"""
    )
    bus.wait_for("ready")
    bus.wild.touch()
    assert process.wait(20) == 0
    assert "The driver hangs: no tick for" in bus.told()["said"]
