"""Try actions in the true simulator and go back, as if nothing had been done."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from uva_lightning.envs.receding_horizon import RecedingHorizon


@runtime_checkable
class Restorable(Protocol):
    """What a simulator needs for trials; a snapshot holds all that its next steps follow from."""

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Go on by one step, as every environment does."""

    def snapshot(self) -> Any:
        """Remember the present state."""

    def restore(self, snapshot: Any) -> None:
        """Return to a remembered state."""


def try_out(
    env: RecedingHorizon, chunk: NDArray[np.float32], every: int, pictures: bool = True
) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    """Run a whole chunk in a copy of the present, past limits of steps and without a trace in the episode.

    Where the episode would end on the way, its last picture and reward stand for what would come after.

    Args:
        env: Episode under way.
        chunk: f32[h, a].
        every: Steps between two pictures; the first one is taken after as many.
        pictures: Whether any are drawn.

    Returns:
        Pictures u8[h / every, H, W, 3], none without ``pictures``, and the reward of each step, f64[h].

    Raises:
        ValueError: The simulator cannot go back.
    """
    inner: Any = env.unwrapped
    if not isinstance(inner, Restorable):
        raise ValueError(
            f"{type(inner).__name__} has no snapshot() and restore(), expected both of a simulator in which chunks are "
            "tried; add them, or let the model imagine."
        )
    before, frames, rewards, over = inner.snapshot(), list[NDArray[np.uint8]](), list[float](), False
    try:
        for number, action in enumerate(chunk, start=1):
            if not over:
                _, reward, terminated, truncated, _ = inner.step(action)
                over = terminated or truncated
            rewards.append(float(reward))
            if pictures and number % every == 0:
                frames.append(np.asarray(env.env.render(), dtype=np.uint8))
    finally:
        inner.restore(before)
    return np.stack(frames) if frames else np.zeros((0, 0, 0, 3), np.uint8), np.array(rewards)
