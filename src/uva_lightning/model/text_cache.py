"""Embeddings of instructions, each computed once and kept in one file."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from uva_lightning.model.text import ClipText
from uva_lightning.model.text_weights import WIDTH, fingerprint, load_text_weights
from uva_lightning.whole_files import whole

FORMAT = "uva_lightning instructions 1"


class InstructionCache:
    """Look instructions up in a file and let CLIP embed the ones it lacks.

    Once every instruction is in the file, neither open_clip nor CLIP's weights are needed: embed on one machine, train
    and deploy on others.

    Args:
        path: The file, ``*.safetensors``; made at the first use.
        weights: CLIP's weights, see ``ClipText``; needed for instructions that the file lacks. Where they exist the
            file is compared with them once, so that embeddings of two encoders are never mixed.
    """

    def __init__(self, path: Path | str, weights: Path | str | None = None) -> None:
        self.path, self.weights = Path(path), None if weights is None else Path(weights)
        self._stored: dict[str, Tensor] = {}
        self._encoder = ""  # fingerprint of the file's encoder
        self._compared = False

    def __call__(self, instructions: Sequence[str]) -> Tensor:
        """Embed instructions, f32[n, 512].

        Raises:
            ValueError: The file is damaged or of another encoder, or lacks instructions and no weights are given.
        """
        wanted = list(dict.fromkeys(instructions))
        if any(instruction not in self._stored for instruction in wanted):
            self._read()
        if missing := [instruction for instruction in wanted if instruction not in self._stored]:
            self._embed(missing)
        elif wanted and not self._compared and self.weights is not None and self.weights.exists():
            self._compare(fingerprint(load_text_weights(self.weights)))
        if not wanted:
            return torch.empty(0, WIDTH)
        return torch.stack([self._stored[instruction] for instruction in instructions])

    def _embed(self, missing: Sequence[str]) -> None:
        if self.weights is None:
            raise ValueError(
                f"{self.path} has no embedding of {len(missing)} instructions, e.g. '{missing[0]}', expected all of "
                "them; give the path of CLIP's weights to compute them."
            )
        encoder = ClipText(self.weights)
        self._compare(encoder.fingerprint)
        embedded = dict(zip(missing, encoder(missing), strict=True))
        self._read()  # what another process may have added meanwhile
        self._compare(encoder.fingerprint)
        self._encoder, self._stored = encoder.fingerprint, {**self._stored, **embedded}
        _save(self.path, self._stored, self._encoder)

    def _compare(self, encoder: str) -> None:
        if self._encoder not in ("", encoder):
            raise ValueError(
                f"{self.path} has embeddings of the encoder {self._encoder[:12]}, expected {encoder[:12]}, that of "
                f"{self.weights}; use the weights it was made with, or delete it."
            )
        self._compared = True

    def _read(self) -> None:
        if self.path.exists():
            self._stored, self._encoder = _load(self.path)


def _save(path: Path, embeddings: Mapping[str, Tensor], encoder: str) -> None:
    """Write the table, so that a file of the real name is always whole."""
    table = torch.stack(list(embeddings.values()))
    entries = {"format": FORMAT, "encoder": encoder, "instructions": json.dumps(list(embeddings))}
    entries["digest"] = _digest(entries, table)
    try:
        with whole(path) as part:
            save_file({"embeddings": table}, part, entries)
    except (OSError, SafetensorError) as error:
        raise OSError(f"Cannot store {len(embeddings)} embeddings in {path} ({error}); give another path.") from error


def _load(path: Path) -> tuple[dict[str, Tensor], str]:
    """Read embeddings by instruction, and the fingerprint of their encoder."""
    try:
        with safe_open(path, "pt") as file:
            entries = dict(file.metadata() or {})
            table = file.get_tensor("embeddings") if "embeddings" in file.keys() else torch.empty(0)  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise ValueError(f"{path} is damaged ({error}), expected embeddings of instructions; delete it.") from error
    if entries.get("format") != FORMAT:
        raise ValueError(
            f"{path} has the format {entries.get('format', 'none')!r}, expected {FORMAT!r}; give another path."
        )
    if entries.pop("digest", "") != _digest(entries, table):
        raise ValueError(f"{path} is damaged (its digest does not fit), expected embeddings as written; delete it.")
    instructions: list[str] = json.loads(entries["instructions"])
    return dict(zip(instructions, table, strict=True)), entries["encoder"]


def _digest(entries: Mapping[str, str], table: Tensor) -> str:
    digest = hashlib.sha256(json.dumps(sorted(entries.items())).encode())
    digest.update(table.contiguous().numpy().data)
    return digest.hexdigest()
