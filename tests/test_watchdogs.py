"""Nobody can make the watchdogs of an arm that can hurt somebody slower than the specification has them."""

import pytest

from uva_lightning.robot.errors import RobotConfigError
from uva_lightning.robot.fake_arm import FakeArm
from uva_lightning.robot.keeper import Keeper
from uva_lightning.robot.supervisor import Waiting
from uva_lightning.robot.watchdogs import Watchdogs


class Dangerous(FakeArm):
    """Is told to be no simulation."""

    harmless = False


@pytest.mark.parametrize(
    ("name", "value", "longest"),
    [("hold", 0.31, 0.3), ("park", 9.0, 3.0), ("state_age", 0.5, 0.2), ("tracking", 1.0, 0.2)],
)
def test_watchdogs_of_an_arm_that_can_hurt_are_bounded(name, value, longest):
    watchdogs, said = Watchdogs(**{name: value}), f"{value:g} s, expected at most {longest:g} s"
    with pytest.raises(RobotConfigError, match=f"watchdogs.{name} is {said} .*lower it"):
        Keeper(Dangerous(), watchdogs=watchdogs)
    Keeper(Dangerous(), watchdogs=Watchdogs(hold=0.1, park=1.0, state_age=0.1, tracking=0.1))
    Keeper(FakeArm(), watchdogs=watchdogs)  # a simulation on a busy machine may be late


@pytest.mark.parametrize("value", [0.0, -1.0, float("inf"), float("nan")])
def test_a_watchdog_that_would_never_bark_is_refused(value):
    with pytest.raises(RobotConfigError, match=r"watchdogs.hold is .* expected a positive, finite time"):
        Watchdogs(hold=value)


def test_times_of_a_server_are_bounded_too():
    Waiting(observation=0.4, answer=600.0).bound("waiting")
    for name in ("lease", "arming", "observation", "tick", "late", "camera"):
        slow = Waiting(**{name: 1000.0})
        with pytest.raises(RobotConfigError, match=f"waiting.{name} is 1000 s, expected at most"):
            slow.bound("waiting")
    with pytest.raises(RobotConfigError, match=r"waiting.tick is nan s"):
        Waiting(tick=float("nan"))
