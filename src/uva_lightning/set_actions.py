"""Actions of a mixture: each data set has an action space of its own, and the widest one gives the width."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn.functional import pad

from uva_lightning.action_space import Actions, ActionSpace
from uva_lightning.normalize import Limits
from uva_lightning.types import Batch, DataSpec
from uva_lightning.union import by_set, samples_of

AnyActions = ActionSpace | dict[str, ActionSpace]


def actions_for(spec: DataSpec, given: AnyActions | None) -> Actions:
    """Make what the data need: one action space, or one per data set of a mixture.

    Args:
        spec: Facts of the data.
        given: The action space, of which each data set gets its own copy; or one for each, by the set's name, those
            not named take each dimension's range to [-1, 1].

    Raises:
        ValueError: A name is none of a data set with actions.
    """
    if isinstance(given, ActionSpace) and not spec.sets:
        return given
    acting = [name for name, part in spec.sets.items() if part.spec.action_dim]
    if isinstance(given, dict) and (unknown := set(given) - set(acting)):
        raise ValueError(
            f"model.actions names {sorted(unknown)}, expected data sets with actions, which are "
            f"{acting or 'none: the data are no mixture'}; rename or remove."
        )
    if not spec.sets:
        return ActionSpace(Limits())
    if isinstance(given, dict):
        return SetActions(spec, {name: given.get(name) or ActionSpace(Limits()) for name in acting})
    return SetActions(spec, {name: (given or ActionSpace(Limits())).another() for name in acting})


class SetActions(Actions):
    """One action space per data set, fitted to the numbers of that set alone.

    Samples of a narrower set are filled up with zeros, which ``valid`` marks.

    Args:
        spec: Facts of the mixture.
        spaces: Action space of each data set that has actions, by its name.
    """

    def __init__(self, spec: DataSpec, spaces: Mapping[str, ActionSpace]) -> None:
        self.spaces = dict(spaces)
        self._width = spec.action_dim
        self._parts = list(spec.sets.values())
        self._numbers = {number: spaces[name] for number, name in enumerate(spec.sets) if name in spaces}
        widths = torch.tensor([part.spec.action_dim for part in self._parts])
        self._unfitted: dict[int, ActionSpace] = {}
        self._valid = torch.arange(self._width) < widths[:, None]  # bool[sets, a]

    def of(self, name: str | None) -> ActionSpace:
        """See the base class.

        Raises:
            ValueError: It has no actions, or is not named.
        """
        if name is None or name not in self.spaces:
            raise ValueError(f"No data set '{name}' has actions, only {', '.join(self.spaces)}; choose with --set.")
        return self.spaces[name]

    def shown(self, action_dim: int) -> int:
        """See the base class."""
        return max((space.shown(action_dim) for space in self.spaces.values()), default=action_dim)

    def begin(self) -> None:
        """Start to gather for the spaces that are not fitted yet."""
        self._unfitted = {number: space for number, space in self._numbers.items() if not space.fitted}
        for space in self._unfitted.values():
            space.begin()

    def update(self, batch: Batch) -> None:
        """Gather from the samples of each set for its own space."""
        for number, space in self._unfitted.items():
            if (samples := samples_of(batch, number, self._parts[number])) is not None:
                space.update(samples)

    def finish(self) -> None:
        """See the base class."""
        for space in self._unfitted.values():
            space.finish()

    def encode(self, action: Tensor, state: Mapping[str, Tensor], source: Tensor | None = None) -> Tensor:
        """See the base class; samples of a set without actions become zeros."""
        result = action.new_zeros(*action.shape[:-1], self.shown(self._width))
        for number, rows in by_set(self._known(source)):
            if (space := self._fitted(number)) is not None:
                width, own = self._parts[number].spec.action_dim, self._own(number, state, rows)
                encoded = space.encode(action[rows][..., :width], own)
                wide = [pad(part, (0, self._width - width)) for part in encoded.split(width, dim=-1)]
                result[rows] = pad(torch.cat(wide, dim=-1), (0, result.shape[-1] - len(wide) * self._width))
        return result

    def decode(self, action: Tensor, state: Mapping[str, Tensor], source: Tensor | None = None) -> Tensor:
        """See the base class; what a sample does not have is NaN: nothing is known about it."""
        result = torch.full_like(action, torch.nan)
        for number, rows in by_set(self._known(source)):
            if (space := self._fitted(number)) is not None:
                width, own = self._parts[number].spec.action_dim, self._own(number, state, rows)
                result[rows, ..., :width] = space.decode(action[rows][..., :width], own)
        return result

    def valid(self, source: Tensor | None) -> Tensor | None:
        """See the base class."""
        return self._valid[self._known(source).to(self._valid.device)]

    @property
    def fitted(self) -> bool:
        """Whether all are."""
        return all(space.fitted for space in self.spaces.values())

    def state(self) -> dict[str, Tensor]:
        """See the base class; names begin with that of the set."""
        return {f"{name}/{key}": x for name, space in self.spaces.items() for key, x in space.state().items()}

    def load_state(self, state: dict[str, Tensor]) -> None:
        """See the base class."""
        for name, space in self.spaces.items():
            start = f"{name}/"
            space.load_state({key.removeprefix(start): x for key, x in state.items() if key.startswith(start)})

    def to(self, device: torch.device) -> None:
        """See the base class."""
        self._valid = self._valid.to(device)
        for space in self.spaces.values():
            space.to(device)

    def _own(self, number: int, state: Mapping[str, Tensor], rows: slice | Tensor) -> dict[str, Tensor]:
        """Proprioception that the set has: the zeros of another's must not pass for its own."""
        return {own: state[entry][rows] for own, entry in self._parts[number].states.items() if entry in state}

    def _fitted(self, number: int) -> ActionSpace | None:
        """Give the space of a set; none where the set turned out to have no actions."""
        space = self._numbers.get(number)
        return space if space is not None and space.fitted else None

    @staticmethod
    def _known(source: Tensor | None) -> Tensor:
        if source is None:
            raise ValueError("Batch.source is not given, expected the number of each sample's data set; fill it.")
        return source
