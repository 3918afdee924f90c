"""Translate the tensors of a model from official names to ours and back."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from uva_lightning.official.names import Layout, pairs


@dataclass(frozen=True)
class Translation:
    """A model under our names, and what became of each official tensor.

    Attributes:
        state: Our tensors.
        kinds: Official tensors by how they differ from ours.
        new: Official tensors of the layout that the source lacks.
        unused: Tensors of the source that the layout lacks.
    """

    state: dict[str, Tensor]
    kinds: Counter[str]
    new: tuple[str, ...]
    unused: tuple[str, ...]

    @property
    def matched(self) -> int:
        """Official tensors that were taken."""
        return self.kinds.total()

    @property
    def share(self) -> float:
        """Share of the source's tensors that were taken, in [0, 1]."""
        return self.matched / max(1, self.matched + len(self.unused))


def translate(model: Mapping[str, Tensor], layout: Layout) -> Translation:
    """Give a model our names.

    Args:
        model: Tensors by the names inside ``model.``.
        layout: Parts and sizes.

    Raises:
        ValueError: A fusion layer does not divide into its blocks.
    """
    state: dict[str, Tensor] = {}
    kinds, new, known = Counter[str](), [], set()
    for pair in pairs(layout):
        known.add(pair.official)
        if pair.official in model:
            state |= pair.to_ours(model[pair.official])
            kinds[pair.kind] += 1
        else:
            new.append(pair.official)
    return Translation(state, kinds, tuple(new), tuple(name for name in model if name not in known))


def translate_back(state: Mapping[str, Tensor], layout: Layout) -> dict[str, Tensor]:
    """Give a model the official names, those inside ``model.``; undoes ``translate`` bit by bit.

    Args:
        state: Our tensors.
        layout: Parts and sizes.

    Raises:
        ValueError: A tensor is missing or has no official counterpart, or two that the official code shares differ.
    """
    known = pairs(layout)
    names = {name for pair in known for name in pair.ours}
    if surplus := [name for name in state if name not in names]:
        raise ValueError(
            f"{len(surplus)} tensors have no counterpart in the official code, e.g. '{surplus[0]}'; only models of the "
            "official layout can be exported."
        )
    if missing := [name for name in names if name not in state]:
        raise ValueError(
            f"{len(missing)} tensors of the official layout are missing, e.g. '{min(missing)}'; only models of the "
            "official layout can be exported."
        )
    return {pair.official: pair.to_official(state) for pair in known}


def check_shapes(state: Mapping[str, Tensor], expected: Mapping[str, Tensor], path: Path) -> None:
    """Refuse tensors of another model.

    Args:
        state: Our tensors.
        expected: Tensors of the model as its configuration builds it.
        path: For messages.

    Raises:
        ValueError: A name is unknown to the model, or a shape differs.
    """
    if unknown := [name for name in state if name not in expected]:
        raise ValueError(f"{path}: '{unknown[0]}' is no tensor of the model that its sizes describe.")
    wrong = [name for name, tensor in state.items() if tensor.shape != expected[name].shape]
    if wrong:
        raise ValueError(
            f"{path}: {len(wrong)} tensors have another shape than this model, e.g. '{wrong[0]}' is "
            f"{list(state[wrong[0]].shape)}, expected {list(expected[wrong[0]].shape)}; these are the weights of "
            "another variant."
        )
