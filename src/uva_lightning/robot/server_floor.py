"""What happens at the robot itself, whatever clients do: events, the person's answers, silence, the recording.

Pure: no socket, no thread, and the clock is given.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from uva_lightning.robot.driver import Driver, Status
from uva_lightning.robot.errors import DriverDead, EStop, Fault, RobotError
from uva_lightning.robot.keeper import Mode
from uva_lightning.robot.operator import Label
from uva_lightning.robot.server_desk import NO, WAITING, YES, Desk, Question
from uva_lightning.robot.server_episode import Episodes
from uva_lightning.robot.server_log import EventLog
from uva_lightning.robot.server_session import Lease

HOMING = 30.0
"""Most seconds that the arm may take to come home."""


class Floor:
    """Stand between the person beside the robot and the driver of one arm.

    Args:
        driver: Of the arm.
        clock: Its clock, s.
        desk: Where the person answers.
        lease: Who may move the arm.
        episodes: What is recorded; nothing if not given.
        log: Where events go; to stderr if not given.
    """

    def __init__(
        self,
        driver: Driver,
        clock: Callable[[], float] = time.monotonic,
        desk: Desk | None = None,
        lease: Lease | None = None,
        episodes: Episodes | None = None,
        log: EventLog | None = None,
    ) -> None:
        self.driver, self.clock = driver, clock
        self.desk, self.lease = desk or Desk(), lease or Lease()
        self.episodes = episodes or Episodes(None, driver.model)
        self.log = log or EventLog(None)
        self.over = False
        """Whether the person has ended the episode."""
        self._preparing: tuple[Question, float] | None = None  # and since when
        self._dead = ""

    def tick(self) -> None:
        """See what has happened; never raises a ``RobotError``."""
        now = self.clock()
        self.hear()
        status = self._status()
        if self.lease.lost(now):
            self._abandoned(f"'{self.lease.holder}' is silent for {self.lease.ttl:g} s")
        if (question := self.desk.expired(now)) is not None:
            self.note("unanswered", f"Nobody has answered '{question.kind}' of episode {question.episode}")
        if status is not None:
            self._prepare(status, now)
            self.recorded(lambda: self.episodes.tick(status, now))

    def answered(self, said: str) -> str:
        """Take the person's answer to the open question: ``y``, ``n``, or a label; say what follows."""
        question, now = self.desk.question, self.clock()
        if question is None:
            return "Nothing is asked."
        allowed = {YES, NO} if question.kind == "confirm" else {str(label) for label in Label}
        if said not in allowed:
            return f"Expected {' or '.join(sorted(allowed))}."
        if said != YES:
            self.desk.answer(question, said)
            return f"Episode {question.episode}: {said}."
        try:
            self.driver.ask("home", now)
        except RobotError as error:
            self.desk.answer(question, NO)
            return f"{type(error).__name__}: {error}"
        self.desk.question, self._preparing = None, (question, self.clock())  # what the driver said before is old
        return f"Episode {question.episode}: the arm goes home, then the policy moves it."

    def asked(self, kind: str, episode: int, now: float) -> str:
        """Give the person's answer to a client that asks: ``waiting``, or what it is."""
        preparing = self._preparing
        if preparing is not None and (preparing[0].kind, preparing[0].episode) == (kind, episode):
            return WAITING
        return self.desk.ask(kind, episode, now)

    def note(self, kind: str, text: str, **numbers: Any) -> None:
        """Write down what has happened."""
        self.log.add(self.clock(), time.time(), kind, text, **numbers)

    def close(self) -> None:
        """End: the driver parks the arm, what was recorded is finished."""
        self.lease.disarm()
        self.driver.close()
        self.hear()
        self.recorded(self.episodes.close)
        self.note("closed", "The server ends")

    def hear(self) -> None:
        """Write down what the driver has met."""
        for event in self.driver.events():
            self.log.add(event.time, time.time(), event.kind, event.text)
            self.recorded(lambda event=event: self.episodes.event(event))  # type: ignore[misc]

    def _status(self) -> Status | None:
        try:
            return self.driver.status()
        except DriverDead as error:
            if not self._dead:
                self._dead = str(error)
                self.lease.disarm()
                self.note("dead", f"{error} Press the emergency stop, then look after the arm")
                self.recorded(lambda: self.episodes.end(Label.INVALID, self._dead))
            return None

    def _prepare(self, status: Status, now: float) -> None:
        """Answer ``confirm`` once the arm is at home."""
        if self._preparing is None:
            return
        question, since = self._preparing
        if status.time <= since:  # from before
            return
        if status.mode == Mode.HOMED:
            try:
                self.driver.ask("allow", now)
                self.desk.answer(question, YES)
            except RobotError as error:
                self.desk.answer(question, NO)
                self.note("refused", f"Episode {question.episode}: {error}")
        elif status.mode == Mode.HOMING and now <= since + HOMING:
            return
        else:
            self.desk.answer(question, NO)
            self.note("refused", f"Episode {question.episode}: the arm is not at home but '{status.mode}'")
        self._preparing = None

    def _abandoned(self, why: str) -> None:
        self.stand(why)
        self._try("park", why)
        self._preparing = None
        self.desk.forget()
        self.recorded(lambda: self.episodes.end(Label.INVALID, why))
        self.note("abandoned", why)

    def recorded(self, write: Callable[[], object]) -> None:
        """Write to the recording; where that fails the arm holds, since nothing may move unseen."""
        try:
            write()
        except (RobotError, OSError) as error:
            self.episodes.abort(str(error))
            self.stand(f"the recording failed ({error})")
            self.note("recording", f"The recording failed: {error}")

    def stand(self, reason: str) -> None:
        """Hold; where even that fails the keeper's watchdogs do it."""
        self._try("hold", reason)

    def ready(self) -> None:
        """Refuse what would move an arm that was stopped.

        Raises:
            EStop: Somebody stopped it.
            Fault: It stopped by itself.
            DriverDead: Nobody knows.
        """
        status = self.driver.status()
        if status.mode == Mode.ESTOP:
            raise EStop(f"The arm was stopped ({status.reason}); have it reset at the robot's console.")
        if status.mode == Mode.FAULT:
            raise Fault(f"The arm stopped by itself ({status.reason}); look after it, then reset it at its console.")

    def _try(self, verb: str, reason: str) -> None:
        try:
            self.driver.ask(verb, self.clock(), reason=reason)
        except RobotError as error:
            self.note("refused", f"{verb}: {error}")
