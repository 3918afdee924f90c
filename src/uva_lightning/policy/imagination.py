"""Where the futures come from that a planner judges: the model's forward dynamics, or the true simulator."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from uva_lightning.policy.windows import WindowObservation, WindowPolicy

if TYPE_CHECKING:
    from uva_lightning.envs.receding_horizon import RecedingHorizon

    Envs = Mapping[int, RecedingHorizon]


class Futures(dict[str, NDArray[np.uint8]]):
    """What ``k`` chunks would do: frames u8[k, b, t, H, W, 3] by camera.

    Args:
        frames: By camera.
        rewards: f64[k, b, h], what the environment would give for each step; None where the future is imagined.
    """

    def __init__(self, frames: Mapping[str, NDArray[np.uint8]], rewards: NDArray[np.float64] | None = None) -> None:
        super().__init__(frames)
        self.rewards = rewards


class Imagination(ABC):
    """Foresees what chunks of actions would do."""

    envs: Envs = {}
    tries: bool = False
    """Whether it runs chunks in these environments."""

    def enter(self, envs: Envs) -> None:
        """Get the environments of the episodes to come, by their seeds; what is learned must not look at them."""
        self.envs = envs

    @abstractmethod
    def futures(
        self, policy: WindowPolicy, observation: WindowObservation, actions: NDArray[np.float32], pictures: bool
    ) -> Futures:
        """Foresee.

        Args:
            policy: The model.
            observation: From ``WindowPolicy.prepare``.
            actions: f32[k, b, h, a].
            pictures: Whether they are looked at.
        """


class ForwardModel(Imagination):
    """The model's forward dynamics (UVA section 4.5); all chunks of an observation meet the same noise.

    Args:
        iterations: Rounds of generation, MaskGIT; UVA uses 1, 4 and 8.
        temperature: Of the denoising; 0 is the best guess.
        batch: Most futures that go through the model at a time.
    """

    def __init__(self, iterations: int = 1, temperature: float = 0.0, batch: int = 256) -> None:
        if batch < 1:
            raise ValueError(f"batch is {batch} futures, expected at least 1.")
        self.iterations, self.temperature, self.batch = iterations, temperature, batch

    def futures(
        self, policy: WindowPolicy, observation: WindowObservation, actions: NDArray[np.float32], pictures: bool
    ) -> Futures:
        """See the base class."""
        samples = actions.shape[1]
        at_once = max(1, self.batch // samples)
        parts = []
        for first in range(0, len(actions), at_once):
            chunks = actions[first : first + at_once]
            made = policy.predict_next(
                repeated(observation, len(chunks)), np.concatenate(chunks), self.temperature, self.iterations
            )
            parts.append({name: x.reshape(len(chunks), samples, *x.shape[1:]) for name, x in made.items()})
        return Futures({camera: np.concatenate([part[camera] for part in parts]) for camera in parts[0]})


class Simulator(Imagination):
    """The true simulator: the upper bound of what planning with a learned one can reach (UVA section 4.5).

    Needs the environments, which ``run_rollouts`` gives to its actor, with ``snapshot`` and ``restore``.
    """

    tries = True

    def futures(
        self, policy: WindowPolicy, observation: WindowObservation, actions: NDArray[np.float32], pictures: bool
    ) -> Futures:
        """See the base class."""
        from uva_lightning.envs.trials import try_out

        seeds = observation["episode"]["seed"]
        if unknown := [seed for seed in seeds if seed not in self.envs]:
            raise ValueError(
                f"Episode {unknown[0]} runs in no simulator that is known, expected one of {list(self.envs)}; chunks "
                "are tried in rollouts only, where the environments are given to the planner."
            )
        envs = [self.envs[seed] for seed in seeds]
        found = [
            [try_out(env, chunk, policy.spec.stride, pictures) for env, chunk in zip(envs, row, strict=True)]
            for row in actions
        ]
        frames = np.stack([[pictures for pictures, _ in row] for row in found])
        rewards = np.stack([[rewards for _, rewards in row] for row in found])
        return Futures({envs[0].cameras[0]: frames}, rewards)


def repeated(observation: WindowObservation, times: int) -> WindowObservation:
    """Put so many copies of all samples one after another; pictures, whose latents are there, are left out."""

    def tiled(values: Any) -> Any:
        if isinstance(values, torch.Tensor):
            return values.repeat(times, *[1] * (values.ndim - 1))
        return np.concatenate([np.asarray(values)] * times)

    kinds = {kind: entries for kind, entries in observation.items() if kind != "video"}
    return {kind: {name: tiled(x) for name, x in entries.items()} for kind, entries in kinds.items()}
