"""Times after which an arm stops by itself, and how long they may be where an arm can hurt somebody."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from uva_lightning.robot.errors import RobotConfigError


class Times:
    """Times in s, and how long each may be for an arm that is no simulation; the base of dataclasses."""

    LONGEST: ClassVar[Mapping[str, float]] = {}
    """By name; one that is not in here may be as long as one likes."""

    def check(self, name: str) -> None:
        """Refuse what is no time.

        Args:
            name: Of these options, for the error.

        Raises:
            RobotConfigError: One is not positive, not finite or not a number.
        """
        for key, value in self._values().items():
            if not 0 < value < float("inf"):
                raise RobotConfigError(f"{name}.{key} is {value} s, expected a positive, finite time.")

    def bound(self, name: str) -> None:
        """Refuse times that are too long for an arm that can hurt somebody.

        Args:
            name: Of these options, for the error.

        Raises:
            RobotConfigError: One is.
        """
        for key, value in self._values().items():
            if value > (longest := self.LONGEST.get(key, float("inf"))):
                raise RobotConfigError(
                    f"{name}.{key} is {value:g} s, expected at most {longest:g} s for an arm that is no simulation; "
                    "lower it, and where that is too short, leave the computer to the arm server alone."
                )

    def _values(self) -> dict[str, float]:
        values: dict[str, Any] = asdict(self)  # type: ignore[call-overload] # subclasses are dataclasses
        return values


@dataclass(frozen=True)
class Watchdogs(Times):
    """Times after which it stops by itself, s.

    Args:
        hold: Without a heartbeat of the one who moves it, it stops and stands.
        park: Without it for so long, it goes slowly to where it may go soft.
        state_age: Of the newest measurement, at which it counts as frozen.
        tracking: For which the tracking error or the torque may be above its limit.
    """

    LONGEST = {"hold": 0.3, "park": 3.0, "state_age": 0.2, "tracking": 0.2}

    hold: float = 0.25
    park: float = 3.0
    state_age: float = 0.2
    tracking: float = 0.2

    def __post_init__(self) -> None:
        self.check("watchdogs")
