"""``uva import-checkpoint``: make a checkpoint of the official code loadable, without running anything in it."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from typing import Any, Literal

from uva_lightning.commands.errors import UserError
from uva_lightning.model.stored import WEIGHTS, write_tensors
from uva_lightning.model.tokenizers.kl16 import from_official
from uva_lightning.official.detect import Source, source_of
from uva_lightning.official.folder import write_model, write_vae
from uva_lightning.official.importing import Imported, Options, import_model
from uva_lightning.official.reading import plain, read
from uva_lightning.official.text import clip_tensors
from uva_lightning.results import sha256
from uva_lightning.whole_files import whole_folder

KINDS = {"uva": "UVA", "mar": "MAR", "vae": "KL-16", "text": "CLIP"}
SHOWN = 6


def import_checkpoint(
    src: Path,
    to: Path,
    weights: Literal["ema", "model"] = "ema",
    variant: Literal["pusht", "libero10", "toolhang", "umi", "umi_multi"] | None = None,
    minimum: float = 0.9,
    heads: int | None = None,
    vae: Path | None = None,
) -> None:
    """Make a checkpoint of UVA, MAR-base, KL-16 or CLIP loadable; nothing in it is run.

    Args:
        src: File of the official code, or safetensors.
        to: New folder for the result.
        weights: Averaged or current weights, where the file has both.
        variant: Which model is meant, where the file does not tell; pusht for MAR.
        minimum: Smallest share of the file's tensors that must match.
        heads: Attention heads, where the size is none of MAR's.
        vae: Folder of the autoencoder, where the file has none; pretrained/kl-f16 if not given.
    """
    if not 0 <= minimum <= 1:
        raise UserError(f"minimum is {minimum}, expected a share in [0, 1], such as 0.9.")
    if to.is_file() or (to.is_dir() and any(to.iterdir())):
        raise UserError(f"{to} exists and is not empty, expected a new folder; name another one or remove it.")
    content = read(src)
    source = source_of(content.values, weights, src)
    origin: dict[str, Any] = {"file": src.name, "sha256": sha256(src), "skipped": dict(content.skipped)}
    lines = [f"{src}: {KINDS[source.kind]}, {len(source.state)} tensors{_copy(source)}"]
    try:
        if source.kind == "vae":
            with whole_folder(to) as partial:
                write_vae(partial, from_official(source.state))
        elif source.kind == "text":
            with whole_folder(to) as partial:
                write_tensors(partial / WEIGHTS, clip_tensors(source.state, 0))
        else:
            settings = plain(content.values.get("cfg"))
            options = Options(src, to, variant, minimum, heads, vae, _varies(settings))
            imported = import_model(source, options)
            write_model(to, imported, {**origin, "counts": _counts(imported)})
            lines += _table(imported, minimum)
    except OSError as error:
        raise UserError(f"{to} was not written: {error}") from error
    skipped = ", ".join(f"{name} ({count})" for name, count in sorted(content.skipped.items()))
    sys.stdout.write("\n".join([*lines, f"skipped: {skipped or 'nothing'}", f"written: {to}"]) + "\n")


def _table(imported: Imported, minimum: float) -> list[str]:
    translation, contract = imported.translation, imported.contract
    rate = contract["spec"]["rate_hz"]
    lines = [f"variant {contract['variant']} at {rate:g} Hz, {contract['parameters']:,} parameters"]
    rows: dict[str, tuple[int, str]] = {kind: (count, "") for kind, count in sorted(translation.kinds.items())}
    total = translation.matched + len(translation.unused)
    rows["matched"] = (translation.matched, f"of {total}, {translation.share:.1%}; at least {minimum:.1%} must")
    rows["unused"] = (len(translation.unused), _some(translation.unused))
    rows["new"] = (len(imported.new), _some(imported.new))
    rows["autoencoder"] = (len(imported.vae), "")
    rows["text encoder"] = (len(imported.text), "")
    rows["normaliser"] = (len(contract["normalizer"]), _some(contract["normalizer"]))
    rows["carried"] = (len(imported.carried), "kept for an export" if imported.carried else "")
    rows["unknown"] = (len(imported.unknown), _some(imported.unknown))
    return lines + [f"  {name:<14}{count:>6}  {note}".rstrip() for name, (count, note) in rows.items()]


def _counts(imported: Imported) -> dict[str, int]:
    translation = imported.translation
    extra = {"matched": translation.matched, "unused": len(translation.unused), "new": len(imported.new)}
    return {**Counter(translation.kinds), **extra, "carried": len(imported.carried)}


def _some(names: Any) -> str:
    shown = ", ".join(list(names)[:SHOWN])
    return f"{shown} ..." if len(names) > SHOWN else shown


def _copy(source: Source) -> str:
    return f" in {source.weights}, {len(source.other)} in the other copy" if source.other else ""


def _varies(settings: Any) -> bool | None:
    """Whether the history frames vary in training, if the configuration in the file tells."""
    if isinstance(settings, dict):
        if isinstance(varied := settings.get("different_history_freq"), bool):
            return varied
        for value in settings.values():
            if (found := _varies(value)) is not None:
                return found
    return None
