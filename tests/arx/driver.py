"""What scripts of a driver process share: the fake bus' strings to pull, and a loop that ticks a keeper."""

import ctypes
import json
import os
import signal
import sys
import time
import warnings
from contextlib import suppress

import numpy as np

from uva_lightning.robot.arm import JointTrajectory
from uva_lightning.robot.arx_arm import ArxArm
from uva_lightning.robot.errors import RobotError
from uva_lightning.robot.keeper import Keeper, Mode
from uva_lightning.robot.limits import Limits

__all__ = ["ArxArm", "Keeper", "Mode", "RobotError", "can", "go", "keep", "kept", "place", "tell"]
__all__ += ["np", "signal", "sys", "time", "AWAY", "PERIOD"]

MOTORS = (1, 2, 4, 5, 6, 7)
PERIOD = 0.01
AWAY = np.array([0.1, 0.15, 0.2, -0.15, 0.1, -0.1])
"""Where the arm lies when it is switched on, rad."""

warnings.simplefilter("ignore")  # where real time is not allowed
with suppress(OSError):  # the keeper's set-points are per tick: late ones make it slow
    os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(10))
can = ctypes.CDLL(os.environ["FAKE_CAN"])
for name in ("fake_angle", "fake_wall", "fake_current"):
    getattr(can, name).argtypes = (ctypes.c_int, ctypes.c_double)


def tell(**facts):
    """Say something to the test."""
    sys.stdout.write(json.dumps(facts) + "\n")
    sys.stdout.flush()


def place(q=AWAY, gripper=4.5):
    """Put the motors somewhere; the gripper's angle in rad."""
    for motor, angle in zip((*MOTORS, 8), (*q, gripper), strict=True):
        can.fake_angle(motor, float(angle))


def kept(arm=None, **options):
    """A connected arm with its keeper, and the list of its events."""
    events = []
    arm = arm or ArxArm(**options)
    slow = {"joint_velocity": 0.4, "gripper_speed": 0.04}  # the SDK falls behind where a busy machine delays it
    wide = Limits(workspace_min=(-1, -1, -1), workspace_max=(1, 1, 1), singular=1e-4, **slow)
    keeper = Keeper(arm, wide, PERIOD, record=lambda event, sentence: events.append((event, sentence)))
    keeper.connect(time.monotonic(), 5.0)
    return arm, keeper, events


def go(keeper, goal, opening, seconds=2.5):
    """Have a keeper that is at home begin, and go straight to a place."""
    now, share = time.monotonic(), np.arange(1, 11)[:, None] / 10
    keeper.allow(now)
    keeper.begin(now)
    when = now + 0.1 + seconds * share[:, 0]
    way = keeper._tracker.place * (1 - share) + np.array([*goal, opening]) * share
    keeper.send(JointTrajectory(when, way[:, :-1], way[:, -1], when + 1), now)


def keep(keeper, seconds, until=None, every=None):
    """Tick it for a while, or until something is true."""
    end = time.monotonic() + seconds
    while (now := time.monotonic()) < end and not (until is not None and until()):
        keeper.heartbeat(now)
        keeper.tick(now)
        if every is not None:
            every()
        time.sleep(max(0.0, now + PERIOD - time.monotonic()))
