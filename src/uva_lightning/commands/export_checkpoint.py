"""``uva export-checkpoint``: write a model of ours as the official code's checkpoint."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch

from uva_lightning.commands.errors import UserError
from uva_lightning.model.stored import CONTRACT, read_tensors
from uva_lightning.model.tokenizers.kl16 import to_official
from uva_lightning.official.folder import VAE_WEIGHTS
from uva_lightning.official.importing import AUTOENCODER, MODEL, NORMALIZER, TEXT_MODEL
from uva_lightning.official.writing import official_checkpoint
from uva_lightning.whole_files import whole

PARTS = {"model": MODEL, "autoencoder": AUTOENCODER, "text encoder": TEXT_MODEL, "normaliser": NORMALIZER}


def export_checkpoint(src: Path, to: Path, base: Path | None = None) -> None:
    """Write a model as a checkpoint that the official code loads.

    Args:
        src: Folder of uva import-checkpoint, or checkpoint of uva fit.
        to: New file for the result.
        base: Imported folder that has what a checkpoint of uva fit lacks, such as the text encoder; the one that
            training started from if not given.
    """
    if to.exists():
        raise UserError(f"{to} exists, expected a new file; name another one or remove it.")
    content: dict[str, Any]
    if (src / VAE_WEIGHTS).is_file() and not (src / CONTRACT).is_file():
        content = {"model": to_official(read_tensors(src / VAE_WEIGHTS))}
        lines = [f"  autoencoder   {len(content['model']):>6}"]
    else:
        content = official_checkpoint(src, base)
        written = content["state_dicts"]["ema_model"]
        counts = {part: sum(name.startswith(prefix) for name in written) for part, prefix in PARTS.items()}
        lines = [f"  {part:<14}{count:>6}" for part, count in counts.items()]
    try:
        with whole(to) as partial:
            torch.save(content, partial)
    except (OSError, RuntimeError) as error:
        raise UserError(f"{to} was not written: {error}; make room or name another place.") from error
    sys.stdout.write("\n".join([f"{src}: tensors of the official code", *lines, f"written: {to}"]) + "\n")
