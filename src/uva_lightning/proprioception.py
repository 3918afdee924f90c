"""How the model sees proprioception: which entries enter together, which are predicted, and how each is normalised."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from uva_lightning.model.fitted import FittedOnBatches, rows_with
from uva_lightning.normalize import Limits, Normalizer
from uva_lightning.types import FUTURE, Batch, DataSpec
from uva_lightning.union import mapped


class Proprioception(FittedOnBatches):
    """Group the proprioception entries of the data into modalities of the model.

    Args:
        streams: Entries that enter together, by the name of their modality, e.g. ``{proprio: [eef_pos, eef_quat]}``;
            an entry that is not named is a modality of its own.
        predicts: Entries of the future that a head predicts, by the name of the modality, which begins with
            ``future_``, e.g. ``{future_proprio: [eef_pos]}``.
        normalizers: Map of an entry to the model's numbers, e.g. ``{eef_quat: Identity}``; each dimension's range to
            [-1, 1] if not given, as UVA.
        unused: Entries that the model does not see, as UVA's does not see the agent of Push-T.
    """

    def __init__(
        self,
        streams: dict[str, list[str]] | None = None,
        predicts: dict[str, list[str]] | None = None,
        normalizers: dict[str, Normalizer] | None = None,
        unused: Sequence[str] = (),
    ) -> None:
        self.unused = tuple(unused)
        self.streams, self.targets, self.normalizers = streams or {}, predicts or {}, normalizers or {}
        self._unfitted: dict[str, Normalizer] = {}
        self._by_set: dict[int, dict[str, Normalizer]] = {}
        self._places: dict[str, tuple[int | None, str]] = {}
        if wrong := [name for name in self.targets if not name.startswith(FUTURE)]:
            raise ValueError(f"proprioception.predicts names '{wrong[0]}', expected '{FUTURE}{wrong[0]}'; rename it.")

    def bind(self, spec: DataSpec) -> Proprioception:
        """Take the entries of the data; called by the model.

        Raises:
            ValueError: A name is no entry of the data, or stands in two streams.
        """
        named = [entry for group in self.streams.values() for entry in group] + list(self.unused)
        used = {*named, *self.normalizers, *(entry for group in self.targets.values() for entry in group)}
        if unknown := used - set(spec.state_dims):
            raise ValueError(
                f"model.proprioception names {sorted(unknown)}, but the data has {sorted(spec.state_dims)}; "
                "rename or remove."
            )
        cameras = ("video", *spec.cameras)
        taken = {"action", "past_action", "text", *cameras, *(f"past_{camera}" for camera in cameras)}
        if double := taken & {*self.streams, *spec.state_dims}:
            raise ValueError(
                f"Proprioception is called {sorted(double)}, as another modality is; choose another name for it."
            )
        if twice := {entry for entry in named if named.count(entry) > 1}:
            raise ValueError(
                f"model.proprioception has {sorted(twice)} twice in streams and unused, expected each entry once."
            )
        rest = {entry: [entry] for entry in spec.state_dims if entry not in named}
        self.spec, self.streams = spec, {**self.streams, **rest}
        maps = {entry: self.normalizers.get(entry) or Limits() for entry in spec.state_dims}
        self.normalizers = maps if not spec.sets else {}
        self._places = {entry: (None, entry) for entry in self.normalizers}
        for number, (name, part) in enumerate(spec.sets.items()):  # each set has its own, fitted to its numbers alone
            own = {entry: maps[entry].another() for entry in part.states.values()}
            self._by_set[number] = own
            self.normalizers |= {f"{name}/{entry}": normalizer for entry, normalizer in own.items()}
            self._places |= {f"{name}/{entry}": (number, entry) for entry in own}
        return self

    def modalities(self) -> dict[str, tuple[int, int]]:
        """Width and steps of every modality that enters."""
        return {name: (self._width(group), self.spec.proprio_steps) for name, group in self.streams.items()}

    def predicted(self) -> dict[str, tuple[int, int]]:
        """Width and steps of every modality that is only predicted."""
        return {name: (self._width(group), self.spec.horizon) for name, group in self.targets.items()}

    def begin(self) -> None:
        """Start to gather for the normalisers that are not fitted yet."""
        self._unfitted = {entry: part for entry, part in self.normalizers.items() if not part.fitted}
        for part in self._unfitted.values():
            part.begin()

    def update(self, batch: Batch) -> None:
        """Gather the entries that a batch has, of the samples that have them."""
        for name, part in self._unfitted.items():
            number, entry = self._places[name]
            if entry in batch.state:
                values = rows_with(batch, entry, batch.state[entry])
                if number is not None and batch.source is not None:
                    values = values[rows_with(batch, entry, batch.source) == number]
                part.update(values.flatten(0, 1), entry)

    def finish(self) -> None:
        """Choose; an entry that no sample has stays unfitted, as there is nothing to map."""
        for part in self._unfitted.values():
            if part.count:
                part.finish()

    def encode(self, batch: Batch, device: torch.device) -> dict[str, Tensor]:
        """Normalise what a batch has: f32[b, n, w] by modality; what it lacks becomes zeros, which nothing may see."""
        given = (
            (self.streams, batch.state, self.spec.proprio_steps),
            (self.targets, batch.future_state, self.spec.horizon),
        )
        return {
            name: torch.cat([self._encoded(entry, values[entry], batch.source) for entry in group], dim=-1)
            if set(group) <= set(values)
            else torch.zeros(len(batch), steps, self._width(group), device=device)
            for groups, values, steps in given
            for name, group in groups.items()
        }

    def _encoded(self, entry: str, values: Tensor, source: Tensor | None) -> Tensor:
        if source is None:
            return self.normalizers[entry].encode(values)
        maps = {number: own[entry].encode for number, own in self._by_set.items() if entry in own}
        return mapped(values, source, maps)

    def present(self, batch: Batch) -> dict[str, Tensor]:
        """Say which samples have a modality, bool[b]: those that have all of its entries.

        An entry that the batch delivers and ``batch.present`` does not name counts as there in every sample.
        """
        every = torch.ones(len(batch), dtype=torch.bool)
        return {
            name: torch.stack([batch.present.get(e, every) if e in values else ~every for e in group]).all(dim=0)
            for groups, values in ((self.streams, batch.state), (self.targets, batch.future_state))
            for name, group in groups.items()
        }

    @property
    def fitted(self) -> bool:
        """Whether every normaliser is."""
        return all(normalizer.fitted for normalizer in self.normalizers.values())

    def state(self) -> dict[str, Tensor]:
        """See the base class."""
        return {
            f"{name}.{key}": value for name, part in self.normalizers.items() for key, value in part.state().items()
        }

    def load_state(self, state: dict[str, Tensor]) -> None:
        """See the base class."""
        for name, part in self.normalizers.items():
            part.load_state({key: state[f"{name}.{key}"] for key in ("scale", "offset")})

    def to(self, device: torch.device) -> None:
        """See the base class."""
        for part in self.normalizers.values():
            part.to(device)

    def _width(self, group: Sequence[str]) -> int:
        return sum(self.spec.state_dims[entry] for entry in group)
