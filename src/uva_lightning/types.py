"""What flows through the framework: episodes and batches in physical units, tokens, and what of them is visible.

Axes: ``b`` sample, ``t`` frame, ``s`` token of a frame, ``c`` latent channel, ``h`` action step, ``a`` action width,
``n`` proprioception step, ``p`` proprioception width.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Self

import torch
from torch import Tensor

FUTURE = "future_"
"""How the names of predicted proprioception begin."""


@dataclass(frozen=True)
class DataSpec:
    """Facts of a data set that the model's sizes follow from; stored in every checkpoint as its contract.

    Args:
        cameras: Names of the cameras, the first is the main view.
        image_size: Height and width of a frame in pixels.
        action_dim: Width ``a`` of an action.
        state_dims: Width ``p`` of each proprioception entry, by name.
        rate_hz: Control rate in Hz.
        horizon: Steps ``h`` of the action chunk; also the length of the history in steps.
        frames: Frames ``t`` seen of the history, and as many of the future.
        state_steps: Steps at which proprioception is read: ``frames`` (at the history frames) or ``horizon`` (at every
            step of the history); ``frames`` if not given.
        past_action: Whether the actions of the history are given.
        text_dim: Width of the instruction's embedding; 0 where there are no instructions.
        action_meaning: What an action is, with its unit, for people.
        conventions: Further facts for people and checks, such as orientation of pictures and rotation representation.
        sets: Facts of each data set of a mixture, of which these here are the union; none where there is no mixture.
    """

    cameras: tuple[str, ...]
    image_size: int
    action_dim: int
    state_dims: Mapping[str, int]
    rate_hz: float
    horizon: int = 16
    frames: int = 4
    state_steps: int | None = None
    past_action: bool = False
    text_dim: int = 0
    action_meaning: str = ""
    conventions: Mapping[str, str] = field(default_factory=dict)
    sets: Mapping[str, SetSpec] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.state_steps not in (None, self.frames, self.horizon):
            raise ValueError(
                f"state_steps is {self.state_steps}, expected the frames, {self.frames}, or the horizon, "
                f"{self.horizon}; set data.window.state_steps."
            )
        if self.horizon % self.frames:
            raise ValueError(
                f"horizon is {self.horizon} steps with {self.frames} frames, expected a multiple of the frames; "
                f"set data.window.frames to a divisor of {self.horizon}."
            )

    @property
    def proprio_steps(self) -> int:
        """Steps at which proprioception is read."""
        return self.frames if self.state_steps is None else self.state_steps

    @property
    def stride(self) -> int:
        """Steps between two frames."""
        return self.horizon // self.frames

    def frame_steps(self) -> tuple[int, ...]:
        """Steps of the window that have a frame, history first: 3, 7, 11, 15, 19, ... for 4 frames in 16 steps."""
        return tuple(range(self.stride - 1, 2 * self.horizon, self.stride))

    def chosen(self, name: str | None) -> str | None:
        """Name the data set whose cameras and actions count; None where there is no mixture.

        Args:
            name: One of ``sets``; the only one that has actions if not given.

        Raises:
            ValueError: There is none of this name, or several have actions and none is named.
        """
        acting = [one for one, part in self.sets.items() if part.spec.action_dim]
        if name is None and len(acting) == 1:
            return acting[0]
        if name is None and not self.sets:
            return None
        if name not in self.sets:
            known = f"one of {', '.join(self.sets)}" if self.sets else "none: the model knows one data set"
            given = "No data set is named" if name is None else f"There is no data set '{name}'"
            raise ValueError(f"{given}, expected {known}; choose with set (command line: --set).")
        return name

    def of(self, name: str | None) -> DataSpec:
        """Give the facts of one data set, see ``chosen``."""
        found = self.chosen(name)
        return self if found is None else self.sets[found].spec

    def modality(self, camera: str) -> str:
        """Give the name of a camera's modality; the main view is 'video', as in the paper."""
        return "video" if camera == self.cameras[0] else camera


@dataclass(frozen=True)
class SetSpec:
    """One data set of a mixture.

    Args:
        spec: Its facts under its own names, with pictures in the size that the mixture has.
        cameras: What each of its cameras is called in the mixture, by its own name.
        states: What each of its proprioception entries is called in the mixture, by its own name.
    """

    spec: DataSpec
    cameras: Mapping[str, str]
    states: Mapping[str, str]


@dataclass(frozen=True)
class Batch:
    """What every datamodule delivers: ``b`` windows in physical units.

    Either ``video`` or ``latents`` holds each camera. The first half of the frames is history, the second future.

    Attributes:
        video: u8[b, 2t, H, W, 3] per camera, RGB.
        latents: f16[b, 2t, s, m] per camera, moments as the tokenizer's ``encode`` gives them, from the cache.
        action: f32[b, h, a], the chunk; its first action is the one taken at the last history frame, or one step later.
        past_action: f32[b, h, a], the actions before it.
        state: f32[b, n, p] per proprioception entry, at the history frames or at every step of the history.
        future_state: f32[b, h, p] per proprioception entry, at every step of the future.
        text: f32[b, 512], instruction embedding.
        present: bool[b] on the CPU per modality: what each sample really has.
        source: i64[b] on the CPU, in a mixture: number of the data set in ``DataSpec.sets`` that a sample is from.
    """

    video: dict[str, Tensor] = field(default_factory=dict)
    latents: dict[str, Tensor] = field(default_factory=dict)
    action: Tensor | None = None
    past_action: Tensor | None = None
    state: dict[str, Tensor] = field(default_factory=dict)
    future_state: dict[str, Tensor] = field(default_factory=dict)
    text: Tensor | None = None
    present: dict[str, Tensor] = field(default_factory=dict)
    source: Tensor | None = None

    def __len__(self) -> int:
        for value in (*self.video.values(), *self.latents.values(), *self.present.values()):
            return len(value)
        raise ValueError("The batch has no video, no latents and no 'present' entry; a datamodule must fill one.")

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Batch:
        """Move all but ``present`` and ``source``, which are read on the CPU without waiting for the device."""

        def move(value: Any) -> Any:
            if isinstance(value, dict):
                return {name: move(entry) for name, entry in value.items()}
            return value.to(device, non_blocking=non_blocking) if isinstance(value, Tensor) else value

        moved = (f.name for f in fields(self) if f.name not in ("present", "source"))
        return replace(self, **{name: move(getattr(self, name)) for name in moved})


class _Grouped(Mapping[str, Tensor]):
    """Tensors by modality, also reachable as attributes."""

    def __init__(self, values: Mapping[str, Tensor]) -> None:
        self._values = dict(values)

    def __getitem__(self, name: str) -> Tensor:
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        """Number of modalities."""
        return len(self._values)

    def __getattr__(self, name: str) -> Tensor:
        if name.startswith("_") or name not in self._values:
            raise AttributeError(f"No modality '{name}' here, only {', '.join(self._values) or 'none'}.")
        return self._values[name]

    @property
    def batch_size(self) -> int:
        """Samples ``b``."""
        return len(next(iter(self._values.values())))

    def rows(self, index: Tensor | slice) -> Self:
        """Take samples."""
        return type(self)({name: value[index] for name, value in self.items()})

    def to(self, device: torch.device) -> Self:
        """Move to a device."""
        return type(self)({name: value.to(device) for name, value in self.items()})


class Tokens(_Grouped):
    """Normalised model inputs by modality.

    ``past_video`` and ``video``: f32[b, t, s, c]; ``action`` and ``past_action``: f32[b, h, a];
    a proprioception entry: f32[b, n, p]; ``text``: f32[b, 1, 512]; a modality of your own: f32[b, n, w]. A name tells
    where a modality lies in time: ``past_X`` is the history of ``X``, and ``future_X`` a target that no stream shows.

    Args:
        values: Tensors by modality.
        valid: bool[b, w] by modality, where samples differ in width: which numbers of a token are really there. The
            others are zero and count for nothing.
    """

    def __init__(self, values: Mapping[str, Tensor], valid: Mapping[str, Tensor] | None = None) -> None:
        super().__init__(values)
        self.valid = dict(valid or {})

    def rows(self, index: Tensor | slice) -> Self:
        """Take samples."""
        return type(self)(*({name: x[index] for name, x in part.items()} for part in (self, self.valid)))

    def to(self, device: torch.device) -> Self:
        """Move to a device."""
        return type(self)(*({name: x.to(device) for name, x in part.items()} for part in (self, self.valid)))

    def replaced(self, values: Mapping[str, Tensor]) -> Self:
        """Put other values in the place of some."""
        return type(self)({**self, **values}, self.valid)

    @property
    def cameras(self) -> tuple[str, ...]:
        """Modalities of future frames: each has its past beside it, ``past_video`` beside ``video``."""
        return tuple(name for name in self if f"past_{name}" in self and name != "action")

    @property
    def future(self) -> frozenset[str]:
        """Modalities that lie in the future; all others are known when the robot decides and count as history."""
        targets = (name for name in self if name.startswith(FUTURE))
        return frozenset({"action", *self.cameras, *targets})


class Visible(_Grouped):
    """Which tokens a sample may see, True = visible: bool[b, t, s] for video, bool[b, n] for sequences."""

    @classmethod
    def only(cls, tokens: Tokens, *names: str) -> Visible:
        """Show the named modalities and hide all others; ``history`` names every modality but the future ones.

        Raises:
            KeyError: A name is no modality of these tokens.
        """
        known = {"history", *tokens}
        if unknown := set(names) - known:
            raise KeyError(f"Cannot show {sorted(unknown)}: this model has {sorted(known)}.")

        def shown(name: str) -> bool:
            return name in names or ("history" in names and name not in tokens.future)

        return cls(
            {name: torch.full(value.shape[:-1], shown(name), dtype=torch.bool) for name, value in tokens.items()}
        )

    def without(self, absent: Mapping[str, Tensor]) -> Visible:
        """Hide, in place, what samples do not have: bool[b] by modality; that of a camera means its past too."""
        for name, rows in absent.items():
            for modality in (name, f"past_{name}"):
                if modality in self:
                    self[modality][rows] = False
        return self

    def hide(self, *names: str) -> Visible:
        """Hide whole modalities, in place."""
        for name in names:
            self[name].fill_(False)
        return self
