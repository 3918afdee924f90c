"""A suite in training that tells what each process played."""

from __future__ import annotations

import json
from pathlib import Path

from uva_lightning.callbacks.suite_rollout import SuiteRollout


class WatchedSuite(SuiteRollout):
    """Writes the seeds of each process, and fails in the second one where it is told so.

    Args:
        fails: Whether the second process finds out that it cannot play.
    """

    def __init__(self, suite: str, workers: int = 0, fails: bool = False) -> None:
        super().__init__(suite, workers=workers)
        self.fails = fails

    def check(self, trainer, module):
        """Fail, or check."""
        if self.fails and trainer.global_rank == 1:
            raise ImportError("there is no simulator here")
        super().check(trainer, module)

    def play(self, trainer, module):
        """Play, and write the seeds."""
        played = super().play(trainer, module)
        seeds = [one.episode.seed for one in played]
        Path(trainer.default_root_dir, f"seeds_{trainer.global_rank}.json").write_text(json.dumps(seeds))
        return played
