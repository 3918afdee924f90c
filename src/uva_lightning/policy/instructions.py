"""Instructions of a policy as vectors, each sentence embedded once."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from uva_lightning.policy.contract import ContractError
from uva_lightning.policy.stages import Stages
from uva_lightning.types import DataSpec

Embed = Callable[[Sequence[str]], Tensor]
"""Sentences to vectors f32[n, w]."""
REMEMBERED = 256
"""Sentences whose vectors are kept; then the oldest is dropped."""


class Instructions:
    """Look up what a policy is told.

    Args:
        spec: Contract of the checkpoint.
        embed: Embeds sentences, as in training; without it instructions are given as vectors.
        stages: Told how long it takes.
    """

    def __init__(self, spec: DataSpec, embed: Embed | None, stages: Stages) -> None:
        self.spec, self.embed, self.stages = spec, embed, stages
        self._known: dict[str, NDArray[np.float32]] = {}

    def __call__(self, instruction: str | NDArray[np.float32]) -> NDArray[np.float32]:
        """Give the vector of an instruction, f32[w].

        Raises:
            ContractError: The model takes no instructions, cannot embed this one, or the vector is of another width.
        """
        width = self.spec.text_dim
        if not width:
            said = repr(instruction) if isinstance(instruction, str) else f"a vector {list(np.shape(instruction))}"
            raise ContractError(
                f"The instruction is {said}, the checkpoint was trained without instructions; leave it out."
            )
        if not isinstance(instruction, str):
            vector = np.asarray(instruction, dtype=np.float32)
            if vector.shape != (width,):
                raise ContractError(
                    f"The instruction is {list(vector.shape)}, the checkpoint was trained with [{width}]."
                )
            return vector
        if instruction not in self._known:
            embedded = self._embedded(instruction)
            if len(self._known) >= REMEMBERED:  # a server hears from anyone
                self._known.pop(next(iter(self._known)))
            self._known[instruction] = embedded
        return self._known[instruction]

    def _embedded(self, instruction: str) -> NDArray[np.float32]:
        if self.embed is None:
            raise ContractError(
                f"The instruction '{instruction}' cannot be embedded, as this policy has no text encoder, expected one "
                "that was made by from_checkpoint(), or an instruction as a vector; give f32[512]."
            )
        with self.stages("text"), torch.inference_mode():
            try:
                vectors = self.embed([instruction])
            except (ValueError, OSError, ImportError) as error:
                raise ContractError(f"The instruction '{instruction}' cannot be embedded: {error}") from error
        embedded: NDArray[np.float32] = vectors[0].float().cpu().numpy()
        return embedded
