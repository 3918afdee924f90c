"""Tell from tensors alone what a file of the official code is: its kind, its sizes and the data it was trained on."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from uva_lightning.official.names import AGGREGATORS, ALWAYS, FUSION, HEADS, STACKS, STREAMS, TEXT, Layout
from uva_lightning.official.variants import VARIANTS

Kind = Literal["uva", "mar", "vae", "text"]
State = dict[str, Tensor]

MARKS: dict[Kind, str] = {
    "uva": "model.z_proj_cond.weight",
    "mar": "encoder_pos_embed_learned",
    "vae": "encoder.conv_in.weight",
    "text": "text_model.embeddings.token_embedding.weight",
}
"""A tensor that only this kind has."""

COPIES = {"ema": ("ema_model", "model_ema"), "model": ("model", "state_dict")}
"""Keys under which the averaged and the current weights lie."""

HEADS_OF_SIZE = {(768, 3): 6, (768, 6): 6, (768, 12): 12, (1024, 16): 16, (1280, 20): 16}
"""Attention heads of MAR's sizes by width and depth: tensors do not tell them."""

FLAT = "flat"
_BARE = "z_proj_cond.weight"
_LAYER = re.compile(r"\.(weight|bias)$")


@dataclass(frozen=True)
class Source:
    """What a file holds.

    Attributes:
        kind: ``uva``, a whole policy; ``mar``, the image model that it starts from; ``vae``, KL-16; ``text``, CLIP.
        weights: Key of the copy that was asked for, ``ema_model`` or ``model``.
        state: Tensors of that copy.
        other: Tensors of the other copy, where the file has two.
    """

    kind: Kind
    weights: str
    state: State
    other: State


def source_of(values: Any, weights: str, path: Path) -> Source:
    """Find the tensors in the nestings that the official files have.

    Args:
        values: What the file holds.
        weights: ``ema`` or ``model``.
        path: For messages.

    Raises:
        ValueError: This is no file of UVA, MAR, KL-16 or CLIP, or it lacks the copy.
    """
    outer = values.get("state_dicts", values) if isinstance(values, dict) else {}
    outer = outer if isinstance(outer, dict) else {}
    copies = {key: tensors(outer[key]) for keys in COPIES.values() for key in keys if isinstance(outer.get(key), dict)}
    copies = copies or {FLAT: tensors(outer)}
    for state in copies.values():
        if _BARE in state:
            state |= {f"model.{name}": state.pop(name) for name in list(state)}
    kind = next((kind for kind, mark in MARKS.items() if any(mark in state for state in copies.values())), None)
    if kind is None:
        found = [name for state in copies.values() for name in sorted(state)]
        example = f", e.g. '{found[0]}'" if found else ""
        raise ValueError(
            f"{path} holds {len(found)} tensors{example}, expected a checkpoint of UVA, "
            "MAR-base (checkpoint-last.pth), KL-16 (kl16.ckpt) or CLIP; give one of these."
        )
    wanted = [key for key in (*COPIES[weights], FLAT) if key in copies]
    if not wanted and kind in ("uva", "mar"):
        other = next(word for word, keys in COPIES.items() if set(keys) & set(copies))
        raise ValueError(
            f"{path} has no {COPIES[weights][0]}, only {', '.join(copies)}; give --weights {other} to take that."
        )
    key = wanted[0] if wanted else next(iter(copies))
    rest = next((state for other, state in copies.items() if other != key), {})
    return Source(kind, "ema_model" if key in COPIES["ema"] else "model", copies[key], rest if kind == "uva" else {})


def tensors(values: Mapping[Any, Any]) -> State:
    """Keep what is a tensor under a name."""
    return {name: value for name, value in values.items() if isinstance(name, str) and isinstance(value, Tensor)}


def under(state: Mapping[str, Tensor], prefix: str) -> State:
    """Give the tensors below a prefix, without it."""
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}


def layout_of(model: Mapping[str, Tensor], path: Path) -> Layout:
    """Read the sizes of a model from its tensors.

    Args:
        model: Tensors by the names inside ``model.``.
        path: For messages.

    Raises:
        ValueError: A part that every model has is missing, or the parts contradict each other.
    """
    for name in (f"{FUSION}.weight", f"{FUSION}.bias", "z_proj.weight", "diffloss.net.input_proj.weight"):
        if name not in model:
            raise ValueError(f"{path} lacks '{name}', which every UVA model has; it is incomplete, fetch it again.")
    width = len(model[f"{FUSION}.bias"])
    heads = {m: _denoiser(model, prefix) for m, prefix in HEADS.items() if f"{prefix}.net.input_proj.weight" in model}
    return Layout(
        width=width,
        encoder_depth=depth(model, STACKS["encoder"]),
        decoder_depth=depth(model, STACKS["decoder"]),
        fused=_fused(model, width, path),
        text=TEXT["project.1.weight"] in model,
        heads=heads,
        aggregators={m: _aggregator(model, HEADS[m], path) for m in heads if m in ("action", "future_proprio")},
    )


def starting_layout(mar: Mapping[str, Tensor], text: bool, path: Path) -> Layout:
    """Give the first stage's model that starts from MAR: it predicts video and knows actions, not yet proprioception.

    Args:
        mar: Tensors of MAR.
        text: Whether there is an instruction.
        path: For messages.

    Raises:
        ValueError: A part is missing.
    """
    for name in ("z_proj_ln.bias", "diffloss.net.input_proj.weight"):
        if name not in mar:
            raise ValueError(f"{path} lacks '{name}', which every MAR model has; it is incomplete, fetch it again.")
    return Layout(
        width=len(mar["z_proj_ln.bias"]),
        encoder_depth=depth(mar, STACKS["encoder"]),
        decoder_depth=depth(mar, STACKS["decoder"]),
        fused=ALWAYS,
        text=text,
        heads={"video": _denoiser(mar, HEADS["video"])},
        aggregators={},
    )


def depth(names: Iterable[str], stack: str) -> int:
    """Count the blocks of a stack."""
    found = (re.match(rf"{re.escape(stack)}\.(\d+)\.", name) for name in names)
    return max((int(match[1]) for match in found if match), default=-1) + 1


def variant_of(fields: Iterable[str], layout: Layout) -> str | None:
    """Name the data from the normaliser's fields; without a normaliser it is UMI's."""
    fields = set(fields)
    if not fields:
        return "umi_multi" if layout.text else "umi"
    return next((name for name, variant in VARIANTS.items() if variant.known_by in fields), None)


def attention_heads(layout: Layout, given: int | None) -> int:
    """Give the attention heads of a model of this size.

    Raises:
        ValueError: The size is none of MAR's and no number was given, or it does not divide the width.
    """
    known = HEADS_OF_SIZE.get((layout.width, layout.encoder_depth))
    heads = given or known
    if heads is None or layout.width % heads:
        raise ValueError(
            f"A model {layout.width} wide with {layout.encoder_depth} blocks is none of MAR's sizes, and its tensors "
            f"do not tell its attention heads, expected a divisor of {layout.width}; give --heads N."
        )
    return heads


def _fused(model: Mapping[str, Tensor], width: int, path: Path) -> tuple[str, ...]:
    """Tell what the fusion layer's column blocks are; UMI's wrist projection exists and is used by nothing."""
    there = [m for m, (projection, _) in STREAMS.items() if m in ALWAYS or f"{projection}.weight" in model]
    columns = model[f"{FUSION}.weight"].shape[-1]
    for fused in (there, [m for m in there if m != "past_wrist"]):
        if len(fused) * width == columns:
            return tuple(fused)
    raise ValueError(
        f"{path}: '{FUSION}.weight' is {columns} wide, expected {len(there) * width}, {width} for each of "
        f"{', '.join(there)}; these tensors are not of one model."
    )


def _denoiser(model: Mapping[str, Tensor], prefix: str) -> tuple[int, int]:
    return depth(model, f"{prefix}.net.res_blocks"), len(model[f"{prefix}.net.input_proj.weight"])


def _aggregator(model: Mapping[str, Tensor], prefix: str, path: Path) -> str:
    names = {_LAYER.sub("", name) for name in under(model, f"{prefix}.") if not name.startswith("net.")}
    for aggregator, layers in AGGREGATORS.items():
        if names == set(layers):
            return aggregator
    known = "; ".join(f"{name} ({', '.join(layers)})" for name, layers in AGGREGATORS.items())
    raise ValueError(f"{path}: {prefix} has the layers {sorted(names)}, expected one of: {known}.")
