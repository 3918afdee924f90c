"""Ways to act with a trained model, beside its robot policy alone; ``uva rollout --actor`` chooses one."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np
from numpy.typing import NDArray

from uva_lightning.policy.windows import WindowObservation, WindowPolicy


class Acting(ABC):
    """An actor, see ``uva_lightning.rollouts.Actor``, around a trained model.

    Args:
        policy: Trained model.
    """

    tries: bool = False
    """Whether it runs chunks in the environments of its episodes themselves."""

    def __init__(self, policy: WindowPolicy) -> None:
        self.policy = policy

    def reset(self, seed: int) -> None:
        """Start anew; the same seed and observations give the same actions."""
        self.policy.reset(seed)

    @abstractmethod
    def act(self, observation: WindowObservation) -> NDArray[np.float32]:
        """Decide: f32[b, h, a]."""
