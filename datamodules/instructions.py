"""Where the vectors of instructions come from."""

from __future__ import annotations

import json
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from torch import Tensor

from uva_lightning.model.text_cache import InstructionCache

CLIP_WIDTH = 512
CLIP_BEGIN, CLIP_END = 49406, 49407
"""Tokens that frame a sentence; the end also fills it up."""


class TextEmbedder(ABC):
    """Turn instructions into vectors, once, before training.

    Attributes:
        width: Numbers of a vector.
    """

    width: int = CLIP_WIDTH

    @abstractmethod
    def embed(self, instructions: Sequence[str]) -> Tensor:
        """Embed sentences, f32[n, width]."""

    def of_episodes(self, instructions: Sequence[str] | None, path: object) -> Tensor:
        """Embed the instruction of every episode, each sentence once: f32[e, width].

        Raises:
            ValueError: There are no instructions.
        """
        if instructions is None:
            raise ValueError(
                f"data.text is {type(self).__name__}, but {path} has no instructions, expected one per episode; leave "
                "data.text out."
            )
        sentences = sorted(set(instructions))
        place = {sentence: row for row, sentence in enumerate(sentences)}
        return self.embed(sentences)[[place[sentence] for sentence in instructions]]


class CachedInstructions(TextEmbedder):
    """Read vectors that a text encoder has made, so that training needs neither the encoder nor its weights.

    Args:
        path: A ``.safetensors`` file with one f32[512] per instruction, named by it; or one table ``embeddings``
            f32[n, 512] whose rows the JSON list ``instructions`` in the file's metadata names.
        missing: Embeds what the file lacks, e.g. ``RandomInstructions`` to try a config; if not given that is an error.
        weights: Weights of CLIP ViT-B/32, file or folder, that embed what the file lacks and add it to the file, which
            ``InstructionCache`` then makes; needs the extra ``[text]``.
    """

    def __init__(
        self, path: Path | str, missing: TextEmbedder | None = None, weights: Path | str | None = None
    ) -> None:
        if missing is not None and weights is not None:
            raise ValueError(f"data.text has both missing and weights, {weights}, expected one; leave the other out.")
        self.path, self.missing, self.weights = Path(path), missing, weights

    def embed(self, instructions: Sequence[str]) -> Tensor:
        """See the base class.

        Raises:
            ValueError: The file is missing or damaged, or lacks an instruction.
        """
        source = self._embeds()
        known = self._read() if source is None or self.path.exists() else {}
        missing = sorted(set(instructions) - set(known))
        if missing and source is not None:
            known |= dict(zip(missing, source(missing), strict=True))
        elif missing:
            raise ValueError(
                f"{self.path} has no vector for '{missing[0]}' ({len(missing)} of {len(set(instructions))} are "
                f"missing); {self._recipe}"
            )
        vectors = torch.stack([known[instruction] for instruction in instructions]).float()
        if vectors.shape[1:] != (self.width,):
            raise ValueError(
                f"{self.path} has vectors of {list(vectors.shape[1:])} numbers, expected [{self.width}] as CLIP "
                f"ViT-B/32 gives; {self._recipe}"
            )
        return vectors

    def _embeds(self) -> Callable[[Sequence[str]], Tensor] | None:
        """Give what embeds the sentences that the file lacks."""
        if self.weights is not None:
            return InstructionCache(self.path, self.weights)
        return None if self.missing is None else self.missing.embed

    def _read(self) -> dict[str, Tensor]:
        if not self.path.is_file():
            raise ValueError(f"There is no file {self.path} of instruction vectors; {self._recipe}")
        try:
            with safe_open(self.path, "pt") as file:
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
                rows = json.loads((file.metadata() or {}).get("instructions", "null"))
        except SafetensorError as error:
            raise ValueError(f"{self.path} is damaged ({error}); {self._recipe}") from error
        return tensors if rows is None else dict(zip(rows, tensors["embeddings"], strict=True))

    @property
    def _recipe(self) -> str:
        return (
            "set data.text.init_args.weights to the weights of CLIP ViT-B/32 to embed them (extra 'text'), or "
            "data.text.init_args.path to a file that has them."
        )


class RandomInstructions(TextEmbedder):
    """Vectors of independent normal numbers that follow from the sentence alone.

    For tests and generated data: they tell instructions apart, but similar ones are not near each other, so a model
    trained with them knows only the sentences it has seen.
    """

    def embed(self, instructions: Sequence[str]) -> Tensor:
        """See the base class."""
        rngs = (torch.Generator().manual_seed(zlib.crc32(instruction.encode())) for instruction in instructions)
        return torch.stack([torch.randn(self.width, generator=rng) for rng in rngs])


def from_clip_tokens(ids: NDArray[np.int64]) -> list[str]:
    """Read sentences back from CLIP's tokens, i64[n, l]; in lower case, which is all that CLIP knows of them.

    Raises:
        ImportError: open_clip, which has CLIP's vocabulary, is not installed.
    """
    try:
        from open_clip.tokenizer import SimpleTokenizer
    except (ImportError, RuntimeError) as error:  # RuntimeError: a torchvision of another build than torch
        raise ImportError(
            f"The instructions are stored as CLIP's tokens, and reading them needs open_clip ({error}); install it "
            "with pip install 'uva_lightning[text]', or leave data.text out."
        ) from error
    tokenizer, frame = SimpleTokenizer(), (0, CLIP_BEGIN, CLIP_END)
    known = {tuple(row): "" for row in ids.tolist()}
    sentences = {row: tokenizer.decode([token for token in row if token not in frame]) for row in known}
    return [sentences[tuple(row)].strip() for row in ids.tolist()]
