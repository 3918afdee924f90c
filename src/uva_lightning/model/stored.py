"""Where models lie on disk: a checkpoint of ``uva fit``, or the folder that ``uva import-checkpoint`` writes."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from uva_lightning.types import DataSpec

WEIGHTS, FITTED, CARRIED = "model.safetensors", "fitted.safetensors", "carried.safetensors"
CONFIG, CONTRACT = "config.yaml", "contract.json"
VAE, TEXT = "vae", "text"
READABLE = 0o644  # safetensors writes for the owner alone
FORMAT = "uva_lightning model 1"
MAGIC, LFS = (b"PK\x03\x04", b"\x80"), b"version https://git-lfs"
"""First bytes of a zip file and of a pickle, and of what git-lfs leaves in the place of a file."""
HEAD, SHOWN = 256, 32
"""Bytes that are looked at, and of these what is shown."""
EXPECTED = "expected a file that `uva fit` wrote or a folder of `uva import-checkpoint`"
AGAIN = "name another file, or copy it again"
PARTS = ("tokenizer", "actions", "proprioception")


def read(path: Path) -> dict[str, Any]:
    """Read a model without unpickling anything but tensors and plain values.

    Args:
        path: Checkpoint of ``uva fit``, or folder of ``uva import-checkpoint``.

    Returns:
        ``config`` (YAML text), ``contract`` (facts of the data), ``fitted`` (tensors of each fitted part),
        ``state_dict``, and what else the file holds.

    Raises:
        ValueError: It is missing, damaged, or nothing of ours.
    """
    path = Path(path)
    if (path / CONTRACT).is_file():
        return _read_folder(path)
    if path.is_dir():
        raise ValueError(
            f"{path} is a folder without {CONTRACT}, expected a checkpoint: a file that `uva fit` wrote, or the folder "
            "of an imported UVA or MAR model; an autoencoder or a text encoder alone is none."
        )
    if not path.is_file():
        near = sorted(str(found) for found in path.parent.glob("**/*.ckpt"))[:1] if path.parent.is_dir() else []
        hint = f"; did you mean {near[0]}?" if near else "; `uva fit` writes one into its run folder."
        raise ValueError(f"There is no checkpoint {path}{hint}")
    checkpoint = _unpickled(path)
    stored = set(checkpoint) if isinstance(checkpoint, dict) else set()
    if missing := {"config", "contract", "fitted", "state_dict"} - stored:
        raise ValueError(f"{path} lacks {sorted(missing)}, expected a checkpoint written by `uva fit`.")
    return dict(checkpoint)


def weights_file(path: Path) -> Path:
    """Give the file that holds the weights of a checkpoint or of an imported folder."""
    return path / WEIGHTS if (path / CONTRACT).is_file() else path


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file.

    Raises:
        ValueError: It is missing or damaged.
    """
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise ValueError(f"{path} cannot be read ({error}); import the checkpoint again.") from error


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write a safetensors file; tensors that share memory are written once each, as the format demands.

    Raises:
        OSError: It cannot be written, for example because the disk is full.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    whole, seen = {}, set()
    for name, tensor in tensors.items():
        place = tensor.untyped_storage().data_ptr()
        whole[name] = tensor.clone(memory_format=torch.contiguous_format) if place in seen else tensor.contiguous()
        seen.add(place)
    try:
        save_file(whole, path, metadata={"format": "pt"})
        path.chmod(READABLE)
    except SafetensorError as error:
        raise OSError(f"{path} cannot be written ({error}); make room or name another folder.") from error


def flatten(fitted: Mapping[str, Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Join the names of fitted parts and of their tensors by a slash."""
    return {f"{part}/{key}": value for part, state in fitted.items() for key, value in state.items()}


def facts(contract: Mapping[str, Any]) -> dict[str, Any]:
    """Give facts of the data as read from JSON the types of ``DataSpec``.

    Raises:
        ValueError: They lack some.
    """
    try:
        return vars(DataSpec(**{**contract, "cameras": tuple(contract["cameras"])}))
    except (TypeError, KeyError) as error:
        raise ValueError(f"The contract does not describe data of this version: {error}; import again.") from error


def check_contract(contract: Mapping[str, Any], spec: DataSpec) -> None:
    """Compare the facts that a checkpoint was trained with to those of the data.

    Raises:
        ValueError: They differ.
    """
    now = asdict(spec)
    stored = {"sets": {}, **contract}  # checkpoints from before there were mixtures have no word of them
    if wrong := [name for name in now if name != "action_meaning" and stored.get(name) != now[name]]:
        name = wrong[0]
        raise ValueError(
            f"The data has {name} = {now[name]}, the checkpoint was trained with {stored.get(name)}"
            f"{f' (and {len(wrong) - 1} more differ)' if wrong[1:] else ''}; use the same data, or train anew."
        )


def _unpickled(path: Path) -> Any:
    """Read tensors and plain values, and say in one sentence what a file is that holds something else."""
    with path.open("rb") as file:
        head = file.read(HEAD)
    if not head.startswith(MAGIC):
        if head.startswith(LFS):
            raise ValueError(f"{path} is no checkpoint: it is a git-lfs pointer, {EXPECTED}; fetch it by git lfs pull.")
        start = head.strip()
        what = f"begins with {start.splitlines()[0][:SHOWN]!r}" if start else "is empty"
        raise ValueError(f"{path} is no checkpoint: it {what}, {EXPECTED}; {AGAIN}.")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, MemoryError):
        raise
    except Exception as error:  # the unpickler ends in any of them on bytes that mean nothing
        if "allocate memory" in str(error):
            raise
        if foreign := re.search(r"GLOBAL ([\w.]+)", str(error)):
            raise ValueError(
                f"{path} cannot be read as a checkpoint of tensors and plain values: it holds {foreign[1]}, which may "
                f"run anything, {EXPECTED}; import one of the official code by `uva import-checkpoint`."
            ) from error
        raise ValueError(
            f"{path} cannot be read as a checkpoint of tensors and plain values: it is damaged or cut off, {EXPECTED}; "
            f"{AGAIN}."
        ) from error


def _read_folder(path: Path) -> dict[str, Any]:
    try:
        contract = json.loads((path / CONTRACT).read_text())
        config = (path / CONFIG).read_text()
    except (OSError, json.JSONDecodeError) as error:
        raise ValueError(f"{path} is incomplete ({error}), expected a folder of uva import-checkpoint.") from error
    if contract.get("format") != FORMAT:
        raise ValueError(f"{path} has the format {contract.get('format')}, expected '{FORMAT}'; import again.")
    fitted: dict[str, dict[str, Tensor]] = {part: {} for part in PARTS}
    for name, value in (read_tensors(path / FITTED) if (path / FITTED).is_file() else {}).items():
        part, _, key = name.partition("/")
        fitted.setdefault(part, {})[key] = value
    return {
        "config": config,
        "contract": facts(contract["spec"]),
        "fitted": fitted,
        "state_dict": read_tensors(path / WEIGHTS),
        "source": contract,
    }
