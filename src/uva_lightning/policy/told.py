"""An actor that is told what to do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from uva_lightning.datamodules.instructions import TextEmbedder
from uva_lightning.policy.committed import Rest
from uva_lightning.rollouts import Actions, Actor, Enters, Observation

if TYPE_CHECKING:
    from uva_lightning.evaluation.contenders import Chunking
    from uva_lightning.policy.imagination import Envs


class Told:
    """An actor that hears the same instruction in all episodes.

    Args:
        actor: Decides.
        vector: The instruction, f32[w].
        chunking: Decides where a chunk under way is to be continued.
    """

    def __init__(self, actor: Actor, vector: NDArray[np.float32], chunking: Chunking | None = None) -> None:
        self.actor, self.vector, self.chunking = actor, vector, chunking

    def enter(self, envs: Envs) -> None:
        """Hand the environments on to an actor that wants them."""
        if isinstance(self.actor, Enters):
            self.actor.enter(envs)

    def reset(self, seed: int) -> None:
        """Start anew."""
        self.actor.reset(seed)

    def act(self, observation: Observation, *, committed: Sequence[Rest] | None = None) -> Actions:
        """Decide, given what each robot is committed to."""
        count = len(next(iter(observation["video"].values())))
        text = {"instruction": np.tile(self.vector, (count, 1))}
        heard = {**observation, "text": text}
        if committed is None or self.chunking is None:
            return self.actor.act(heard)
        return self.chunking.act(heard, committed=committed)


def embedded(text: TextEmbedder, instruction: str) -> NDArray[np.float32]:
    """Embed an instruction as in training, f32[w]."""
    vector: NDArray[np.float32] = text.embed([instruction])[0].float().numpy()
    return vector
