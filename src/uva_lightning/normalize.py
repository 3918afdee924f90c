"""From physical units to the model's numbers and back."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping

import torch
from torch import Tensor

from uva_lightning.model.fitted import Fitted

SMALLEST_RANGE = 1e-4
"""Range below which UVA takes a dimension for constant."""


class Normalizer(Fitted):
    """An affine map per dimension, ``x * scale + offset``."""

    def __init__(self) -> None:
        self._scale = self._offset = torch.empty(0)

    @abstractmethod
    def fit(self, values: Tensor) -> None:
        """Choose scale and offset from f32[n, w]."""

    @property
    def fitted(self) -> bool:
        """Whether scale and offset are known."""
        return self._scale.numel() > 0

    def encode(self, values: Tensor) -> Tensor:
        """Normalise f32[..., w]."""
        self._check(values)
        return values * self._scale + self._offset

    def decode(self, values: Tensor) -> Tensor:
        """Undo ``encode``."""
        self._check(values)
        return (values - self._offset) / self._scale

    def state(self) -> dict[str, Tensor]:
        """See the base class."""
        return {"scale": self._scale, "offset": self._offset}

    def load_state(self, state: dict[str, Tensor]) -> None:
        """See the base class."""
        self._scale, self._offset = state["scale"], state["offset"]

    def to(self, device: torch.device) -> None:
        """See the base class."""
        self._scale, self._offset = self._scale.to(device), self._offset.to(device)

    def _check(self, values: Tensor) -> None:
        if values.shape[-1:] != self._scale.shape:
            raise ValueError(
                f"The values are {values.shape[-1]} wide, expected {self._scale.numel()} as fitted; "
                "use the data set that the checkpoint was trained on, or fit anew."
            )


class Identity(Normalizer):
    """Leave the numbers as they are, as UVA does with rotations and grippers."""

    def fit(self, values: Tensor) -> None:
        """See the base class; only the width is learnt."""
        self._scale, self._offset = torch.ones(values.shape[-1]), torch.zeros(values.shape[-1])


class Limits(Normalizer):
    """Map each dimension's range to [-1, 1], as UVA; a constant dimension becomes 0.

    Args:
        smallest_range: A dimension of a smaller range counts as constant; UVA has 1e-4, and 1e-7 for the positions of
            robot arms.
        offset: Move the middle of the range to 0. Without it zero stays zero and the largest magnitude becomes 1.
    """

    def __init__(self, smallest_range: float = SMALLEST_RANGE, offset: bool = True) -> None:
        super().__init__()
        if smallest_range <= 0:
            raise ValueError(f"smallest_range is {smallest_range}, expected a positive number; UVA has 1e-4.")
        self.smallest_range, self.offset = smallest_range, offset

    def fit(self, values: Tensor) -> None:
        """See the base class."""
        low, high = values.amin(dim=0), values.amax(dim=0)
        if self.offset:
            constant = high - low < self.smallest_range
            self._scale = torch.where(constant, 1.0, 2.0 / (high - low).clamp(min=self.smallest_range))
            self._offset = torch.where(constant, -low, -1.0 - low * self._scale)
        else:
            largest = torch.maximum(low.abs(), high.abs())
            none = largest < self.smallest_range
            self._scale = torch.where(none, 1.0, 1.0 / largest.clamp(min=self.smallest_range))
            self._offset = torch.zeros_like(low)


class Standard(Normalizer):
    """Map each dimension to mean 0 and standard deviation 1; a constant dimension becomes 0.

    Args:
        smallest_range: A dimension of a smaller standard deviation counts as constant.
        offset: Subtract the mean. Without it zero stays zero.
    """

    def __init__(self, smallest_range: float = SMALLEST_RANGE, offset: bool = True) -> None:
        super().__init__()
        if smallest_range <= 0:
            raise ValueError(f"smallest_range is {smallest_range}, expected a positive number; UVA has 1e-4.")
        self.smallest_range, self.offset = smallest_range, offset

    def fit(self, values: Tensor) -> None:
        """See the base class."""
        std = values.std(dim=0)
        smallest = self.smallest_range
        self._scale = torch.where(std < smallest, 1.0, 1.0 / std.clamp(min=smallest))
        self._offset = -values.mean(dim=0) * self._scale * float(self.offset)


class Columns(Normalizer):
    """Normalise groups of dimensions in different ways: UVA maps positions to [-1, 1] and leaves rotations alone.

    Args:
        widths: Dimensions of each group, in order.
        parts: Map of each group.
    """

    def __init__(self, widths: list[int], parts: list[Normalizer]) -> None:
        super().__init__()
        if len(widths) != len(parts) or not widths or min(widths) < 1:
            raise ValueError(
                f"Columns has the widths {widths} for {len(parts)} parts, expected one positive width per part."
            )
        self.widths, self.parts = widths, parts

    def fit(self, values: Tensor) -> None:
        """See the base class.

        Raises:
            ValueError: The widths do not add up to that of the values.
        """
        if sum(self.widths) != values.shape[-1]:
            raise ValueError(
                f"Columns has the widths {self.widths}, together {sum(self.widths)}, but the values are "
                f"{values.shape[-1]} wide; mend its widths."
            )
        for part, columns in zip(self.parts, values.split(self.widths, dim=-1), strict=True):
            part.fit(columns)
        states = [part.state() for part in self.parts]
        self._scale = torch.cat([state["scale"] for state in states])
        self._offset = torch.cat([state["offset"] for state in states])


class ActionSpace(Fitted):
    """How the model sees actions.

    Args:
        normalizer: Map to the model's numbers, which heads denoise.
        relative_to: Proprioception entry whose latest value is subtracted first, e.g. ``agent``: a chunk is then a
            motion from here, the same wherever it starts. None keeps actions as they are, as UVA does for Push-T.
        place: Also show the actions as recorded, by this map, to the transformer: where a motion ends up matters to
            forward dynamics, and needs no adding up then. None shows what is denoised and nothing else, as UVA.
    """

    def __init__(self, normalizer: Normalizer, relative_to: str | None = None, place: Normalizer | None = None) -> None:
        self.normalizer, self.relative_to, self.place = normalizer, relative_to, place

    def shown(self, action_dim: int) -> int:
        """Width of what the transformer sees of an action of ``action_dim`` numbers."""
        return action_dim if self.place is None else 2 * action_dim

    def fit(self, action: Tensor, state: Mapping[str, Tensor]) -> None:
        """Fit to chunks f32[n, h, a] and the proprioception at their start."""
        self.normalizer.fit((action - self._origin(action, state)).flatten(0, 1))
        if self.place is not None:
            self.place.fit(action.flatten(0, 1))

    def encode(self, action: Tensor, state: Mapping[str, Tensor]) -> Tensor:
        """Normalise f32[b, h, a] given f32[b, t, p] per proprioception entry.

        Returns:
            f32[b, h, w]; the first ``a`` numbers are what heads denoise.
        """
        denoised = self.normalizer.encode(action - self._origin(action, state))
        return denoised if self.place is None else torch.cat((denoised, self.place.encode(action)), dim=-1)

    def decode(self, action: Tensor, state: Mapping[str, Tensor]) -> Tensor:
        """Undo ``encode`` for what heads denoise, f32[b, h, a]."""
        return self.normalizer.decode(action) + self._origin(action, state)

    @property
    def fitted(self) -> bool:
        """Whether the normalisers are."""
        return all(part.fitted for part in self._parts().values())

    def state(self) -> dict[str, Tensor]:
        """See the base class."""
        return {f"{name}.{key}": value for name, part in self._parts().items() for key, value in part.state().items()}

    def load_state(self, state: dict[str, Tensor]) -> None:
        """See the base class."""
        for name, part in self._parts().items():
            part.load_state({key: state[f"{name}.{key}"] for key in ("scale", "offset")})

    def to(self, device: torch.device) -> None:
        """See the base class."""
        for part in self._parts().values():
            part.to(device)

    def _parts(self) -> dict[str, Normalizer]:
        return {"normalizer": self.normalizer, **({} if self.place is None else {"place": self.place})}

    def _origin(self, action: Tensor, state: Mapping[str, Tensor]) -> Tensor:
        if self.relative_to is None:
            return torch.zeros((), device=action.device)
        if self.relative_to not in state or state[self.relative_to].shape[-1] != action.shape[-1]:
            found = {name: value.shape[-1] for name, value in state.items()}
            raise ValueError(
                f"Actions of width {action.shape[-1]} cannot be relative to '{self.relative_to}': the proprioception "
                f"has widths {found}; set relative_to to an entry of the same width, or to null."
            )
        return state[self.relative_to][:, -1:]
