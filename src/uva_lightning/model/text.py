"""Instructions as vectors: the text encoder of CLIP ViT-B/32, run by open_clip (extra ``[text]``).

Source: Radford et al. 2021; UVA conditions on ``openai/clip-vit-base-patch32``. The weights are no part of this
package and could not be downloaded where it was made: names, shapes and arithmetic are tested against transformers'
CLIP with random weights, the published ones were not run.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from uva_lightning.commands.extras import install_command
from uva_lightning.model.text_weights import (
    CONTEXT,
    HEADS,
    LAYERS,
    VOCABULARY,
    WIDTH,
    fingerprint,
    load_text_weights,
)

BLOCK = 64
"""Sentences encoded at a time."""


class ClipText:
    """Frozen text encoder on the CPU: the token at the end of the text, projected, not normalised.

    Sentences are padded to 77 tokens. UVA's official code pads to 30, which gives the same vectors: attention is
    causal, so nothing after the end of the text can reach it. GELU is the fast one that OpenAI's weights were trained
    with; weights trained with the exact one have the same shapes and would come out wrong.

    Args:
        path: Weights, see ``load_text_weights``.

    Attributes:
        fingerprint: Name of the weights.

    Raises:
        ImportError: open_clip is not installed or broken.
        ValueError: The weights are missing or of another model.
    """

    def __init__(self, path: Path | str) -> None:
        transformer, tokenizer = _open_clip()
        weights = load_text_weights(path)
        self.fingerprint = fingerprint(weights)
        self._tokenizer = tokenizer.SimpleTokenizer(context_length=CONTEXT)
        self._tower = transformer.TextTransformer(
            context_length=CONTEXT,
            vocab_size=VOCABULARY,
            width=WIDTH,
            heads=HEADS,
            layers=LAYERS,
            output_dim=WIDTH,
            act_layer=transformer.QuickGELU,
        )
        self._tower.load_state_dict(weights)
        self._tower.eval().requires_grad_(False)

    def tokens(self, instructions: Sequence[str]) -> Tensor:
        """Split sentences into tokens, i64[n, 77]: start, words, end, zeros.

        Raises:
            ValueError: A sentence is too long; cutting it would change what is asked for.
        """
        for instruction in instructions:
            length = len(self._tokenizer.encode(instruction)) + 2
            if length > CONTEXT:
                raise ValueError(
                    f"The instruction '{instruction}' has {length} tokens, expected at most {CONTEXT}; shorten it."
                )
        return self._tokenizer(list(instructions))

    @torch.no_grad()
    def __call__(self, instructions: Sequence[str]) -> Tensor:
        """Embed sentences, f32[n, 512]."""
        if not instructions:
            return torch.empty(0, WIDTH)
        return torch.cat([self._tower(block) for block in self.tokens(instructions).split(BLOCK)])


def _open_clip() -> tuple[Any, Any]:
    """Import open_clip's modules ``transformer`` and ``tokenizer``."""
    try:
        from open_clip import tokenizer, transformer
    except ModuleNotFoundError as error:
        raise ImportError(
            f"Embedding instructions needs open_clip, but {error.name} is not installed; "
            f"run: {install_command('open_clip')}"
        ) from error
    except RuntimeError as error:  # what a torchvision of another build than torch raises
        raise ImportError(
            f"open_clip cannot be imported ({error}), expected torch and torchvision of one build; run: uva doctor"
        ) from error
    return transformer, tokenizer
