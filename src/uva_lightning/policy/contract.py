"""Compare what a policy is given with the contract of its checkpoint, and name both sides where they differ."""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from uva_lightning.types import DataSpec

KINDS = ("video", "state", "step", "time", "rate_hz", "orientation", "last_action")
"""What an observation may have."""
UPRIGHT = "upright"
RATE_TOLERANCE = 0.01
"""Share by which a named rate may differ: clocks are not exact."""
PICTURE_AXES = 3
BYTE = 255
LARGEST = 2**53
"""From here on floating-point numbers do not tell two steps apart."""


class ContractError(ValueError):
    """What a policy was given is not what its checkpoint was trained with."""


def is_whole(value: Any) -> bool:
    """Tell whether this is an integer, of Python or NumPy."""
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def batch_of(observation: Any) -> int | None:
    """Count the environments of a batched observation; None of a single one, or of what is no observation."""
    video = observation.get("video") if isinstance(observation, Mapping) else None
    pictures = next(iter(video.values()), None) if isinstance(video, Mapping) else None
    batched = isinstance(pictures, np.ndarray) and pictures.ndim == PICTURE_AXES + 1
    return len(pictures) if batched and pictures is not None else None


def check_observation(observation: Mapping[str, Any], spec: DataSpec, samples: int | None) -> None:
    """Refuse an observation of one time step that differs from those of training.

    Args:
        observation: See ``uva_lightning.policy.policy.Observation``.
        spec: Contract of the checkpoint.
        samples: Environments ``n`` of a batched observation; None for a single one.

    Raises:
        ContractError: It differs; the sentence has what was given and what the checkpoint was trained with.
    """
    _check_mapping("The observation", observation, "video, state and others by name")
    if unknown := sorted(set(observation) - set(KINDS)):
        raise ContractError(
            f"The observation has '{unknown[0]}', expected only {', '.join(KINDS)}; rename or leave it out."
        )
    video, state = observation.get("video", {}), observation.get("state", {})
    _check_mapping("'video' of the observation", video, "pictures by camera")
    _check_mapping("'state' of the observation", state, "numbers by state")
    _same_names("cameras", video, spec.cameras)
    _same_names("state", state, spec.state_dims)
    if samples == 0:
        raise ContractError("The observation is of no environment, expected at least one.")
    lead = () if samples is None else (samples,)
    for name in spec.cameras:
        _check_picture(name, video[name], (*lead, spec.image_size, spec.image_size, 3))
    for name, width in spec.state_dims.items():
        _check_numbers(f"state '{name}'", state[name], (width,), lead, "the sensor")
    if "last_action" in observation:
        _check_numbers("last_action", observation["last_action"], (spec.action_dim,), lead, "what decided it")
    for name, whole in (("step", True), ("time", False)):
        if observation.get(name) is not None:
            _check_clock(name, observation[name], lead, whole)
    _check_rate(observation.get("rate_hz"), spec)
    _check_orientation(observation.get("orientation"), spec)


def check_frames(frames: Mapping[str, NDArray[np.uint8]], spec: DataSpec, lead: tuple[int, ...]) -> None:
    """Refuse future frames u8[*lead, t, H, W, 3] by camera that differ from those of training.

    Raises:
        ContractError: They differ.
    """
    _check_mapping("frames", frames, "pictures by camera")
    _same_names("cameras", frames, spec.cameras)
    for name in spec.cameras:
        _check_picture(name, frames[name], (*lead, spec.frames, spec.image_size, spec.image_size, 3))


def check_actions(actions: ArrayLike, spec: DataSpec, lead: tuple[int, ...]) -> NDArray[np.float32]:
    """Refuse chunks f32[*lead, h, a] that differ from those of training; gives them as float32.

    Raises:
        ContractError: They differ.
    """
    _check_numbers("The action chunk", actions, (spec.horizon, spec.action_dim), lead, "what decided it")
    return np.asarray(actions, dtype=np.float32)


def names_of(environments: Any, count: int | None = None) -> list[Hashable]:
    """Give names of environments as a list, each once.

    Args:
        environments: Several names, such as a list, an array or the keys of a dictionary.
        count: How many there are; any number if not given.

    Raises:
        ContractError: They are not names, not each once, or not so many.
    """
    if isinstance(environments, str) or not isinstance(environments, Iterable):
        raise ContractError(f"environments is {environments!r}, expected a list of names: [{environments!r}].")
    names = environments.tolist() if isinstance(environments, np.ndarray) else list(environments)
    if count is not None and len(names) != count:
        raise ContractError(f"There are {count} environments and {len(names)} names; name each.")
    if len(seen := set(names)) < len(names):
        double = next(name for name in seen if names.count(name) > 1)
        raise ContractError(f"Two environments are called {double!r}, expected each name once; rename one.")
    return names


def check_window(
    observation: Mapping[str, Mapping[str, NDArray[Any]]],
    spec: DataSpec,
    actions: NDArray[np.float32] | None = None,
    future: Mapping[str, NDArray[np.uint8]] | None = None,
) -> None:
    """Refuse a history window, actions or future frames that differ from those of training.

    Args:
        observation: See ``uva_lightning.policy.windows.WindowObservation``.
        spec: Contract of the checkpoint.
        actions: f32[b, h, a].
        future: u8[b, t, H, W, 3] per camera.

    Raises:
        ContractError: They differ; the sentence has the shape given and the one of training.
    """
    video, state, latents = (observation.get(kind, {}) for kind in ("video", "state", "latents"))
    picture = (spec.frames, spec.image_size, spec.image_size, 3)
    expected: dict[str, tuple[NDArray[Any] | None, tuple[int, ...]]] = {
        f"Observation video.{name}": (video.get(name), picture) for name in spec.cameras if name not in latents
    }
    expected |= {f"Observation state.{n}": (state.get(n), (spec.proprio_steps, w)) for n, w in spec.state_dims.items()}
    if spec.text_dim:
        expected["Observation text.instruction"] = (observation.get("text", {}).get("instruction"), (spec.text_dim,))
    if spec.past_action and (past := observation.get("action", {}).get("past")) is not None:
        expected["Observation action.past"] = (past, (spec.horizon, spec.action_dim))
    if future is not None:
        expected |= {f"Future video.{name}": (future.get(name), picture) for name in spec.cameras}
    if actions is not None:
        expected["Action chunk"] = (actions, (spec.horizon, spec.action_dim))
    for name, (value, shape) in expected.items():
        if value is None or value.shape[1:] != shape:
            found = "missing" if value is None else f"{value.shape[1:]} per sample"
            raise ContractError(f"{name} is {found}, expected {shape}: the checkpoint was trained so.")
        if shape == picture and value.dtype != np.uint8:
            raise ContractError(f"{name} is {value.dtype}, expected uint8 in 0..{BYTE}.")


def one_row(observation: Mapping[str, Any]) -> dict[str, Any]:
    """Give a single observation as a batch of one."""
    row = dict(observation)
    row["video"] = {camera: picture[None] for camera, picture in observation["video"].items()}
    row["state"] = {name: np.asarray(numbers)[None] for name, numbers in observation.get("state", {}).items()}
    if "last_action" in observation:
        row["last_action"] = np.asarray(observation["last_action"])[None]
    return row


def trained_orientation(spec: DataSpec) -> str:
    """Give the orientation of the pictures of training; upright where the contract does not tell."""
    return spec.conventions.get("orientation", UPRIGHT)


def _same_names(what: str, given: Iterable[str], trained: Iterable[str]) -> None:
    found, wanted = sorted(given), sorted(trained)
    if found != wanted:
        raise ContractError(
            f"The observation has {what} {found or 'none'}, the checkpoint was trained with {wanted or 'none'}; "
            f"send these and no others, under these names."
        )


def _check_picture(camera: str, picture: Any, shape: tuple[int, ...]) -> None:
    if not isinstance(picture, np.ndarray):
        raise ContractError(f"Camera '{camera}' is a {type(picture).__name__}, expected a NumPy array u8{list(shape)}.")
    if picture.dtype != np.uint8:
        raise ContractError(
            f"Camera '{camera}' has {picture.dtype} pictures, the checkpoint was trained with uint8 in 0..{BYTE}; "
            f"send them as the camera gives them, or scale back and round."
        )
    if picture.shape != shape:
        one = picture.shape[-PICTURE_AXES:] == shape[-PICTURE_AXES:]
        fix = f"give {list(shape[:-PICTURE_AXES])} pictures" if one else "resize or turn the axes before sending"
        raise ContractError(
            f"Camera '{camera}' is {list(picture.shape)}, the checkpoint was trained with {list(shape)} (height, "
            f"width, RGB last); {fix}."
        )


def _check_mapping(what: str, given: Any, expected: str) -> None:
    if not isinstance(given, Mapping):
        raise ContractError(f"{what} is a {type(given).__name__}, expected a dictionary: {expected}.")


def _check_numbers(name: str, numbers: Any, shape: tuple[int, ...], lead: tuple[int, ...], source: str) -> None:
    """Refuse what is not f32[*lead, *shape].

    Args:
        name: What it is, for people.
        numbers: What was given.
        shape: As in training.
        lead: Environments, or proposals of each.
        source: What to look at where numbers are not finite.
    """
    try:
        found = np.asarray(numbers, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ContractError(f"{name} is no array of numbers ({error}), expected f32{[*lead, *shape]}.") from error
    if found.shape != (*lead, *shape):
        many = f", here {[*lead, *shape]}" if lead else ""
        raise ContractError(
            f"{name} is {list(found.shape)}, the checkpoint was trained with {list(shape)}{many}; send these numbers, "
            "in the order of the data."
        )
    if not np.isfinite(found).all():
        raise ContractError(f"{name} has NaN or infinity, expected finite numbers as in training; check {source}.")


def _check_clock(name: str, given: Any, lead: tuple[int, ...], whole: bool) -> None:
    """Refuse steps that are no whole numbers and times that are no finite ones, one for all or one for each."""
    kind = "a whole number" if whole else "a finite number in s"
    wanted = f"expected {kind}" + (f", or {lead[0]} of them" if lead else "")
    try:
        found = np.asarray(given, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ContractError(f"'{name}' of the observation is {given!r}, {wanted}.") from error
    fits = found.shape in ((), lead) and (np.abs(found) < LARGEST).all()
    if not fits or (whole and (found % 1 != 0).any()):
        raise ContractError(f"'{name}' of the observation is {given!r}, {wanted}.")


def _check_rate(rate_hz: Any, spec: DataSpec) -> None:
    if rate_hz is None:
        return
    if isinstance(rate_hz, bool | str) or np.ndim(rate_hz):
        raise ContractError(f"'rate_hz' of the observation is {rate_hz!r}, expected a number of Hz.")
    rate_hz = float(rate_hz)
    if not abs(rate_hz - spec.rate_hz) <= RATE_TOLERANCE * spec.rate_hz:  # NaN is beside every rate
        raise ContractError(
            f"Observations come at {rate_hz:g} Hz, the checkpoint was trained at {spec.rate_hz:g} Hz; run the control "
            "loop at that rate, or send every so-many-th observation."
        )


def _check_orientation(given: Any, spec: DataSpec) -> None:
    if given is None:
        return
    trained = trained_orientation(spec)
    known = {trained, re.split("[,(]", trained)[0].strip(), *((UPRIGHT,) if trained.startswith(UPRIGHT) else ())}
    by_camera = dict.fromkeys(spec.cameras, given) if isinstance(given, str) else given
    _check_mapping("'orientation' of the observation", by_camera, f"'{trained}', or one by camera")
    for camera, orientation in by_camera.items():
        if orientation not in known:
            raise ContractError(
                f"Pictures of camera '{camera}' are '{orientation}', the checkpoint was trained with '{trained}'; turn "
                "them before sending."
            )
