"""The way of UniPi (Du et al. 2023) with the same model: make a video of the future, then ask which actions lead there.

The paper's comparison (UVA, table 1): a video policy is slower, and what is wrong in the video is wrong in the actions.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from uva_lightning.policy.acting import Acting
from uva_lightning.policy.windows import WindowObservation, WindowPolicy


class UniPi(Acting):
    """Act by the video model, then inverse dynamics.

    Args:
        policy: Trained model.
        iterations: Rounds of generation, MaskGIT; UVA uses 1, 4 and 8.
        temperature: Of the video's denoising, instead of the head's own; 0 is the best guess.
    """

    def __init__(self, policy: WindowPolicy, iterations: int = 1, temperature: float | None = None) -> None:
        super().__init__(policy)
        self.iterations, self.temperature = iterations, temperature

    def act(self, observation: WindowObservation) -> NDArray[np.float32]:
        """See the base class."""
        seen = self.policy.prepare(observation)
        return self.policy.explain(seen, self.policy.imagine(seen, self.temperature, self.iterations))
