"""From the tensors of an official file to the folder that ``uva`` loads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from lightning.fabric import Fabric
from torch import Tensor

from uva_lightning.model.checkpoint import build
from uva_lightning.model.stored import FORMAT, TEXT, VAE
from uva_lightning.model.tokenizers.kl16 import from_official
from uva_lightning.official.config import STRIDE, Config, Sizes, data_config, datamodule, model_config, trainer_config
from uva_lightning.official.detect import (
    Source,
    State,
    attention_heads,
    layout_of,
    starting_layout,
    under,
    variant_of,
)
from uva_lightning.official.names import HEADS, Layout
from uva_lightning.official.text import clip_tensors
from uva_lightning.official.translate import Translation, check_shapes, translate
from uva_lightning.official.variants import VARIANTS, Variant
from uva_lightning.types import DataSpec

MODEL, AUTOENCODER, TEXT_MODEL, NORMALIZER = "model.", "vae_model.", "text_model.", "normalizer.params_dict."
KNOWN = (MODEL, AUTOENCODER, TEXT_MODEL, NORMALIZER, "_dummy_variable")
UNKNOWN_TO_MAR = (
    *(f"heads.{modality}.*" for modality in HEADS if modality != "video"),
    *("transformer.streams.*", "transformer.*_positions.*", "transformer.fuse_bias"),
)
"""What the image model has no weights for; it may start at random, as in the official code."""
LATENT_CHANNELS, TEXT_WIDTH = 16, 512


@dataclass
class Imported:
    """What goes into the folder.

    Attributes:
        model: Tensors under our names.
        fitted: Tensors of the normalisers by part.
        vae: Tensors of the autoencoder under the names of diffusers; empty where the file has none.
        text: Tensors of CLIP under the names of Hugging Face; empty where the file has none.
        carried: Official tensors that an export needs and we do not, by copy and name.
        config: Sections ``model``, ``data`` and ``trainer``.
        contract: What people and checks should know.
        translation: What became of each tensor of the model.
        new: Our tensors that the file lacks.
        unknown: Tensors of no part that is known.
    """

    model: State
    fitted: dict[str, State]
    vae: State
    text: State
    carried: State
    config: Config
    contract: dict[str, Any]
    translation: Translation
    new: list[str]
    unknown: list[str]


@dataclass(frozen=True)
class Options:
    """What cannot be inferred.

    Args:
        path: Source, for messages.
        folder: Where the result will lie.
        variant: Name of the data.
        minimum: Smallest share of the source's tensors that must match.
        heads: Attention heads.
        vae: Folder of the autoencoder where the source has none.
        varies: Whether the history frames vary in training.
    """

    path: Path
    folder: Path
    variant: str | None = None
    minimum: float = 0.9
    heads: int | None = None
    vae: Path | None = None
    varies: bool | None = None


def import_model(source: Source, options: Options) -> Imported:
    """Translate a checkpoint of UVA or MAR.

    Args:
        source: Tensors.
        options: What cannot be inferred.

    Raises:
        ValueError: It is another model than asked for, incomplete, or too little of it matches.
    """
    whole = source.kind == "uva"
    policy = source.state if whole else {f"{MODEL}{name}": value for name, value in source.state.items()}
    model, normalizer = under(policy, MODEL), under(policy, NORMALIZER)
    layout, name = _identify(model, normalizer, whole, options)
    variant, sizes = VARIANTS[name], Sizes.of(model)
    translation = translate(model, layout)
    vae = from_official(under(policy, AUTOENCODER)) if any(key.startswith(AUTOENCODER) for key in policy) else {}
    text = clip_tensors(under(policy, TEXT_MODEL), TEXT_WIDTH)
    place = options.folder.resolve() / VAE if vae else options.vae or Path("pretrained/kl-f16")
    heads = attention_heads(layout, options.heads)
    config: Config = {
        "seed_everything": 42,
        "model": model_config(variant, layout, sizes, heads, place),
        "data": data_config(name, layout, sizes, options.varies),
        "trainer": trainer_config(name),
    }
    spec, expected = expected_model(config, variant)
    new = _check(translation, expected, whole, options)
    config["model"]["start"] = {
        "path": str(options.folder.resolve()),
        "fitted": whole,
    }
    fitted, used = fitted_parts(normalizer, spec, variant) if whole else ({}, {})
    taken = {
        *(f"{MODEL}{key}" for key in model if key not in translation.unused),
        *(f"{AUTOENCODER}{key}" for key in under(policy, AUTOENCODER) if vae and not key.startswith("loss.")),
        *(f"{TEXT_MODEL}{key}" for key in text),
        *(f"{NORMALIZER}{official}.{key}" for official in used for key in ("scale", "offset")),
    }
    contract = {
        "format": FORMAT,
        "variant": name,
        "spec": asdict(spec),
        "conventions": {**spec.conventions, "rate_hz": spec.rate_hz, "action": spec.action_meaning},
        "normalizers": {"action": config["model"]["actions"], **{n: dict(m) for n, m in variant.normalizers.items()}},
        "kind": source.kind,
        "parameters": sum(tensor.numel() for tensor in model.values()),
        "weights": source.weights,
        "layout": asdict(layout),
        "normalizer": used,
        "copies": [source.weights, *([_other(source.weights)] if source.other else [])],
        "absent": [key for key in source.state if source.other and key not in source.other],
        "new": new,
        "may_be_new": [] if whole else list(UNKNOWN_TO_MAR),
    }
    carried = carry(source, taken) if whole else {}
    unknown = [key for key in policy if not key.startswith(KNOWN)]
    if text:
        config["data"]["init_args"]["text"]["init_args"]["weights"] = str(options.folder / TEXT)
    return Imported(translation.state, fitted, vae, text, carried, config, contract, translation, new, unknown)


def fitted_parts(
    normalizer: Mapping[str, Tensor], spec: DataSpec, variant: Variant
) -> tuple[dict[str, State], dict[str, str]]:
    """Give our normalisers the official numbers; what the official code does not normalise keeps its values.

    Args:
        normalizer: Tensors by the names inside ``normalizer.params_dict.``.
        spec: Facts of the data.
        variant: Has the official fields of the entries.

    Returns:
        Tensors by part, and the part of each official field that was used.
    """
    entries = {"actions/normalizer": ("action", spec.action_dim)}
    entries |= {f"proprioception/{name}": (variant.states[name], width) for name, width in spec.state_dims.items()}
    fitted: dict[str, State] = {"actions": {}, "proprioception": {}}
    used: dict[str, str] = {}
    for place, (official, width) in entries.items():
        part, _, entry = place.partition("/")
        plain = {"scale": torch.ones(width), "offset": torch.zeros(width)}
        if f"{official}.scale" in normalizer:
            used[official] = place
        for key, value in plain.items():
            fitted[part][f"{entry}.{key}"] = normalizer.get(f"{official}.{key}", value)
    return fitted, used


def carry(source: Source, taken: set[str]) -> State:
    """Keep what an export must write and nothing else holds: what we do not use, and how the other copy differs."""
    kept = {f"{source.weights}/{name}": value for name, value in source.state.items() if name not in taken}
    other = _other(source.weights)
    return kept | {
        f"{other}/{name}": value
        for name, value in source.other.items()
        if name not in source.state or not same_bits(value, source.state[name])
    }


def same_bits(one: Tensor, other: Tensor) -> bool:
    """Compare dtype, shape and every bit, also those of NaN and of negative zero."""
    if one.dtype != other.dtype or one.shape != other.shape:
        return False
    return one.contiguous().view(-1).view(torch.uint8).equal(other.contiguous().view(-1).view(torch.uint8))


def expected_model(config: Config, variant: Variant) -> tuple[DataSpec, State]:
    """Build the model of a configuration without filling it.

    The autoencoder is no part of it; patches of the same grid and width stand in, which need no file.

    Args:
        config: Sections ``model`` and ``data``.
        variant: What the data are.

    Returns:
        Facts of the data, and the model's tensors, whose numbers mean nothing.
    """
    side = config["model"]["tokenizer"]["init_args"]["image_size"] // STRIDE
    patches = {"patch": datamodule(variant).facts.image_size // side, "channels": LATENT_CHANNELS}
    stand_in = {"class_path": "LinearPatches", "init_args": patches}
    text = yaml.safe_dump({"model": {**config["model"], "tokenizer": stand_in}, "data": config["data"]})
    with Fabric(accelerator="cpu", devices=1).init_module(empty_init=True):
        module, data = build(text)
    return data.spec, {name: value for name, value in module.state_dict().items() if isinstance(value, Tensor)}


def _identify(model: State, normalizer: State, whole: bool, options: Options) -> tuple[Layout, str]:
    """Give layout and name of the data; a name that was given must not contradict what the tensors tell."""
    if not whole:
        name = options.variant or "pusht"
        return starting_layout(model, VARIANTS[name].text, options.path), name
    layout = layout_of(model, options.path)
    found = variant_of((key.partition(".")[0] for key in normalizer), layout)
    if options.variant and found and options.variant != found:
        raise ValueError(
            f"{options.path} holds weights of {found}, expected {options.variant}; leave --variant out or give {found}."
        )
    if not (name := found or options.variant or ""):
        raise ValueError(
            f"{options.path} normalises {sorted({key.partition('.')[0] for key in normalizer})}, which is no data of "
            f"the official code; give --variant {', '.join(VARIANTS)}, whichever is nearest."
        )
    return layout, name


def _check(translation: Translation, expected: State, whole: bool, options: Options) -> list[str]:
    """Compare names and shapes with the model that the configuration builds; give what is new in it."""
    if translation.share < options.minimum:
        total = translation.matched + len(translation.unused)
        raise ValueError(
            f"{options.path}: {translation.matched} of {total} tensors match ({translation.share:.1%}), expected at "
            f"least {options.minimum:.1%}, e.g. '{translation.unused[0]}' does not; this is another model, or lower "
            "--minimum."
        )
    check_shapes(translation.state, expected, options.path)
    new = [name for name in expected if name not in translation.state]
    if whole and new:
        raise ValueError(
            f"{options.path} lacks {len(new)} tensors of its model, e.g. '{new[0]}'; it is incomplete, fetch it again."
        )
    return new


def _other(weights: str) -> str:
    return "model" if weights == "ema_model" else "ema_model"
