"""What an environment offers for probes of a latent: its true state, as numbers that a linear map could read off."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, Protocol, runtime_checkable


@runtime_checkable
class Probed(Protocol):
    """An environment whose state can be asked for; found by these attributes, whatever it is called.

    ``probed_moving`` names the targets whose velocity is a target, too; ``probed_flags`` those that are 0 or 1;
    ``probed_robot`` those that are about the robot, not about objects.
    """

    probed_moving: ClassVar[tuple[str, ...]]
    probed_flags: ClassVar[tuple[str, ...]]
    probed_robot: ClassVar[tuple[str, ...]]

    def probe_targets(self) -> Mapping[str, Sequence[float]]:
        """Give the present state by name, always the same names and lengths; an angle as its sine and cosine."""
        ...
