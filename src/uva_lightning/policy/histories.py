"""Histories of several environments, and the windows that a model sees of them."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from uva_lightning.policy.contract import ContractError
from uva_lightning.policy.history import History, TimeStep, stacked
from uva_lightning.policy.windows import WindowObservation
from uva_lightning.types import DataSpec

Encode = Callable[[Tensor], Tensor]
"""u8[n, H, W, 3] to moments [n, s, m]."""


@dataclass
class Environment:
    """What a policy knows of one environment.

    Attributes:
        history: Its observations.
        told: Vector of its instruction, f32[w].
        noise: Seed of its episode.
        calls: Decisions in the episode.
        episodes: Resets so far.
    """

    history: History
    told: NDArray[np.float32] | None = None
    noise: int = 0
    calls: int = 0
    episodes: int = 0


@dataclass
class Histories:
    """Environments by any name that is hashable.

    Args:
        spec: Contract of the checkpoint.
        patience: See ``History``.
        every: See ``History``.
    """

    spec: DataSpec
    patience: int
    every: int
    told: NDArray[np.float32] | None = None
    seed: int | None = None
    known: dict[Hashable, Environment] = field(default_factory=dict)

    def reset(self, name: Hashable, told: NDArray[np.float32] | None, seed: int | None) -> None:
        """Begin an episode in one environment; the instruction stays if no other is given."""
        before = self.known.get(name)
        episodes = 0 if before is None else before.episodes + 1
        kept = self.told if before is None else before.told
        noise = zlib.crc32(f"{name!r}/{episodes}".encode()) if seed is None else seed
        history = History(self.spec, self.patience, self.every)
        self.known[name] = Environment(history, kept if told is None else told, noise, 0, episodes)

    def begin(self, told: NDArray[np.float32] | None, seed: int | None) -> None:
        """Begin an episode in every environment, those to come included."""
        self.told, self.seed = self.told if told is None else told, seed
        for place, name in enumerate(self.known):
            self.reset(name, told, None if seed is None else seed + place)

    def of(self, name: Hashable) -> Environment:
        """Give an environment; one that is new begins an episode."""
        if name not in self.known:
            self.reset(name, None, None if self.seed is None else self.seed + len(self.known))
        return self.known[name]

    def add(self, observation: Mapping[str, Any], names: Sequence[Hashable]) -> None:
        """Take one time step of ``n`` environments, checked and batched."""
        for row, name in enumerate(names):

            def own(key: str, row: int = row) -> Any:
                value = observation.get(key)
                return value if value is None or np.ndim(value) == 0 else value[row]

            step, time, action = own("step"), own("time"), observation.get("last_action")
            try:
                self.of(name).history.add(
                    {camera: pictures[row] for camera, pictures in observation["video"].items()},
                    {entry: np.asarray(numbers)[row] for entry, numbers in observation.get("state", {}).items()},
                    None if step is None else int(step),
                    None if time is None else float(time),
                    None if action is None else np.asarray(action)[row],
                )
            except ContractError as error:
                raise ContractError(f"Environment {name!r}: {error}" if len(self.known) > 1 else str(error)) from None

    def require(self, names: Sequence[Hashable]) -> None:
        """Refuse names of environments that have shown nothing, where others have."""
        if self.known and (unknown := [name for name in names if name not in self.known]):
            raise ContractError(
                f"There is no environment {unknown[0]!r}, expected some of {list(self.known)}; give its observation."
            )

    def now(self, names: Sequence[Hashable]) -> list[TimeStep]:
        """Give the newest time step of each."""
        return [self.of(name).history.now for name in names]

    def check(self, names: Sequence[Hashable]) -> None:
        """Refuse environments of which too little is known."""
        for name in names:
            history = self.of(name).history
            history.frames()
            history.states()
            if self.spec.text_dim:
                self._told(name)

    def window(self, names: Sequence[Hashable], encode: Encode | None, pictures: bool) -> WindowObservation:
        """Give the histories that the model sees, of ``n`` environments.

        Args:
            names: The environments.
            encode: Encodes frames that were not yet; None leaves that to the model, which encodes all.
            pictures: Whether frames are wanted too, beside the latents.
        """
        spec, each = self.spec, [self.of(name) for name in names]
        frames = [one.history.frames() for one in each]  # [n][t]
        states = [one.history.states() for one in each]
        seen: dict[str, dict[str, Any]] = {
            "state": {
                entry: np.stack([np.stack([at.state[entry] for at in row]) for row in states])
                for entry in spec.state_dims
            },
            "episode": {"seed": [one.noise for one in each], "call": [one.calls for one in each]},
        }
        if encode is not None:
            _encode([at for row in frames for at in row], spec.cameras, encode)
            seen["latents"] = {
                camera: torch.stack([torch.stack([at.moments[camera] for at in row]) for row in frames])
                for camera in spec.cameras
            }
        if encode is None or pictures:
            seen["video"] = {
                camera: np.stack([np.stack([at.video[camera] for at in row]) for row in frames])
                for camera in spec.cameras
            }
        if spec.text_dim:
            seen["text"] = {"instruction": np.stack([self._told(name) for name in names])}
        if spec.past_action:
            seen["action"] = stacked([one.history.actions() for one in each], spec)
        return seen

    def _told(self, name: Hashable) -> NDArray[np.float32]:
        told = self.of(name).told
        if told is None:
            raise ContractError(
                f"Environment {name!r} has no instruction, the checkpoint was trained with one per episode; call "
                "reset(instruction)."
            )
        return told


def _encode(steps: Sequence[TimeStep], cameras: Sequence[str], encode: Encode) -> None:
    """Encode, all at once, the frames that were not yet."""
    due = {(id(at), camera): (at, camera) for at in steps for camera in cameras if camera not in at.moments}
    if not due:
        return
    moments = encode(torch.from_numpy(np.stack([at.video[camera] for at, camera in due.values()])))
    for (at, camera), made in zip(due.values(), moments, strict=True):
        at.moments[camera] = made
