"""Compare what a policy is given with the contract of its checkpoint, and name both sides where they differ."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
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


class ContractError(ValueError):
    """What a policy was given is not what its checkpoint was trained with."""


def check_observation(observation: Mapping[str, Any], spec: DataSpec, samples: int | None) -> None:
    """Refuse an observation of one time step that differs from those of training.

    Args:
        observation: See ``uva_lightning.policy.policy.Observation``.
        spec: Contract of the checkpoint.
        samples: Environments ``n`` of a batched observation; None for a single one.

    Raises:
        ContractError: It differs; the sentence has what was given and what the checkpoint was trained with.
    """
    if unknown := sorted(set(observation) - set(KINDS)):
        raise ContractError(f"The observation has '{unknown[0]}', expected of {', '.join(KINDS)}; rename or leave out.")
    video, state = observation.get("video", {}), observation.get("state", {})
    _same_names("cameras", video, spec.cameras)
    _same_names("state", state, spec.state_dims)
    lead = () if samples is None else (samples,)
    for name in spec.cameras:
        _check_picture(name, video[name], (*lead, spec.image_size, spec.image_size, 3))
    for name, width in spec.state_dims.items():
        _check_numbers(f"state '{name}'", state[name], (*lead, width), spec.rate_hz)
    if "last_action" in observation:
        _check_numbers("last_action", observation["last_action"], (*lead, spec.action_dim), spec.rate_hz)
    _check_rate(observation.get("rate_hz"), spec)
    _check_orientation(observation.get("orientation"), spec)


def check_frames(frames: Mapping[str, NDArray[np.uint8]], spec: DataSpec, lead: tuple[int, ...]) -> None:
    """Refuse future frames u8[*lead, t, H, W, 3] by camera that differ from those of training.

    Raises:
        ContractError: They differ.
    """
    _same_names("cameras", frames, spec.cameras)
    for name in spec.cameras:
        _check_picture(name, frames[name], (*lead, spec.frames, spec.image_size, spec.image_size, 3))


def check_actions(actions: ArrayLike, spec: DataSpec, lead: tuple[int, ...]) -> NDArray[np.float32]:
    """Refuse chunks f32[*lead, h, a] that differ from those of training; gives them as float32.

    Raises:
        ContractError: They differ.
    """
    _check_numbers("The action chunk", actions, (*lead, spec.horizon, spec.action_dim), spec.rate_hz)
    return np.asarray(actions, dtype=np.float32)


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
        raise ContractError(
            f"Camera '{camera}' is {list(picture.shape)}, the checkpoint was trained with {list(shape)} (height, "
            "width, RGB last); resize or turn the axes before sending."
        )


def _check_numbers(name: str, numbers: ArrayLike, shape: tuple[int, ...], rate_hz: float) -> None:
    try:
        found = np.asarray(numbers, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ContractError(f"{name} is no array of numbers ({error}), expected f32{list(shape)}.") from error
    if found.shape != shape:
        raise ContractError(f"{name} is {list(found.shape)}, the checkpoint was trained with {list(shape)}.")
    if not np.isfinite(found).all():
        raise ContractError(f"{name} has NaN or infinity, expected finite numbers as in training; check the sensor.")


def _check_rate(rate_hz: float | None, spec: DataSpec) -> None:
    if rate_hz is not None and abs(rate_hz - spec.rate_hz) > RATE_TOLERANCE * spec.rate_hz:
        raise ContractError(
            f"Observations come at {rate_hz:g} Hz, the checkpoint was trained at {spec.rate_hz:g} Hz; run the control "
            "loop at that rate, or send every so-many-th observation."
        )


def _check_orientation(given: str | Mapping[str, str] | None, spec: DataSpec) -> None:
    if given is None:
        return
    trained = trained_orientation(spec)
    known = {trained, re.split("[,(]", trained)[0].strip(), *((UPRIGHT,) if trained.startswith(UPRIGHT) else ())}
    by_camera = dict.fromkeys(spec.cameras, given) if isinstance(given, str) else given
    for camera, orientation in by_camera.items():
        if orientation not in known:
            raise ContractError(
                f"Pictures of camera '{camera}' are '{orientation}', the checkpoint was trained with '{trained}'; turn "
                "them before sending."
            )
