"""Is everything there: files that can be read, episodes that hold a window."""

from __future__ import annotations

from typing import ClassVar

from uva_lightning.inspection.checks.base import Check, Finding, Tally
from uva_lightning.inspection.subject import Look, Subject


class Readable(Check):
    """Broken files, truncated videos: whatever a reader refused, and pictures that could not be read."""

    title: ClassVar[str] = "readable"

    def finish(self) -> Finding:
        """See the base class."""
        if not self.subject.faults:
            return Finding("ok", f"{self.subject.store.episodes} episodes, numbers finite")
        return Finding(
            "FAIL",
            "episodes that cannot be read",
            len(self.subject.faults),
            str(self.subject.faults[0]),
            "copy or record these again, or train without them: data.reading.on_error=skip",
        )


class LongEnough(Check):
    """Episodes shorter than a window."""

    title: ClassVar[str] = "length"

    def __init__(self, subject: Subject) -> None:
        super().__init__(subject)
        self.least, self.short = subject.data.window.shortest, Tally()

    def see(self, look: Look) -> None:
        """See the base class."""
        length = int(self.subject.store.lengths[look.episode])
        if length < self.least:
            self.short.add(look, what=f"{length} steps")

    def finish(self) -> Finding:
        """See the base class."""
        window = f"a window needs {self.least} steps"
        if not self.short.count:
            return Finding("ok", window)
        allowed = self.subject.data.window.allow_short_episodes
        return Finding(
            "warn" if allowed else "FAIL",
            f"episodes too short, {window}",
            self.short.count,
            self.short.first,
            "their edges are repeated" if allowed else "remove them, or set data.window.allow_short_episodes=true",
        )
