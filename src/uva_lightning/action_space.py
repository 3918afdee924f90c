"""How the model sees actions: relative to where, and in which numbers."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping

import torch
from torch import Tensor

from uva_lightning.model.fitted import FittedOnBatches, rows_with
from uva_lightning.normalize import Normalizer
from uva_lightning.types import Batch


class Actions(FittedOnBatches):
    """How the model sees actions, of one data set or of several."""

    @abstractmethod
    def shown(self, action_dim: int) -> int:
        """Width of what the transformer sees of an action of ``action_dim`` numbers."""

    @abstractmethod
    def encode(self, action: Tensor, state: Mapping[str, Tensor], source: Tensor | None = None) -> Tensor:
        """Normalise f32[b, h, a] given f32[b, t, p] per proprioception entry.

        Args:
            action: In physical units.
            state: The proprioception.
            source: i64[b] on the CPU, number of each sample's data set where there are several.

        Returns:
            f32[b, h, w]; the first ``a`` numbers are what heads denoise.
        """

    @abstractmethod
    def decode(self, action: Tensor, state: Mapping[str, Tensor], source: Tensor | None = None) -> Tensor:
        """Undo ``encode`` for what heads denoise, f32[b, h, a]."""

    @abstractmethod
    def of(self, name: str | None) -> ActionSpace:
        """Give the action space of one data set, by its name in a mixture."""

    def valid(self, source: Tensor | None) -> Tensor | None:
        """Tell which numbers of its actions each sample really has, bool[b, a]; None where all have all."""
        return None


class ActionSpace(Actions):
    """How the model sees actions of one data set.

    Args:
        normalizer: Map to the model's numbers, which heads denoise.
        relative_to: Proprioception entry whose latest value is subtracted first, e.g. ``agent``: a chunk is then a
            motion from here, the same wherever it starts. None keeps actions as they are, as UVA does for Push-T.
        place: Also show the actions as recorded, by this map, to the transformer: where a motion ends up matters to
            forward dynamics, and needs no adding up then. None shows what is denoised and nothing else, as UVA.
    """

    def __init__(self, normalizer: Normalizer, relative_to: str | None = None, place: Normalizer | None = None) -> None:
        self.normalizer, self.relative_to, self.place = normalizer, relative_to, place

    def of(self, name: str | None) -> ActionSpace:
        """There is no mixture: this one."""
        return self

    def shown(self, action_dim: int) -> int:
        """See the base class."""
        return action_dim if self.place is None else 2 * action_dim

    def begin(self) -> None:
        """See the base class."""
        for part in self._parts().values():
            part.begin()

    def update(self, batch: Batch) -> None:
        """Gather the actions of the samples that have some."""
        if batch.action is None:
            return
        action = rows_with(batch, "action", batch.action)
        state = {name: rows_with(batch, "action", values) for name, values in batch.state.items()}
        self.normalizer.update((action - self._origin(action, state)).flatten(0, 1), "action")
        if self.place is not None:
            self.place.update(action.flatten(0, 1), "action")

    def finish(self) -> None:
        """Choose; where no sample has actions, as in human video, there is nothing to choose and nothing to map."""
        for part in self._parts().values():
            if part.count:
                part.finish()

    def encode(self, action: Tensor, state: Mapping[str, Tensor], source: Tensor | None = None) -> Tensor:
        """See the base class."""
        denoised = self.normalizer.encode(action - self._origin(action, state))
        return denoised if self.place is None else torch.cat((denoised, self.place.encode(action)), dim=-1)

    def decode(self, action: Tensor, state: Mapping[str, Tensor], source: Tensor | None = None) -> Tensor:
        """See the base class."""
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
