"""A trained model that plays scenarios, and hears what they ask for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from uva_lightning.datamodules.instructions import TextEmbedder
from uva_lightning.evaluation.contenders import Chunking, Contender
from uva_lightning.evaluation.suite import Scenario
from uva_lightning.policy.committed import Rest
from uva_lightning.policy.windows import WindowPolicy
from uva_lightning.rollouts import Actions, Actor, Enters, Observation
from uva_lightning.types import DataSpec

if TYPE_CHECKING:
    from uva_lightning.policy.imagination import Envs


class Trained(Contender):
    """A model as robot policy.

    Args:
        name: See the base class.
        execute: See the base class.
        policy: The model.
        text: Embeds instructions as in training; None where that is not known.
    """

    def __init__(self, name: str, execute: int, policy: WindowPolicy, text: TextEmbedder | None) -> None:
        super().__init__(name, execute)
        self.policy, self._text = policy, text

    def spec(self, env: str) -> DataSpec:
        """See the base class."""
        return self.policy.spec

    def actor(self, scenario: Scenario) -> Actor:
        """See the base class."""
        return self.told(self.policy, scenario, self.policy)

    def told(self, actor: Actor, scenario: Scenario, chunking: Chunking | None = None) -> Actor:
        """Let an actor hear what a scenario asks for, where the model was trained with instructions."""
        return Told(actor, self._vector(scenario), chunking) if self.policy.spec.text_dim else actor

    def chunking(self, scenario: Scenario) -> Chunking:
        """See the base class."""
        denoiser = self.policy.module.head("action").denoiser
        if not denoiser.continues:
            raise ValueError(
                f"The action head of {self.name} is {type(denoiser).__name__}, which cannot continue given actions, "
                "expected FlowMatching."
            )
        return Told(self.policy, self._vector(scenario), self.policy) if self.policy.spec.text_dim else self.policy

    def _vector(self, scenario: Scenario) -> NDArray[np.float32]:
        """Embed the instruction, as in training."""
        if not scenario.instruction or self._text is None:
            lacks = "no text encoder" if scenario.instruction else f"'{scenario.name}' has no instruction"
            raise ValueError(
                f"{self.name} was trained with instructions, and there is {lacks}, expected both; take a suite that "
                "says what to do, such as libero_10, and a checkpoint whose data.text embeds it."
            )
        return embedded(self._text, scenario.instruction)


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
