"""Facts of an episode that go into its ``meta.json``: checked, and those of the code that records."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import uva_lightning
from uva_lightning.robot.errors import RobotConfigError

OWN = ("format", "begun", "ended", "label", "reason", "steps", "films", "dropped", "faults", "recovered")
"""Entries that the recorder writes."""
PATIENCE = 5.0


def checked_facts(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Give facts as JSON holds them.

    Raises:
        RobotConfigError: JSON cannot hold them, or one has the name of an entry that the recorder writes.
    """
    if taken := sorted(set(facts) & set(OWN)):
        raise RobotConfigError(f"Facts of an episode name {', '.join(taken)}, which the recorder writes; rename them.")
    try:
        plain: dict[str, Any] = json.loads(json.dumps(dict(facts)))
    except (TypeError, ValueError) as error:
        raise RobotConfigError(
            f"Facts of an episode cannot be held by JSON ({error}); use numbers and words."
        ) from error
    return plain


def facts_of_code() -> dict[str, Any]:
    """Give the version of this package, and its commit where it runs from a checkout."""
    folder = Path(uva_lightning.__file__).parent
    tracked = _git(folder, "ls-files", "--error-unmatch", "__init__.py")  # else the repository is somebody else's
    commit = None if tracked is None else _git(folder, "rev-parse", "HEAD")
    return {"software": uva_lightning.__version__, "git": commit}


def _git(folder: Path, *args: str) -> str | None:
    try:
        done = subprocess.run(["git", "-C", str(folder), *args], capture_output=True, text=True, timeout=PATIENCE)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
