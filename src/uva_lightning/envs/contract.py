"""What an environment asks of a policy that has no contract of its own."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

from uva_lightning import envs
from uva_lightning.envs.receding_horizon import RecedingHorizon
from uva_lightning.types import DataSpec


@cache
def contract_with(env: str, execute: int, image_size: int = 96) -> DataSpec:
    """Give what a policy without a contract of its own must be able to do: what an environment shows and takes.

    Args:
        env: Name of the environment.
        execute: Actions that are run of each chunk, which may be longer.
        image_size: Side of the pictures in pixels.
    """
    game = RecedingHorizon(envs.make(env, image_size), execute, (0,))
    try:
        seen, _ = game.reset()
        actions: Sequence[int] = game.action_space.shape or (0, 0)
        states = {name: int(numbers.shape[-1]) for name, numbers in seen["state"].items()}
        rate = float(game.metadata["render_fps"])
        return DataSpec(tuple(seen["video"]), image_size, actions[-1], states, rate, horizon=execute, frames=1)
    finally:
        game.close()
