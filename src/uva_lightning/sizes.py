"""Sizes of every modality of a model, which follow from the data, the tokenizer and how numbers are shown."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from uva_lightning.action_space import Actions
from uva_lightning.model.streams import Shape
from uva_lightning.model.tokenizers.base import Tokenizer
from uva_lightning.objective import Objective
from uva_lightning.proprioception import Proprioception
from uva_lightning.types import DataSpec


def views(spec: DataSpec) -> dict[str, str]:
    """Give the cameras by the name of their modality."""
    return {spec.modality(camera): camera for camera in spec.cameras}


def sequences(spec: DataSpec, actions: Actions) -> dict[str, tuple[int, int]]:
    """Give width and steps of what is neither picture nor proprioception; data without actions have none of it."""
    sizes = {"action": (actions.shown(spec.action_dim), spec.horizon)} if spec.action_dim else {}
    if sizes and spec.past_action:
        sizes["past_action"] = sizes["action"]
    return {**sizes, **({"text": (spec.text_dim, 1)} if spec.text_dim else {})}


def shapes(
    spec: DataSpec, tokenizer: Tokenizer, actions: Actions, proprioception: Proprioception, heads: Collection[str]
) -> dict[str, Shape]:
    """Give the sizes of every modality, for a model with these heads."""
    frames, cameras = (tokenizer.channels, spec.frames), views(spec)
    main = next(iter(cameras))
    pictures = {f"past_{camera}": frames for camera in cameras}
    pictures |= {camera: frames for camera in cameras if camera == main or camera in heads}
    states = proprioception.modalities() | proprioception.predicted()
    sizes, grid = {**pictures, **sequences(spec, actions), **states}, tokenizer.grid(spec.image_size)
    return {name: Shape(spec.frames, grid, channels, steps) for name, (channels, steps) in sizes.items()}


def check_heads(heads: Collection[str], known: Collection[str], objectives: Mapping[str, Objective]) -> None:
    """Make sure that every head has a modality, and every predicted modality a head.

    Raises:
        ValueError: One has none.
    """
    if unknown := set(heads) - set(known):
        raise ValueError(f"model.heads names {sorted(unknown)}, but the data has {sorted(known)}; rename or remove.")
    for name, objective in objectives.items():
        if missing := set(objective.predicts) - set(heads):
            raise ValueError(
                f"Objective '{name}' predicts {sorted(missing)}, for which there is no head, only "
                f"{sorted(heads)}; add model.heads.{sorted(missing)[0]}."
            )
