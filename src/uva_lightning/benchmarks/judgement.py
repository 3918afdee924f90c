"""How well a planner's imagined rewards of its proposals agree with the true ones."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from uva_lightning.policy.imagination import ForwardModel, Futures, Imagination, Simulator
from uva_lightning.policy.rewards import Reward
from uva_lightning.policy.windows import WindowObservation, WindowPolicy

if TYPE_CHECKING:
    from uva_lightning.policy.imagination import Envs


class Judgement:
    """Rewards of the same proposals, imagined and true, over many decisions.

    Args:
        apart: A decision matters where the true rewards differ by more (standard deviation, in their unit).
    """

    def __init__(self, apart: float) -> None:
        self.apart = apart
        self._imagined, self._true = list[NDArray[np.float64]](), list[NDArray[np.float64]]()

    def add(self, imagined: NDArray[np.float64], true: NDArray[np.float64]) -> None:
        """Add decisions: f64[k, b] each, for k proposals."""
        self._imagined += list(imagined.T)
        self._true += list(true.T)

    def row(self) -> dict[str, Any]:
        """Sum up.

        Returns:
            ``decisions``, how many of them ``matter``, and their mean Pearson ``correlation`` between imagined and true
            rewards, None where none matters; imagined rewards that are all alike count as 0.
        """
        pairs = [
            (imagined, true)
            for imagined, true in zip(self._imagined, self._true, strict=True)
            if true.std() > self.apart
        ]
        found = [float(np.corrcoef(*pair)[0, 1]) if pair[0].std() > 0 else 0.0 for pair in pairs]
        mean = float(np.mean(found)) if found else None
        return {"decisions": len(self._true), "matter": len(pairs), "apart": self.apart, "correlation": mean}

    def __str__(self) -> str:
        """Say it in a sentence."""
        row = self.row()
        if row["correlation"] is None:
            return (
                f"In none of {row['decisions']} decisions do the true rewards of the proposals differ by more than "
                f"{self.apart:g} (standard deviation)."
            )
        return (
            f"Imagined and true rewards of the proposals correlate by {row['correlation']:.2f}: mean of the "
            f"{row['matter']} of {row['decisions']} decisions of the planner with the simulator in which the true ones "
            f"differ by more than {self.apart:g} (standard deviation)."
        )


class Watched(Imagination):
    """The true simulator that a planner goes by, with what forward dynamics imagines beside it.

    Args:
        reward: Judges the futures of both.
        judgement: Takes what comes out.
    """

    tries = True

    def __init__(self, reward: Reward, judgement: Judgement) -> None:
        self.reward, self.judgement = reward, judgement
        self.model, self.simulator = ForwardModel(), Simulator()

    def enter(self, envs: Envs) -> None:
        """See the base class."""
        self.simulator.enter(envs)

    def futures(
        self, policy: WindowPolicy, observation: WindowObservation, actions: NDArray[np.float32], pictures: bool
    ) -> Futures:
        """See the base class."""
        imagined = self.model.futures(policy, observation, actions, pictures)
        true = self.simulator.futures(policy, observation, actions, pictures)
        past = dict(observation["video"])
        self.judgement.add(self.reward(past, imagined), self.reward(past, true))
        return true
