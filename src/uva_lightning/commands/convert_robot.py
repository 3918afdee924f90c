"""``uva convert robot_episodes``: what an arm recorded becomes training data, a LeRobot dataset v3.0."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from uva_lightning.commands.errors import UserError, hint
from uva_lightning.datamodules.arm_episodes import fields_for, recorded
from uva_lightning.datamodules.arm_recordings import Choice, LabelName, Recordings, Taken
from uva_lightning.datamodules.faults import Faults, OnError
from uva_lightning.datamodules.lerobot.convert import write_compared
from uva_lightning.datamodules.lerobot.films import Compression
from uva_lightning.results import write_json
from uva_lightning.types import DataSpec
from uva_lightning.whole_files import whole_folder

SOURCES = "meta/recordings.json"
"""Where a converted dataset says which recording each of its episodes is, beside LeRobot's own files."""
KEPT = ("label", "reason", "begun", "policy", "operator", "seed", "serial", "software", "git", "recovered")
"""Facts of a recording that are copied there."""


def robot_episodes(
    path: Path,
    out: Path,
    labels: tuple[LabelName, ...] = ("success",),
    cameras: list[str] | None = None,
    rate_hz: float | None = None,
    gap: float = 0.25,
    task: str | None = None,
    on_error: OnError = "stop",
    crf: int = 23,
    file_mb: int = 200,
) -> None:
    """Write recorded episodes as a LeRobot dataset v3.0 and compare it with them.

    An action is the pose of the tool that was reached, in the frame of the base, and the opening of the gripper; train
    with --data ArmEpisodes, which makes UMI's relative poses of it, or with --data LeRobot, which takes it as it is.

    Args:
        path: Folder of the recordings.
        out: Folder of the new dataset.
        labels: Which of them: success, failure, invalid.
        cameras: Cameras to keep; those that all recordings have if not given.
        rate_hz: Steps per second; that of the slowest of measurements and pictures if not given.
        gap: Longest time between a step and the nearest picture, s.
        task: What the robot was told where a recording does not say it.
        on_error: What happens with broken recordings: stop, or skip them and say how many there were.
        crf: Constant rate factor of the videos; lower is better and larger.
        file_mb: Megabytes after which a new video file begins.
    """
    compression = Compression(crf, file_mb)
    with whole_folder(out) as partial:
        recordings = Recordings(path, Choice(tuple(labels), rate_hz, gap, task), Faults(on_error))
        recordings.faults.report(path, len(recordings.taken))
        shown = tuple(cameras or recordings.cameras)
        if unknown := [camera for camera in shown if camera not in recordings.cameras]:
            raise UserError(f"Not all recordings have the camera '{unknown[0]}'.{hint(unknown[0], recordings.cameras)}")
        store = recordings.store(shown)
        spec = recorded(DataSpec(shown, 0, 0, {}, recordings.rate_hz))
        told = write_compared(partial, store, spec, compression, fields_for(shown))
        write_json(partial / SOURCES, {"episodes": [_source(taken) for taken in recordings.taken]})
    sys.stdout.write(f"{recordings.told()}.\n{out}: {told}\n")


def _source(taken: Taken) -> Mapping[str, Any]:
    meta = taken.episode.meta
    return {"recording": taken.episode.path.name, **{name: meta[name] for name in KEPT if name in meta}}
