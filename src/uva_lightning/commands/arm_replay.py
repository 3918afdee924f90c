"""``uva arm replay`` and ``uva arm recover``: play recordings dry, and finish those that were cut off."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path

from uva_lightning.commands.errors import UserError
from uva_lightning.robot.control import Control
from uva_lightning.robot.episodes import RecordedEpisode, find_episodes
from uva_lightning.robot.errors import RobotError
from uva_lightning.robot.limits import Limits
from uva_lightning.robot.recorder_files import recover
from uva_lightning.robot.replay import replay, told


def arm_replay(path: Path, limits: Limits | None = None, control: Control | None = None, arm: str | None = None) -> int:
    """Play recorded episodes dry, on an ideal arm, and say what today's limits would have refused.

    Nothing is connected to or moved. The status is 1 where something that was carried out would be refused.

    Args:
        path: A recording, or a folder of them.
        limits: Today's limits, such as --limits.joint_velocity 0.5.
        control: Pace, for chunks that were refused before they became trajectories.
        arm: Model of the arm, such as X5_umi, where a recording does not say it.
    """
    refused = 0
    for folder in find_episodes(path).finished:
        episode = RecordedEpisode(folder, arm)
        try:
            result = replay(episode, limits, control)
        except RobotError as error:
            raise UserError(f"{folder} cannot be played: {error}") from error
        refused += len(result.refused)
        sys.stdout.write(f"{folder.name} ({episode.label}):\n{_changes(episode, limits)}{told(result)}\n")
    return int(refused > 0)


def _changes(episode: RecordedEpisode, limits: Limits | None) -> str:
    """Say which limits are others than those that were recorded, if they were."""
    then = episode.meta.get("limits")
    today = json.loads(json.dumps(asdict(limits or Limits())))
    if not isinstance(then, dict):
        return ""
    changed = [f"{name} {value} (then {then.get(name)})" for name, value in today.items() if value != then.get(name)]
    return f"  limits today: {', '.join(changed)}\n" if changed else ""


def arm_recover(folder: Path) -> int:
    """Finish recordings that were cut off, by a crash or a full disk; they are invalid if nobody had labelled them.

    Those that are being recorded are left alone. The status is 1 where one could not be finished.

    Args:
        folder: Of the recordings.
    """
    if not folder.is_dir():
        raise UserError(f"There is no folder {folder}, expected one of recordings.")
    finished, left = recover(folder)
    lines = [f"finished {path}" for path in finished] + [f"left {path.name}: {why}" for path, why in left.items()]
    sys.stdout.write("\n".join(lines or [f"{folder} has no unfinished recordings."]) + "\n")
    return int(bool(left))
