"""What a row of a recording holds: its columns, and rows out of what an arm, a keeper and a runner say."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from uva_lightning.robot.arm import ArmState, JointTrajectory
from uva_lightning.robot.chain import Array, Chain
from uva_lightning.robot.errors import RobotConfigError
from uva_lightning.robot.rollout import Step

NUMBER, COUNT, TEXT, VECTOR, MATRIX = "number", "count", "text", "vector", "matrix"
AXES = {NUMBER: 0, VECTOR: 1, MATRIX: 2}
COLUMNS: Mapping[str, str] = {
    "time": NUMBER,
    "step": COUNT,
    "looked": NUMBER,
    "late": NUMBER,
    "inference": NUMBER,
    "mode": TEXT,
    "q": VECTOR,
    "velocity": VECTOR,
    "torque": VECTOR,
    "eef": MATRIX,
    "opening": NUMBER,
    "sent_q": VECTOR,
    "sent_opening": NUMBER,
    "action": MATRIX,
    "asked_at": NUMBER,
    "asked_time": VECTOR,
    "asked_q": MATRIX,
    "asked_opening": VECTOR,
    "asked_valid_until": VECTOR,
    "clipped": VECTOR,
    "rejected": TEXT,
}
"""Columns of ``steps.parquet`` and their kinds; all but ``time`` may be null. Times are in s on the clock of whoever
drives, angles in rad, lengths in m.

``time``: of the measurement in this row; without one, of the row. ``step``: number of the runner's step. ``looked``:
when it was done with observing. ``late``: how much later than planned it began. ``inference``: duration of the
policy's part. ``mode``: of the keeper. ``q``, ``velocity``, ``torque`` [j], ``opening``: measured. ``eef``: measured
pose of the last frame in that of the base, [4, 4]. ``sent_q``, ``sent_opening``: set-point that the arm got.
``action``: what the policy said, [h, 10] as it came. ``asked_*``: trajectory that was asked for at ``asked_at``, [n]
and [n, j]. ``clipped``: numbers of its way-points at which the gripper was slowed or kept in its range. ``rejected``:
why nothing of it was carried out; null where it was.
"""


LATER = frozenset({"clipped"})
"""Columns that older recordings do not have."""


def checked(row: Mapping[str, Any]) -> dict[str, Any]:
    """Turn a row into numbers, lists and words, which JSON can hold.

    Raises:
        RobotConfigError: A column is unknown or of another shape, or the time is missing.
    """
    plain: dict[str, Any] = {}
    for name, value in row.items():
        if name not in COLUMNS:
            near = difflib.get_close_matches(name, COLUMNS, n=1)
            raise RobotConfigError(
                f"A row has the column '{name}', expected those of recorder_rows.COLUMNS"
                f"{f'; did you mean {near[0]!r}?' if near else '.'}"
            )
        if value is not None:
            plain[name] = _plain(name, value)
    if not math.isfinite(plain.get("time", math.nan)):
        raise RobotConfigError(f"A row has the time {row.get('time')}, expected a finite number of s.")
    return plain


def measured_row(state: ArmState, chain: Chain) -> dict[str, Any]:
    """Give what an arm measured."""
    return {
        "time": state.time,
        "q": state.q,
        "velocity": state.velocity,
        "torque": state.torque,
        "eef": chain.forward(state.q),
        "opening": state.opening,
    }


def asked_row(
    trajectory: JointTrajectory, now: float, rejected: str | None = None, clipped: Sequence[int] = ()
) -> dict[str, Any]:
    """Give a trajectory that was asked for now, why it was refused, if it was, and which way-points were changed."""
    return {
        "time": now,
        "asked_at": now,
        "asked_time": trajectory.time,
        "asked_q": trajectory.q,
        "asked_opening": trajectory.opening,
        "asked_valid_until": trajectory.valid_until,
        "clipped": clipped,
        "rejected": rejected,
    }


def step_row(step: Step, chain: Chain) -> dict[str, Any]:
    """Give a step of a ``RolloutRunner``: what it saw of the arm, what the policy said and what was sent."""
    asked = {} if step.sent is None else asked_row(step.sent, step.time + (step.inference or 0.0), None, step.clipped)
    return {
        **asked,
        "time": step.observed,
        "step": step.number,
        "looked": step.time,
        "late": step.late,
        "inference": step.inference,
        "q": step.q,
        "eef": chain.forward(step.q),
        "opening": step.opening,
        "action": step.action,
        "rejected": step.rejected,
    }


def arrow_schema() -> Any:
    """Give the types of the columns for pyarrow.

    Raises:
        ImportError: It is not installed.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise ImportError(
            f"Recordings need pyarrow ({error}); install it with pip install 'uva_lightning[data]'."
        ) from error

    number = pyarrow.float64()
    kinds = {
        NUMBER: number,
        COUNT: pyarrow.int64(),
        TEXT: pyarrow.string(),
        VECTOR: pyarrow.list_(number),
        MATRIX: pyarrow.list_(pyarrow.list_(number)),
    }
    return pyarrow.schema([(name, kinds[kind]) for name, kind in COLUMNS.items()])


def _plain(name: str, value: Any) -> Any:
    kind = COLUMNS[name]
    if kind == TEXT:
        return str(value)
    try:
        if kind == COUNT:
            return int(value)
        numbers: Array = np.asarray(value, float)
    except (TypeError, ValueError) as error:
        raise RobotConfigError(f"Column '{name}' of a row is {value!r}, expected a {kind}.") from error
    if numbers.ndim != AXES[kind]:
        raise RobotConfigError(f"Column '{name}' of a row has shape {numbers.shape}, expected a {kind}.")
    return numbers.tolist()
