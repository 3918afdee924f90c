"""Several data sets as one: the union of their facts, and batches in which each sample says from which it is.

What a sample lacks is zeros and not ``present``: nothing may see it, and it serves no objective that needs it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from uva_lightning.types import Batch, DataSpec, SetSpec

Rows = slice | Tensor
Map = Callable[[Tensor], Tensor]


def union_spec(sets: Mapping[str, SetSpec], image_size: int) -> DataSpec:
    """Join the facts of data sets.

    Args:
        sets: Facts of each; the first camera of the first one is the main view.
        image_size: Of the pictures of all.

    Raises:
        ValueError: Sets lack the main view, or differ in what they must share.
    """
    specs = {name: part.spec for name, part in sets.items()}
    cameras = tuple(dict.fromkeys(camera for part in sets.values() for camera in part.cameras.values()))
    for name, part in sets.items():
        if cameras[0] not in part.cameras.values():
            own = next(iter(part.cameras))
            raise ValueError(
                f"Data set '{name}' has the cameras {list(part.cameras.values())}, expected '{cameras[0]}' among them, "
                f"the main view of the mixture; say which it is, such as data.cameras.{name}: {{{own}: {cameras[0]}}}."
            )
    acting = {name: spec for name, spec in specs.items() if spec.action_dim}
    told = {name: spec for name, spec in specs.items() if spec.text_dim}
    feeling = {name: spec for name, spec in specs.items() if spec.state_dims}
    return DataSpec(
        cameras=cameras,
        image_size=image_size,
        action_dim=max((spec.action_dim for spec in specs.values()), default=0),
        state_dims=_state_dims(sets),
        rate_hz=next(iter((acting or specs).values())).rate_hz,
        horizon=_shared(specs, "horizon"),
        frames=_shared(specs, "frames"),
        state_steps=_shared(feeling or specs, "state_steps"),
        past_action=_shared(acting or specs, "past_action"),
        text_dim=_shared(told or specs, "text_dim"),
        action_meaning="; ".join(f"{name}: {spec.action_meaning}" for name, spec in acting.items()),
        conventions={f"{name} {what}": how for name, spec in specs.items() for what, how in spec.conventions.items()},
        sets=dict(sets),
    )


def _shared(specs: Mapping[str, DataSpec], what: str) -> Any:
    values = {name: getattr(spec, what) for name, spec in specs.items()}
    first, *others = values
    for other in others:
        if values[other] != values[first]:
            raise ValueError(
                f"Data set '{other}' has {what} {values[other]}, expected {values[first]} as '{first}' has: one model "
                f"has one {what}; set it alike, in data.sets.{other}.init_args."
            )
    return values[first]


def _state_dims(sets: Mapping[str, SetSpec]) -> dict[str, int]:
    widths: dict[str, int] = {}
    owner: dict[str, str] = {}
    for name, part in sets.items():
        for own, entry in part.states.items():
            width = part.spec.state_dims[own]
            if widths.setdefault(entry, width) != width:
                raise ValueError(
                    f"Proprioception '{entry}' is {width} wide in '{name}', expected {widths[entry]} as in "
                    f"'{owner[entry]}'; call it something else with data.states.{name}: {{{own}: {name}_{entry}}}."
                )
            owner.setdefault(entry, name)
    return widths


def joined(spec: DataSpec, parts: Mapping[str, Batch]) -> Batch:
    """Put samples of several data sets into one batch, in the order of the parts.

    Args:
        spec: Facts of the mixture.
        parts: Batches of some of its sets, each with the cameras' own names and its own width of actions.

    Returns:
        A batch of the mixture. Pictures are zeros where a set lacks a camera, f32[b, h, a] actions are filled up with
        zeros to the width of the widest set, and ``source`` tells the sets apart.
    """
    batches, counts = list(parts.values()), [len(batch) for batch in parts.values()]
    device = next(
        (x.device for b in batches for x in (*b.video.values(), *b.latents.values(), *b.state.values())), None
    )

    def numbers(given: Sequence[Tensor | None], *shape: int) -> Tensor:
        wide = [None if x is None else pad(x, (0, shape[-1] - x.shape[-1])) for x in given]
        return _stack(wide, [torch.zeros(count, *shape, device=device) for count in counts])

    def pictures(kind: str) -> dict[str, Tensor]:
        given = [getattr(batch, kind) for batch in batches]
        some = next((value for values in given for value in values.values()), None)
        if some is None:
            return {}
        own = [{shown: mine for mine, shown in spec.sets[name].cameras.items()} for name in parts]
        return {
            camera: _stack(
                [x.get(names.get(camera, "")) for x, names in zip(given, own, strict=True)],
                [some.new_zeros(()).expand(count, *some.shape[1:]) for count in counts],
            )
            for camera in spec.cameras
        }

    steps, horizon = spec.proprio_steps, spec.horizon
    action = numbers([b.action for b in batches], horizon, spec.action_dim) if spec.action_dim else None
    past = numbers([b.past_action for b in batches], horizon, spec.action_dim) if spec.past_action else None

    def states(kind: str, rows: int) -> dict[str, Tensor]:
        own = [{shown: mine for mine, shown in spec.sets[name].states.items()} for name in parts]
        return {
            entry: numbers(
                [getattr(b, kind).get(names.get(entry, "")) for b, names in zip(batches, own, strict=True)], rows, width
            )
            for entry, width in spec.state_dims.items()
        }

    places = {name: number for number, name in enumerate(spec.sets)}
    return Batch(
        video=pictures("video"),
        latents=pictures("latents"),
        action=action,
        past_action=past if spec.action_dim else None,
        state=states("state", steps),
        future_state=states("future_state", horizon),
        text=numbers([b.text for b in batches], spec.text_dim) if spec.text_dim else None,
        present=_present(spec, parts),
        source=torch.cat([torch.full((len(batch),), places[name]) for name, batch in parts.items()]),
    )


def _stack(given: Sequence[Tensor | None], blank: Sequence[Tensor]) -> Tensor:
    """Put parts one after another, blank ones where one is missing."""
    parts = [empty if x is None else x for x, empty in zip(given, blank, strict=True)]
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def _present(spec: DataSpec, parts: Mapping[str, Batch]) -> dict[str, Tensor]:
    """What each sample has, bool[b] for every modality of the mixture."""
    names = [spec.modality(camera) for camera in spec.cameras] + list(spec.state_dims)
    names += [name for name, there in (("action", spec.action_dim), ("text", spec.text_dim)) if there]
    names += ["past_action"] if spec.past_action and spec.action_dim else []
    has = [_has(spec, spec.sets[name], batch) for name, batch in parts.items()]
    counts = [len(batch) for batch in parts.values()]
    return {
        name: torch.cat([own.get(name, torch.zeros(n, dtype=torch.bool)) for own, n in zip(has, counts, strict=True)])
        for name in names
    }


def _has(spec: DataSpec, part: SetSpec, batch: Batch) -> dict[str, Tensor]:
    every = torch.ones(len(batch), dtype=torch.bool)
    optional = {"action": batch.action, "past_action": batch.past_action, "text": batch.text}
    given = [name for name, value in optional.items() if value is not None]
    views = {spec.modality(shown): part.spec.modality(own) for own, shown in part.cameras.items()}
    return {
        **{name: batch.present.get(name, every) for name in given},
        **{part.states[name]: batch.present.get(name, every) for name in batch.state},
        **{shown: batch.present.get(own, every) for shown, own in views.items()},
    }


def by_set(source: Tensor) -> Iterator[tuple[int, Rows]]:
    """Give the samples of each data set in a batch: its number, and a slice where they stand together.

    Args:
        source: i64[b], on the CPU.
    """
    numbers, places, counts = torch.unique_consecutive(source, return_inverse=True, return_counts=True)
    if len(set(numbers.tolist())) == len(numbers):
        ends = counts.cumsum(0).tolist()
        yield from ((n, slice(end - c, end)) for n, c, end in zip(numbers.tolist(), counts.tolist(), ends, strict=True))
        return
    for number in sorted(set(numbers.tolist())):
        yield number, (numbers[places] == number).nonzero()[:, 0]


def mapped(values: Tensor, source: Tensor, maps: Mapping[int, Map]) -> Tensor:
    """Map the samples of each data set by its own map; those of a set without one become zeros.

    Args:
        values: f32[b, ..., w].
        source: i64[b], on the CPU.
        maps: By the number of the set; each keeps the shape.
    """
    result = torch.zeros_like(values)
    for number, rows in by_set(source):
        if number in maps:
            result[rows] = maps[number](values[rows])
    return result


def samples_of(batch: Batch, number: int, part: SetSpec) -> Batch | None:
    """Take the actions and states of one data set out of a batch, as the set itself has them.

    Args:
        batch: Of a mixture.
        number: Of the set.
        part: Facts of the set.

    Returns:
        A batch without pictures; None where it has no samples.
    """
    if batch.source is None or not (rows := batch.source == number).any():
        return None
    width = part.spec.action_dim
    action = None if batch.action is None or not width else batch.action[rows][..., :width]
    state = {own: batch.state[entry][rows] for own, entry in part.states.items()}
    return Batch(action=action, state=state, present={n: f[rows] for n, f in batch.present.items()})
