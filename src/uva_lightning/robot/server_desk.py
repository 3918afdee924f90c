"""Questions to the person beside the robot, who has them answered by typing; whoever waits asks again and again."""

from __future__ import annotations

from dataclasses import dataclass

from uva_lightning.robot.operator import Label

WAITING, YES, NO = "waiting", "yes", "no"


@dataclass(frozen=True)
class Question:
    """What a person is asked.

    Args:
        kind: ``confirm`` or ``label``.
        episode: Its number.
        until: When silence counts as no, or as invalid, s.
    """

    kind: str
    episode: int
    until: float


class Desk:
    """One question at a time.

    Args:
        patience: How long a person has for an answer, s.
    """

    def __init__(self, patience: float = 60.0) -> None:
        self.patience = patience
        self.question: Question | None = None
        self._answers = dict[tuple[str, int], str]()

    def ask(self, kind: str, episode: int, now: float) -> str:
        """Give the answer to a question, once; ``waiting`` until there is one. A new one replaces the one before."""
        known = self._answers.pop((kind, episode), None)
        if known is not None:
            return known
        if self.question is None or (self.question.kind, self.question.episode) != (kind, episode):
            self.question = Question(kind, episode, now + self.patience)
        return WAITING

    def expired(self, now: float) -> Question | None:
        """Close the question that nobody has answered in time; give it, once."""
        found = self.question
        if found is None or now <= found.until:
            return None
        self.answer(found, NO if found.kind == "confirm" else Label.INVALID.value)
        return found

    def answer(self, question: Question, said: str) -> None:
        """Take an answer to a question."""
        self.question = None if self.question == question else self.question
        self._answers[question.kind, question.episode] = said

    def forget(self) -> None:
        """Forget all answers: numbers of episodes may come again with the next client."""
        self.question = None
        self._answers.clear()
