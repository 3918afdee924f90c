"""Start training from the weights of another model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor

from uva_lightning.model.fitted import Fitted
from uva_lightning.model.stored import read
from uva_lightning.model.streams import Stream
from uva_lightning.strategies.sharded import assign, whole

if TYPE_CHECKING:
    from uva_lightning.module import UVAModule

STREAMS = "transformer.streams."


@dataclass(frozen=True)
class StartFrom:
    """Where the weights of the first step come from.

    A modality that the source does not know starts without influence, so that the model gives what the source gave.

    Args:
        path: Checkpoint of ``uva fit``, or folder of ``uva import-checkpoint``.
        minimum: Smallest share of the source's tensors that must find their place, in [0, 1].
        new: Names of tensors that may start at random, as patterns, e.g. ``heads.action.*``; besides those that the
            source itself names, as MAR does.
        fitted: Whether to take tokenizer and normalisers too, as far as they are of the same kind.
    """

    path: Path | str
    minimum: float = 0.9
    new: list[str] = field(default_factory=list)
    fitted: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.minimum <= 1:
            raise ValueError(f"start.minimum is {self.minimum}, expected a share in [0, 1], such as 0.9.")

    def apply(self, module: UVAModule, parts: Mapping[str, Fitted]) -> None:
        """Copy the weights into a model; called once, before the first step.

        Args:
            module: Model that is trained.
            parts: Its fitted parts by name.

        Raises:
            ValueError: The path is missing, shapes differ, too little matches, or a tensor that may not be is new.
        """
        stored = read(Path(self.path))
        source = {name: value for name, value in stored["state_dict"].items() if isinstance(value, Tensor)}
        target = {name: value for name, value in module.state_dict().items() if isinstance(value, Tensor)}
        new = [*self.new, *stored.get("source", {}).get("may_be_new", [])]
        quiet = _new_streams(module, source, new)
        self._check(source, target, quiet, new)
        taken = [name for name in target if name in source]
        for name in taken:
            assign(target[name], source[name])
        with torch.no_grad():
            for name in quiet:
                target[f"{STREAMS}{name}.fuse.weight"].zero_()
        _check_shared(target, source, taken)
        if self.fitted:
            _take(parts, stored["fitted"])
        rank_zero_info(
            f"Start from {self.path}: {len(taken)} of {len(target)} tensors taken, {len(target) - len(taken)} new, "
            f"{len(source) - len(taken)} of the source unused"
            f"{', without influence at first: ' + ', '.join(quiet) if quiet else ''}."
        )

    def _check(
        self, source: Mapping[str, Tensor], target: Mapping[str, Tensor], quiet: list[str], new: list[str]
    ) -> None:
        shared = [name for name in target if name in source]
        if wrong := [name for name in shared if source[name].shape != target[name].shape]:
            raise ValueError(
                f"{self.path}: {len(wrong)} tensors have another shape, e.g. '{wrong[0]}' is "
                f"{list(source[wrong[0]].shape)}, expected {list(target[wrong[0]].shape)}; start from a model of the "
                "same sizes."
            )
        if len(shared) < self.minimum * len(source):
            example = next(name for name in source if name not in target)
            raise ValueError(
                f"{self.path}: {len(shared)} of its {len(source)} tensors have a place in this model, expected at "
                f"least {self.minimum:.0%}, e.g. '{example}' has none; this is another model, or lower start.minimum."
            )
        silent = tuple(f"{STREAMS}{name}." for name in quiet)
        lacking = [name for name in target if name not in source and not (silent and name.startswith(silent))]
        if refused := [name for name in lacking if not _matches(name, new)]:
            raise ValueError(
                f"{self.path} lacks {len(refused)} tensors of this model, e.g. '{refused[0]}', expected all but those "
                f"in start.new {new}; add a pattern such as '{'.'.join(refused[0].split('.')[:2])}.*' if they "
                "may start at random."
            )


def _new_streams(module: UVAModule, source: Mapping[str, Tensor], new: list[str]) -> list[str]:
    """Modalities that the source does not know, and that are not meant to start at random."""
    return [
        name
        for name, stream in module.transformer.streams.items()
        if isinstance(stream, Stream)
        and not any(tensor.startswith(f"{STREAMS}{name}.") for tensor in source)
        and not _matches(f"{STREAMS}{name}.fuse.weight", new)
    ]


def _matches(name: str, patterns: list[str]) -> bool:
    return any(fnmatch(name, pattern) for pattern in patterns)


def _check_shared(target: Mapping[str, Tensor], source: Mapping[str, Tensor], taken: list[str]) -> None:
    """Refuse two vectors of the source where this model has one: the second has overwritten the first."""
    for name in taken:
        if not name.endswith(".placeholder"):
            continue
        value = whole(target[name])
        if not value.equal(source[name].to(value)):
            raise ValueError(
                f"'{name}' is shared with another stream in this model, but not in the source; give the stream the "
                "option placeholder: own."
            )


def _take(parts: Mapping[str, Fitted], stored: Mapping[str, Mapping[str, Any]]) -> None:
    """Give each part what it knows the names of; the rest of it is fitted to the data as ever."""
    for name, part in parts.items():
        own = part.state()
        known = {key: value for key, value in stored.get(name, {}).items() if key in own}
        if known:
            part.load_state({**own, **known})
