"""What the person beside the robot types. Pure: one line in, a sentence out."""

from __future__ import annotations

from collections.abc import Callable

from uva_lightning.robot.errors import RobotError
from uva_lightning.robot.operator import Label
from uva_lightning.robot.server_desk import NO, YES, Question
from uva_lightning.robot.server_floor import Floor

HELP = """\
  Enter alone   STOP: brake and stand until 'reset'
  arm [RUN]     let one run move the arm: prints a token for it
  disarm        take token and lease back
  y, n          allow the episode that is asked for, or not
  s, f, i       label it: success, failure, invalid
  end           end the episode that runs
  hold          brake and stand; it parks if nobody goes on
  home, park    go slowly to where episodes begin, to rest
  damp          go soft at once, as the last resort: the arm may sink
  reset         leave a fault or a stop, once the cause is gone
  status        tell how the arm is
  quit          park, go soft and end the server"""
SHORT = {"y": YES, "n": NO, "s": Label.SUCCESS.value, "f": Label.FAILURE.value, "i": Label.INVALID.value}
ASKED = {
    "confirm": "Episode {episode}: is the scene set up, and nobody in reach? The arm goes home first. [y/n]",
    "label": "Episode {episode} is over: how did it go? [s]uccess, [f]ailure, [i]nvalid",
}


class Console:
    """Understand lines.

    Args:
        floor: What they are about.
    """

    def __init__(self, floor: Floor) -> None:
        self.floor, self.over = floor, False
        self._told: Question | None = None
        self._verbs: dict[str, Callable[[str], str]] = {
            "": lambda words: self._ask("stop", reason="stopped at the console"),
            "stop": lambda words: self._ask("stop", reason=words or "stopped at the console"),
            "hold": lambda words: self._ask("hold", reason=words or "held at the console"),
            "park": lambda words: self._ask("park", reason=words or "parked at the console"),
            "damp": lambda words: self._ask("damp", reason=words or "soft by the console"),
            "home": lambda words: self._ask("home"),
            "reset": lambda words: self._ask("reset"),
            "arm": self._arm,
            "disarm": self._disarm,
            "end": self._end,
            "status": lambda words: self._status(),
            "quit": self._quit,
            "help": lambda words: HELP,
        }

    def notice(self) -> str:
        """Give what is asked, once; nothing where nothing new is."""
        question = self.floor.desk.question
        if question == self._told:
            return ""
        self._told = question
        return "" if question is None else ASKED[question.kind].format(episode=question.episode)

    def line(self, text: str) -> str:
        """Do what a line says; give what is to be read. Nothing raises."""
        word, _, words = text.strip().partition(" ")
        if word in SHORT:
            return self.floor.answered(SHORT[word])
        if word not in self._verbs:
            return f"'{word}' is not understood; type 'help'."
        return self._verbs[word](words.strip())

    def _ask(self, verb: str, **values: str) -> str:
        try:
            self.floor.driver.ask(verb, self.floor.clock(), **values)
        except RobotError as error:
            return f"{type(error).__name__}: {error}"
        return f"{verb}: {self._status()}"

    def _arm(self, run: str) -> str:
        token = self.floor.lease.arm(self.floor.clock(), run)
        self.floor.note("arm", f"Somebody allows {run or 'the next run'} to move the arm")
        minutes = self.floor.lease.arming / 60
        return f"token {token}: valid for {minutes:g} min, for {run or 'the first run that uses it'}"

    def _disarm(self, words: str) -> str:
        self.floor.stand("disarmed at the console")
        self.floor.lease.disarm()
        self.floor.note("disarm", "Token and lease are taken back")
        return "No run may move the arm."

    def _end(self, words: str) -> str:
        self.floor.over = True
        return "The episode ends at its next step."

    def _quit(self, words: str) -> str:
        self.over = True
        return "The arm parks, then the server ends."

    def _status(self) -> str:
        try:
            status = self.floor.driver.status()
        except RobotError as error:
            return f"{type(error).__name__}: {error}"
        lease, now = self.floor.lease, self.floor.clock()
        who = f"'{lease.holder}' of run '{lease.run}' may move it" if lease.alive(now) else "nobody may move it"
        q = "" if status.state is None else f", joints {' '.join(f'{angle:+.2f}' for angle in status.state.q)} rad"
        return f"{status.mode} ({status.reason}); {who}{q}"
