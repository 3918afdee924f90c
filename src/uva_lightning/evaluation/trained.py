"""A trained model that plays scenarios, and hears what they ask for."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from uva_lightning.datamodules.instructions import TextEmbedder
from uva_lightning.evaluation.contenders import Chunking, Contender
from uva_lightning.evaluation.suite import Scenario
from uva_lightning.policy.told import Told, embedded
from uva_lightning.policy.windows import WindowPolicy
from uva_lightning.rollouts import Actor
from uva_lightning.types import DataSpec


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
        if not scenario.instruction:
            raise ValueError(
                f"{self.name} was trained with instructions, and scenario '{scenario.name}' has none, expected one; "
                "take a suite that says what to do, such as libero_10."
            )
        if self._text is None:
            raise ValueError(
                f"{self.name} was trained with instructions, and its config has no data.text that embeds "
                f"'{scenario.instruction}'; set data.text."
            )
        return embedded(self._text, scenario.instruction)


class InTraining(Trained):
    """The weights of the moment."""

    def facts(self) -> dict[str, Any]:
        """See the base class."""
        return {"kind": "in training"}
