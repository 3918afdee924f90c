"""An ideal arm and a drawn camera: to try a config where there is nothing at all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from uva_lightning.robot.benches.base import Bench, Kept, Session
from uva_lightning.robot.camera import FakeCamera
from uva_lightning.robot.errors import RobotConfigError
from uva_lightning.robot.fake_arm import FakeArm
from uva_lightning.robot.limits import Limits
from uva_lightning.robot.operator import Label, ScriptedOperator

READY = (0.0, 1.49, 1.7, -1.2, 0.0, 0.0)
"""Angles at which episodes begin: the hand over the table, looking down; rad."""
TABLE = Limits(workspace_min=(0.1, -0.35, -0.03))
"""Limits with which fingers reach down to a table at the height of the base."""


@dataclass(frozen=True)
class FakeBench(Bench):
    """An arm that is at once where it is sent, before a picture with a moving square; time does not wait for anybody.

    Args:
        model: Name of the arm.
        cameras: Their names.
        width: Of a picture, px.
        height: Of a picture, px.
        ready: Angles at which episodes begin, rad.
        limits: Of the motion; ``TABLE`` if not given.
    """

    model: str = "X5_umi"
    cameras: Sequence[str] = ("camera0",)
    width: int = 64
    height: int = 48
    ready: Sequence[float] = READY
    limits: Limits | None = None

    def __post_init__(self) -> None:
        check_cameras(self.cameras)

    @property
    def camera_names(self) -> Sequence[str]:
        """See the base class."""
        return tuple(self.cameras)

    def open(self, seed: int) -> Session:
        """See the base class; every episode is labelled a failure, since nothing can be reached."""
        now, limits = [0.0], self.limits or TABLE

        def clock() -> float:
            return now[0]

        def advance(seconds: float) -> None:
            now[0] += seconds

        arm = FakeArm(self.model, clock)
        arm.q = np.asarray(self.ready, float)
        kept = Kept(arm, limits, arm.q, clock, advance)
        cameras = [FakeCamera(name, self.width, self.height, clock=clock) for name in self.cameras]
        for camera in cameras:
            camera.connect(1.0)

        def allow(episode: int) -> bool:
            kept.prepare()
            return True

        operator = ScriptedOperator(allow, lambda: Label.FAILURE)
        return Session(kept.station, cameras, operator, limits, clock, kept.wait, kept.park, events=kept.events)


def check_cameras(names: Sequence[str]) -> None:
    """Refuse none, or one name for two."""
    if not names or len(set(names)) < len(names):
        raise RobotConfigError(f"The bench has cameras {list(names)}, expected at least one, each with its own name.")
