"""Questions to a trained model, read from messages that nobody has checked yet."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from uva_lightning.policy.committed import Rest
from uva_lightning.policy.contract import LARGEST, PICTURE_AXES, check_observation, one_row
from uva_lightning.policy.windows import Frames
from uva_lightning.serving.keys import STATE, TURNED, VIDEO
from uva_lightning.types import DataSpec

NUMBERS: dict[str, tuple[type, float, float]] = {
    "iterations": (int, 1, 64),
    "guidance": (float, 0, 100),
    "temperature": (float, 0, 10),
    "proposals": (int, 1, 64),
    "margin": (float, 0, float("inf")),
    "delay": (int, 0, 1024),
    "seed": (int, 0, 2**31 - 1),
}
"""Options that are numbers: type, lowest and highest value."""
ARRAYS = ("actions", "committed")
"""Whole numbers below it are exact as f64, which is how control steps travel."""
USED = {
    "policy": ("temperature", "committed", "delay"),
    "imagine": ("temperature", "iterations", "guidance"),
    "predict_next": ("temperature", "iterations", "guidance", "actions"),
    "explain": ("temperature",),
    "plan": ("proposals", "margin"),
    "observe": (),
    "reset": ("seed",),
}
"""Options of each function."""


@dataclass(frozen=True)
class Request:
    """One question, checked: the session's history has taken the observation up already.

    Args:
        name: Of the session in the policy.
        function: What is asked.
        numbers: Options that are equal among requests of one call.
        actions: f32[h, a], for ``predict_next``.
        frames: u8[t, H, W, 3] by camera, for ``explain``.
        rest: What the robot is doing, for ``policy``.
    """

    name: Hashable
    function: str
    numbers: Mapping[str, float] = field(default_factory=dict)
    actions: NDArray[np.float32] | None = None
    frames: Frames | None = None
    rest: Rest | None = None

    @property
    def group(self) -> Hashable:
        """Requests of one group go into one call."""
        return self.function, tuple(sorted(self.numbers.items())), self.rest is None


def number(name: str, value: Any) -> float:
    """Check an option that is a number."""
    kind, low, high = NUMBERS[name]
    if isinstance(value, np.generic):
        value = value.item()
    fits = isinstance(value, int if kind is int else int | float) and not isinstance(value, bool)
    if not fits or not low <= value <= high:
        what = "a whole number" if kind is int else "a number"
        raise ValueError(f"{name} is {value!r:.80}, expected {what} from {low} to {high}.")
    return kind(value)


def needed(found: Mapping[str, Any], name: str, function: str) -> Any:
    """Give what a function cannot do without."""
    if name not in found:
        raise ValueError(f"'{function}' lacks '{name}', expected it in the message.")
    return found[name]


def rest_of(committed: Any, delay: float, spec: DataSpec) -> Rest:
    """Check what a robot is doing meanwhile."""
    try:
        with np.errstate(over="ignore"):  # what becomes infinite is refused below
            actions = np.asarray(committed, dtype=np.float32)
    except (TypeError, ValueError):
        raise ValueError("committed is no array of numbers, expected f32[k, a].") from None
    known = len(actions) if actions.ndim else 0
    if actions.shape != (known, spec.action_dim) or not 1 <= known <= spec.horizon or not np.isfinite(actions).all():
        raise ValueError(
            f"committed is {list(actions.shape)}, expected finite numbers, [1 to {spec.horizon}, {spec.action_dim}]."
        )
    if delay > known:
        raise ValueError(f"delay is {delay} steps with {known} committed actions, expected at most their number.")
    return Rest(actions, int(delay))


def time_steps(found: Mapping[str, Any], spec: DataSpec) -> list[dict[str, Any]]:
    """Cut an observation, of one time step or of several, into single ones, and check each.

    Args:
        found: By contract name; ``k`` time steps have a leading axis.
        spec: Contract.

    Returns:
        Observations as a ``UVAPolicy`` takes them, each a batch of one.

    Raises:
        ValueError: An entry is not what the contract says, or time steps are not numbered.
    """
    values = {name: found[name] for name in (f"{VIDEO}/{camera}" for camera in spec.cameras)}
    names = (*(f"{STATE}/{entry}" for entry in spec.state_dims), "step", "time", "last_action")
    values |= {name: _numbers(name, found[name]) for name in names if name in found}
    first = values[f"{VIDEO}/{spec.cameras[0]}"]
    several = isinstance(first, np.ndarray) and first.ndim == PICTURE_AXES + 1
    count, most = len(first) if several else 1, 4 * spec.horizon
    if not 1 <= count <= most:
        raise ValueError(f"The observation has {count} time steps, expected 1 to {most}.")
    for name, value in values.items():
        own = len(value) if np.ndim(value) else 0
        if several and own != count:
            raise ValueError(f"'{name}' has {own} time steps, expected {count}, as the pictures of the first camera.")
    facts = _facts(found)
    if count > 1 and not {"step", "time"} & set(values):
        raise ValueError(
            f"The message holds {count} time steps without 'step', expected one number for each, such as "
            f"{list(range(count))}; one connection is one robot, others need connections of their own."
        )
    _check_clock(values, spec)
    return [_one({n: x[k] for n, x in values.items()} if several else values, facts, spec) for k in range(count)]


def _one(values: Mapping[str, Any], facts: Mapping[str, Any], spec: DataSpec) -> dict[str, Any]:
    video = {camera: values[f"{VIDEO}/{camera}"] for camera in spec.cameras}
    state = {entry: values[f"{STATE}/{entry}"] for entry in spec.state_dims}
    others = {name: values[name] for name in ("step", "time", "last_action") if name in values}
    if odd := [name for name in ("step", "time") if name in others and np.ndim(others[name])]:
        raise ValueError(f"'{odd[0]}' has the shape {np.shape(others[odd[0]])}, expected a number per time step.")
    check_observation({"video": video, "state": state, **others, **facts}, spec, None)
    return one_row({"video": video, "state": state, **others, **facts})


def _check_clock(values: Mapping[str, Any], spec: DataSpec) -> None:
    """Refuse numbers and times that name no control step."""
    steps, times = np.ravel(values.get("step", ())), np.ravel(values.get("time", ()))
    if (odd := steps[(steps != np.floor(steps)) | (steps < 0) | (steps >= LARGEST)]).size:
        raise ValueError(f"step is {odd[0]:.16g}, expected whole numbers from 0 to {LARGEST - 1}; count control steps.")
    if (odd := times[np.abs(times) >= LARGEST / spec.rate_hz]).size:
        raise ValueError(f"time is {odd[0]:.16g}, expected seconds below {LARGEST / spec.rate_hz:.3g}; convert to s.")


def _facts(found: Mapping[str, Any]) -> dict[str, Any]:
    """Give what a client says of its rate and its pictures, of the right types."""
    turned = {name.removeprefix(TURNED): x for name, x in found.items() if name.startswith(TURNED)}
    facts = {name: found[name] for name in ("rate_hz", "orientation") if name in found}
    facts |= {"orientation": turned} if turned else {}
    if "rate_hz" in facts:
        _check_rate(facts["rate_hz"])
    for said in turned.values() if turned else [facts.get("orientation", "")]:
        if not isinstance(said, str):
            raise ValueError(f"orientation is a {type(said).__name__}, expected text such as 'upright'.")
    return facts


def _check_rate(rate: Any) -> None:
    if isinstance(rate, bool) or not isinstance(rate, int | float | np.number):
        raise ValueError(f"rate_hz is a {type(rate).__name__}, expected a number in Hz.")
    if not (np.isfinite(rate) and rate > 0):
        raise ValueError(f"rate_hz is {rate:g}, expected a positive number in Hz; leave it out if it is not known.")


def _numbers(name: str, value: Any) -> NDArray[Any]:
    try:
        with np.errstate(over="ignore"):  # what becomes infinite is refused below
            found = np.asarray(value, dtype=np.float64 if name in ("step", "time") else np.float32)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"'{name}' is no array of numbers, expected some.") from None
    if not np.isfinite(found).all():
        raise ValueError(f"'{name}' has NaN or infinity, expected finite numbers.")
    return found
