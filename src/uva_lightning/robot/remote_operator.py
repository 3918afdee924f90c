"""The person at the console of an arm server, for ``RolloutRunner`` at the other end of the connection."""

from __future__ import annotations

import time
from collections.abc import Callable

from uva_lightning.robot.errors import RobotError, ServerLost
from uva_lightning.robot.operator import Label, Operator
from uva_lightning.robot.remote import ASKING, RemoteStation
from uva_lightning.robot.server_desk import WAITING, YES


class RemoteOperator(Operator):
    """The person at an arm server's console. Waiting counts as a sign of life, and has an end at the server.

    Args:
        station: Connected one.
        wait: Lets time pass, in s.
    """

    def __init__(self, station: RemoteStation, wait: Callable[[float], object] = time.sleep) -> None:
        self._station, self._wait = station, wait

    def confirm(self, episode: int) -> bool:
        """Wait until the person has allowed the episode and the arm is at home.

        Raises:
            RobotError: The server does not answer, or the arm cannot move.
        """
        return self._asked("confirm", episode) == YES

    def label(self, episode: int) -> Label:
        """Wait for the person's label; invalid where none comes."""
        try:
            return Label(self._asked("label", episode))
        except (RobotError, ValueError):
            return Label.INVALID

    def should_stop(self) -> bool:
        """Tell whether the person has ended the episode."""
        return bool(self._station.status()["over"])

    def _asked(self, kind: str, episode: int) -> str:
        homing = 60.0
        until = time.monotonic() + self._station.patience + homing
        while time.monotonic() < until:
            said = str(self._station.call(kind, episode=episode)["answer"])
            if said != WAITING:
                return said
            self._wait(ASKING)
        raise ServerLost(f"Nobody has answered '{kind}' of episode {episode}, and the server does not say so.")
