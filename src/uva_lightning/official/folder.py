"""Write what was imported: the folder that ``uva`` loads, the autoencoder's or the text encoder's."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from uva_lightning.model.stored import CARRIED, CONFIG, CONTRACT, FITTED, TEXT, VAE, WEIGHTS, flatten, write_tensors
from uva_lightning.model.tokenizers.kl16 import build_kl16
from uva_lightning.official.importing import Imported
from uva_lightning.whole_files import whole_folder

VAE_WEIGHTS = "diffusion_pytorch_model.safetensors"


def write_model(folder: Path, imported: Imported, origin: Mapping[str, Any]) -> None:
    """Write a model; the folder appears when it is whole.

    Args:
        folder: A new or empty folder.
        imported: Its content.
        origin: Where it comes from: name and hash of the file, counts, what was skipped.

    Raises:
        FileExistsError: There is something there already.
        OSError: It cannot be written.
    """
    with whole_folder(folder) as partial:
        write_tensors(partial / WEIGHTS, imported.model)
        if imported.fitted:
            write_tensors(partial / FITTED, flatten(imported.fitted))
        if imported.carried:
            write_tensors(partial / CARRIED, imported.carried)
        if imported.vae:
            write_vae(partial / VAE, imported.vae)
        if imported.text:
            write_tensors(partial / TEXT / WEIGHTS, imported.text)
        (partial / CONFIG).write_text(yaml.safe_dump(imported.config, sort_keys=False))
        contract = {**imported.contract, "source": dict(origin)}
        (partial / CONTRACT).write_text(json.dumps(contract, indent=2, allow_nan=False) + "\n")


def write_vae(folder: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write KL-16 as diffusers does, with every bit of its tensors.

    Args:
        folder: Where to; it is made where absent.
        tensors: Under the names of diffusers.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with torch.device("meta"):
        build_kl16().save_config(folder)
    write_tensors(folder / VAE_WEIGHTS, tensors)
