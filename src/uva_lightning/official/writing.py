"""Write a model of ours as the official code's checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from uva_lightning.model.checkpoint import load_module
from uva_lightning.model.stored import CARRIED, CONTRACT, TEXT, VAE, WEIGHTS, flatten, read, read_tensors
from uva_lightning.model.tokenizers.kl16 import to_official
from uva_lightning.module import UVAModule
from uva_lightning.official.detect import State, under
from uva_lightning.official.exportable import autoencoder_of, layout_of_ours
from uva_lightning.official.folder import VAE_WEIGHTS
from uva_lightning.official.importing import AUTOENCODER, MODEL, NORMALIZER, TEXT_MODEL
from uva_lightning.official.names import Layout
from uva_lightning.official.translate import translate_back
from uva_lightning.official.variants import FIELDS

DUMMY = "_dummy_variable"
CURRENT = "current_model_state"
WRIST_PROJECTION = "proprioception_image_proj_cond"
_MAP = ("scale", "offset")


def official_checkpoint(path: Path, base: Path | None) -> dict[str, Any]:
    """Give the content of the official file.

    Args:
        path: Folder of ``uva import-checkpoint``, or checkpoint of ``uva fit``.
        base: Imported folder that has what a checkpoint of ours lacks, such as the text encoder.

    Returns:
        ``cfg``, ``state_dicts`` with ``model`` and ``ema_model``, and ``pickles``; both others are empty.

    Raises:
        ValueError: The model has a part that the official code does not know.
    """
    copies = _from_folder(path) if (path / CONTRACT).is_file() else _from_checkpoint(path, base)
    return {"cfg": {}, "state_dicts": copies, "pickles": {}}


def _from_folder(folder: Path) -> dict[str, State]:
    stored = read(folder)
    contract = stored["source"]
    if contract["new"]:
        raise ValueError(
            f"{folder} holds weights to start training from, expected a whole model; train it and export the "
            "checkpoint."
        )
    carried = _carried(folder)
    weights, layout = contract["weights"], Layout(**contract["layout"])
    one: State = {
        **{f"{MODEL}{name}": value for name, value in translate_back(stored["state_dict"], layout).items()},
        **_frozen(folder / VAE if (folder / VAE).is_dir() else None, folder),
        **_normalizer(stored["fitted"], contract["normalizer"]),
        **under(carried, f"{weights}/"),
    }
    other = "model" if weights == "ema_model" else "ema_model"
    absent = set(contract["absent"])
    second = {name: value for name, value in one.items() if name not in absent} | under(carried, f"{other}/")
    return {weights: one, other: second}


def _from_checkpoint(path: Path, base: Path | None) -> dict[str, State]:
    module, _ = load_module(path)
    stored = read(path)
    vae = autoencoder_of(module, path)
    layout = layout_of_ours(module, path)
    states = {"ema_model": stored["state_dict"], "model": stored.get(CURRENT, stored["state_dict"])}
    trained = {copy: translate_back(_weights(state), layout) for copy, state in states.items()}
    if base is not None and not (base / CONTRACT).is_file():
        raise ValueError(f"base is {base}, expected a folder of uva import-checkpoint, which has {CONTRACT}.")
    base = base or _started_from(stored["config"])
    carried = _carried(base) if base else {}
    contract = read(base)["source"] if base else {}
    extra = under(carried, f"{contract.get('weights')}/")
    usual, places = contract.get("normalizer", {}), {"action": "actions/normalizer"}
    places |= {FIELDS.get(entry, entry): f"proprioception/{entry}" for entry in module.spec.state_dims}
    fields = {name: place for name, place in places.items() if name in usual or not _same(stored, place)}
    rest = {
        DUMMY: torch.empty(0),
        **_unused(layout, module),
        **{name: value for name, value in extra.items() if not name.startswith(MODEL) or WRIST_PROJECTION in name},
        **_frozen(vae, base),
        **_normalizer(stored["fitted"], fields),
    }
    return {copy: {f"{MODEL}{name}": value for name, value in state.items()} | rest for copy, state in trained.items()}


def _started_from(config: str) -> Path | None:
    start = yaml.safe_load(config)["model"].get("start") or {}
    path = Path(str(start.get("path", "")))
    return path if (path / CONTRACT).is_file() else None


def _frozen(vae: Path | None, base: Path | None) -> State:
    """Autoencoder and text encoder under the official names, as far as they are there."""
    own = to_official(read_tensors(vae / VAE_WEIGHTS)) if vae else {}
    tensors = {f"{AUTOENCODER}{name}": value for name, value in own.items()}
    text = base / TEXT / WEIGHTS if base else None
    if text is not None and text.is_file():
        tensors |= {f"{TEXT_MODEL}{name}": value for name, value in read_tensors(text).items()}
    return tensors


def _normalizer(fitted: Mapping[str, Mapping[str, Tensor]], fields: Mapping[str, str]) -> State:
    """Official normaliser of fields that lie at a place of the fitted parts."""
    flat = flatten(fitted)
    return {f"{NORMALIZER}{field}.{key}": flat[f"{place}.{key}"] for field, place in fields.items() for key in _MAP}


def _same(stored: Mapping[str, Any], place: str) -> bool:
    """Whether a map changes nothing: the official code has no field for it then, as with UMI."""
    scale, offset = (flatten(stored["fitted"])[f"{place}.{key}"] for key in _MAP)
    return bool((scale == 1).all() and (offset == 0).all())


def _unused(layout: Layout, module: UVAModule) -> State:
    """UMI's models have a projection of the wrist picture that nothing uses."""
    if "proprio" not in layout.fused or "past_wrist" in layout.fused:
        return {}
    shape = layout.width, module.tokenizer.channels
    return {
        f"{MODEL}{WRIST_PROJECTION}.weight": torch.zeros(shape),
        f"{MODEL}{WRIST_PROJECTION}.bias": torch.zeros(shape[0]),
    }


def _carried(folder: Path) -> State:
    return read_tensors(folder / CARRIED) if (folder / CARRIED).is_file() else {}


def _weights(state: Mapping[str, Any]) -> State:
    return {name: value for name, value in state.items() if isinstance(value, Tensor)}
