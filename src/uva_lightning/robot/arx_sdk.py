"""Get a joint controller of ARX's SDK (wheel ``arx5-interface``) with its sharp edges off; in a driver process only."""

from __future__ import annotations

import ctypes
import faulthandler
import os
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from typing import Any

import numpy as np

from uva_lightning.robot.arm_model import ArmModel
from uva_lightning.robot.errors import RobotConfigError, RobotUnavailable

SHRUNK = 100.0
"""The SDK gets the gripper's opening in units of so many m: a reading 5 mm beyond its range, as an uncalibrated gripper
gives it, makes the SDK hang for ever, already while it connects. So its range is never left; ours is."""
PATIENCE = 2**31 - 1
"""Cycles above its torque limits after which the SDK hangs: never. It does not take the torque away (its last frames
have full stiffness), so nothing is lost; the watch does."""
LEAST = 2.0
"""Seconds that connecting is given at least; it takes 0.2."""
PRIORITY = 20
"""Of the SDK's loop among real-time threads."""
STRANGERS = ("torch", "lightning", "lightning_fabric", "pytorch_lightning")
_attempts = count(1)


@dataclass(frozen=True)
class Connection:
    """How to reach an arm, and what its SDK is told.

    Args:
        interface: ``can0`` or the like; an EtherCAT adapter is ``eth0`` or the like.
        velocity: Largest joint velocity that the SDK lets through, rad/s.
        gripper_speed: The same of the gripper, m/s.
        gripper_readout: Angle of the gripper's motor when it is open, rad, as measured at the bench; the SDK's if None.
        urdf: Geometry by which the SDK compensates gravity; its own if None.
    """

    interface: str
    velocity: float
    gripper_speed: float
    gripper_readout: float | None = None
    urdf: str | None = None


def refuse_beside_training() -> None:
    """Refuse to live in a process that trains.

    Raises:
        RobotConfigError: It does.
    """
    if found := [name for name in STRANGERS if name in sys.modules]:
        raise RobotConfigError(
            f"This process has {' and '.join(found)} loaded, expected a driver process of its own: ARX's SDK never "
            "releases Python's lock and may hang for ever, with everything beside it; use the arm server."
        )


def load_sdk() -> Any:
    """Import the SDK.

    Raises:
        ImportError: It is not installed.
    """
    try:
        import arx5_interface
    except ImportError as error:
        raise ImportError(
            f"An ARX arm needs its SDK ({error}); install it with pip install 'uva_lightning[arx]'; there are wheels "
            "for Linux only."
        ) from error
    return arx5_interface


def open_controller(model: ArmModel, connection: Connection, timeout: float) -> tuple[Any, Any]:
    """Connect; the arm goes soft.

    Should the SDK hang, nothing in this process could tell; so it then ends, with a traceback, and whoever supervises
    it knows. The arm is soft until after that.

    Returns:
        The SDK and its controller.

    Raises:
        ImportError: The SDK is not installed.
        RobotUnavailable: No adapter, or no arm at it.
        RobotConfigError: The SDK does not know the model, or has other limits.
    """
    screen = os.fdopen(os.dup(2), "wb")
    with quiet() as said, screen:
        faulthandler.dump_traceback_later(max(timeout, LEAST), exit=True, file=screen)
        try:
            sdk = load_sdk()
            with hurried():
                controller = sdk.Arx5JointController(*configured(sdk, model, connection), connection.interface)
            controller.set_log_level(sdk.LogLevel.ERROR)
            return sdk, controller
        except RuntimeError as error:
            raise RobotUnavailable(
                f"There is no {model.name} at {connection.interface}: {error} The SDK said last: {said()}; see whether "
                "the arm is powered and the interface is up."
            ) from error
        finally:
            faulthandler.cancel_dump_traceback_later()


def configured(sdk: Any, model: ArmModel, connection: Connection) -> tuple[Any, Any]:
    """Give the SDK's two configs for an arm.

    Raises:
        RobotConfigError: The SDK does not know it, or has other joint limits.
    """
    try:
        robot = sdk.RobotConfigFactory.get_instance().get_config(model.name)
    except RuntimeError as error:
        raise RobotConfigError(f"ARX's SDK does not know the arm '{model.name}': {error}") from error
    for what, ours, theirs in (
        ("joint_pos_min", model.lower, robot.joint_pos_min),
        ("joint_pos_max", model.upper, robot.joint_pos_max),
        ("joint_torque_max", model.torque, robot.joint_torque_max),
    ):
        if np.shape(theirs) != ours.shape or not np.allclose(ours, theirs):
            raise RobotConfigError(
                f"{what} of {model.name} is {np.asarray(theirs).tolist()} in this SDK, expected {ours.tolist()}; "
                "install the version that constraints.txt names."
            )
    robot.robot_model = f"{model.name}.{next(_attempts)}"  # names its log; a failed attempt leaves the name taken
    robot.joint_vel_max = np.full(len(model.lower), connection.velocity)  # arrays of a config are replaced as a whole
    robot.gripper_width = model.gripper_width / SHRUNK
    robot.gripper_vel_max = connection.gripper_speed / SHRUNK
    if connection.gripper_readout is not None:
        robot.gripper_open_readout = connection.gripper_readout
    if connection.urdf is not None:
        robot.urdf_path = connection.urdf
    control = sdk.ControllerConfigFactory.get_instance().get_config("joint_controller", len(model.lower))
    control.over_current_cnt_max = PATIENCE
    control.gravity_compensation = control.background_send_recv = control.shutdown_to_passive = True
    return robot, control


@contextmanager
def hurried() -> Iterator[None]:
    """Serve threads that begin in here before all others, if that is allowed.

    The SDK's loop sleeps seven times in its 2 ms. On a busy computer it comes late each time; then it runs at 40 Hz
    instead of 480 and, since it limits the velocity by its number of cycles, the arm crawls.
    """
    before = os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(PRIORITY))
    except OSError as error:
        warnings.warn(
            f"The SDK's loop gets no real-time priority ({error}); on a busy computer the arm follows late. Allow it: "
            "ulimit -r 20, or CAP_SYS_NICE.",
            stacklevel=2,
        )
    try:
        yield
    finally:
        os.sched_setscheduler(0, *before)


@contextmanager
def quiet() -> Iterator[Callable[[], str]]:
    """Keep what C code writes to stdout and stderr away from both; gives a function that tells its last line."""
    sys.stdout.flush(), sys.stderr.flush()
    with tempfile.TemporaryFile() as heard:
        kept = [os.dup(number) for number in (1, 2)]

        def last() -> str:
            ctypes.CDLL(None).fflush(None)
            heard.seek(0)
            lines = heard.read().decode(errors="replace").split("\n")
            return next((line.strip() for line in reversed(lines) if line.strip()), "nothing")

        try:
            for number in (1, 2):
                os.dup2(heard.fileno(), number)
            yield last
        finally:
            ctypes.CDLL(None).fflush(None)  # C keeps back what it wrote, and would tell it later
            for number, copy in zip((1, 2), kept, strict=True):
                os.dup2(copy, number)
                os.close(copy)
