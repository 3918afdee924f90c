"""Make robots and cameras of LeRobot from their options; LeRobot is imported here only, and only then."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from importlib import import_module
from pkgutil import iter_modules
from typing import Any

from uva_lightning.robot.errors import RobotConfigError

NEEDED = (3, 12)


def make_robot(options: Mapping[str, Any]) -> Any:
    """Make a robot of LeRobot from its options, by their ``type``.

    Raises:
        ImportError: LeRobot is not installed.
        RobotConfigError: It knows no such robot, or other options.
    """
    return _make("robots", "RobotConfig", options, lambda package, config: package.make_robot_from_config(config))


def make_camera(options: Mapping[str, Any]) -> Any:
    """Make a camera of LeRobot from its options, by their ``type``.

    Raises:
        ImportError: LeRobot is not installed.
        RobotConfigError: It knows no such camera, or other options.
    """
    return _make(
        "cameras", "CameraConfig", options, lambda package, config: package.make_cameras_from_configs({"": config})[""]
    )


def _make(part: str, base: str, options: Mapping[str, Any], build: Callable[[Any, Any], Any]) -> Any:
    try:
        import draccus

        package = import_module(f"lerobot.{part}")
    except ImportError as error:
        running = ".".join(map(str, sys.version_info[:2]))
        raise ImportError(
            f"LeRobot cannot be imported by Python {running} ({error}); for Python "
            f"{'.'.join(map(str, NEEDED))} or newer pip install 'uva_lightning[lerobot]' installs it."
        ) from error
    for name in {"cameras", part}:  # a type is known once its module is imported; robots carry cameras
        for module in iter_modules(import_module(f"lerobot.{name}").__path__):
            with suppress(ImportError):
                import_module(f"lerobot.{name}.{module.name}")
    try:
        return build(package, draccus.decode(getattr(package, base), dict(options)))
    except Exception as error:  # of any driver
        raise RobotConfigError(
            f"LeRobot makes nothing of {dict(options)}: {error}; expected one of its types with its options."
        ) from error
