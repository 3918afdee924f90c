"""From physical units to the model's numbers and back."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable

import torch
from torch import Tensor

from uva_lightning.model.fitted import Fitted
from uva_lightning.summaries import Extremes, Moments, Ranks

SMALLEST_RANGE = 1e-4
"""Range below which UVA takes a dimension for constant."""


class Normalizer(Fitted):
    """An affine map per dimension, ``x * scale + offset``, chosen from values that pass by once, in blocks."""

    def __init__(self) -> None:
        self._scale = self._offset = torch.empty(0)
        self._count = self._width = 0

    def fit(self, blocks: Tensor | Iterable[Tensor]) -> None:
        """Choose scale and offset from f32[n, w], whole or in blocks.

        Raises:
            ValueError: There are no values, one is not finite, or blocks differ in width.
        """
        self.begin()
        for block in (blocks,) if isinstance(blocks, Tensor) else blocks:
            self.update(block)
        self.finish()

    def begin(self) -> None:
        """Start to gather; several normalisers that are fitted side by side read the data once."""
        self._count = self._width = 0
        self._begin()

    def update(self, values: Tensor, name: str = "values") -> None:
        """Gather f32[n, w]; the map stays as it is until ``finish``.

        Args:
            values: In physical units, any number of rows.
            name: What they are, for the message.

        Raises:
            ValueError: A number is not finite, or the width is not that of the block before.
        """
        if not len(values):
            return
        if self._count and values.shape[-1] != self._width:
            raise ValueError(
                f"A block of '{name}' is {values.shape[-1]} wide, expected {self._width} as the blocks before it; "
                "normalise data of one kind together."
            )
        if (bad := (~torch.isfinite(values)).sum(dim=0)).any():
            column = int(bad.argmax())
            raise ValueError(
                f"'{name}' has NaN or infinity {int(bad.sum())} times, most in dimension {column}, expected finite "
                "numbers; repair or remove these episodes."
            )
        self._count, self._width = self._count + len(values), values.shape[-1]
        self._add(values)

    def finish(self) -> None:
        """Choose scale and offset from what was gathered.

        Raises:
            ValueError: Nothing was.
        """
        if not self._count:
            raise ValueError("A normaliser was given 0 values, expected at least one; fit it to training data.")
        self._scale, self._offset = self._choose()
        self._begin()  # forget

    @property
    def count(self) -> int:
        """Rows gathered since ``begin``."""
        return self._count

    @abstractmethod
    def _begin(self) -> None:
        """Forget what was gathered."""

    @abstractmethod
    def _add(self, values: Tensor) -> None:
        """Gather finite f32[n, w]."""

    @abstractmethod
    def _choose(self) -> tuple[Tensor, Tensor]:
        """Give scale and offset, f32[w]."""

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

    def _begin(self) -> None:
        """Nothing is gathered."""

    def _add(self, values: Tensor) -> None:
        """Only the width is learnt."""

    def _choose(self) -> tuple[Tensor, Tensor]:
        return torch.ones(self._width), torch.zeros(self._width)


class Limits(Normalizer):
    """Map each dimension's range to [-1, 1], as UVA; a constant dimension becomes 0.

    Args:
        smallest_range: A dimension of a smaller range counts as constant; UVA has 1e-4, and 1e-7 for the positions of
            robot arms.
        offset: Move the middle of the range to 0. Without it zero stays zero and the largest magnitude becomes 1.
    """

    def __init__(self, smallest_range: float = SMALLEST_RANGE, offset: bool = True) -> None:
        super().__init__()
        self.smallest_range, self.offset = _positive(smallest_range), offset

    def _begin(self) -> None:
        self._seen = Extremes()

    def _add(self, values: Tensor) -> None:
        self._seen.add(values)

    def _choose(self) -> tuple[Tensor, Tensor]:
        low, high = self._seen.low, self._seen.high
        if self.offset:
            return _to_unit(low, high, self.smallest_range)
        largest = torch.maximum(low.abs(), high.abs())
        none = largest < self.smallest_range
        return torch.where(none, 1.0, 1.0 / largest.clamp(min=self.smallest_range)), torch.zeros_like(low)


class Quantiles(Normalizer):
    """Map the range between two quantiles of each dimension to [-1, 1], so that rare outliers do not squeeze the rest.

    Values outside go beyond [-1, 1]: a head that clips what it denoises clips them. A dimension that hardly ever leaves
    one value, such as a gripper, may count as constant; use ``Limits`` for it.

    Args:
        low: Share of the values that may lie below -1.
        high: Share of the values that lie below 1.
        smallest_range: A dimension of a smaller range between the two counts as constant: its low end becomes 0.
    """

    def __init__(self, low: float = 0.01, high: float = 0.99, smallest_range: float = SMALLEST_RANGE) -> None:
        super().__init__()
        if not 0 <= low < high <= 1:
            raise ValueError(
                f"The quantiles are {low} and {high}, expected 0 <= low < high <= 1, such as 0.01 and 0.99."
            )
        self.low, self.high, self.smallest_range = low, high, _positive(smallest_range)

    def _begin(self) -> None:
        self._seen = Ranks()

    def _add(self, values: Tensor) -> None:
        self._seen.add(values)

    def _choose(self) -> tuple[Tensor, Tensor]:
        low, high = self._seen.quantile(self.low), self._seen.quantile(self.high)
        return _to_unit(low, high, self.smallest_range)


class Standard(Normalizer):
    """Map each dimension to mean 0 and standard deviation 1; a constant dimension becomes 0.

    Args:
        smallest_range: A dimension of a smaller standard deviation counts as constant.
        offset: Subtract the mean. Without it zero stays zero.
    """

    def __init__(self, smallest_range: float = SMALLEST_RANGE, offset: bool = True) -> None:
        super().__init__()
        self.smallest_range, self.offset = _positive(smallest_range), offset

    def _begin(self) -> None:
        self._seen = Moments()

    def _add(self, values: Tensor) -> None:
        self._seen.add(values)

    def _choose(self) -> tuple[Tensor, Tensor]:
        std, smallest = self._seen.std, self.smallest_range
        scale = torch.where(std < smallest, 1.0, 1.0 / std.clamp(min=smallest))
        return scale.float(), (-self._seen.mean * scale * float(self.offset)).float()


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

    def _begin(self) -> None:
        for part in self.parts:
            part.begin()

    def _add(self, values: Tensor) -> None:
        if sum(self.widths) != values.shape[-1]:
            raise ValueError(
                f"Columns has the widths {self.widths}, together {sum(self.widths)}, but the values are "
                f"{values.shape[-1]} wide; mend its widths."
            )
        for part, columns in zip(self.parts, values.split(self.widths, dim=-1), strict=True):
            part.update(columns)

    def _choose(self) -> tuple[Tensor, Tensor]:
        for part in self.parts:
            part.finish()
        states = [part.state() for part in self.parts]
        return torch.cat([state["scale"] for state in states]), torch.cat([state["offset"] for state in states])


def _positive(smallest_range: float) -> float:
    if smallest_range <= 0:
        raise ValueError(f"smallest_range is {smallest_range}, expected a positive number; UVA has 1e-4.")
    return smallest_range


def _to_unit(low: Tensor, high: Tensor, smallest_range: float) -> tuple[Tensor, Tensor]:
    """Map low to -1 and high to 1; a range that is too small keeps its unit and begins at 0."""
    constant = high - low < smallest_range
    scale = torch.where(constant, 1.0, 2.0 / (high - low).clamp(min=smallest_range))
    return scale, torch.where(constant, -low, -1.0 - low * scale)
