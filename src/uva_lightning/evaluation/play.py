"""Play episodes side by side: the actor decides for all that are under way with one call, workers simulate."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
import torch
from lightning.pytorch.utilities.seed import isolate_rng
from numpy.typing import NDArray

from uva_lightning.envs.games import Recipe, Seen, Start
from uva_lightning.envs.receding_horizon import History
from uva_lightning.envs.vector import Workers
from uva_lightning.metrics.jerk import mean_jerk
from uva_lightning.metrics.pose_error import positions
from uva_lightning.rollouts import SUCCESS_REWARD, Actor, Episode, Observation, frame_offsets, open_env
from uva_lightning.types import DataSpec

WAVE = 10
"""Episodes side by side: so many are lost at most when an evaluation is killed, and memory stays bounded."""


class Expert:
    """Baseline: let the environment's own expert act, which sees the state; needs starts with ``expert``.

    Args:
        horizon: Actions in a chunk.
        action_dim: Width of an action.
    """

    def __init__(self, horizon: int, action_dim: int) -> None:
        self.horizon, self.action_dim = horizon, action_dim

    def reset(self, seed: int) -> None:
        """The expert follows the seed of each episode."""

    def act(self, observation: Observation) -> NDArray[np.float32]:
        """Give chunks that nobody runs."""
        count = len(next(iter(observation["video"].values())))
        return np.zeros((count, self.horizon, self.action_dim), dtype=np.float32)


@dataclass
class Game:
    """One episode under way.

    Args:
        start: How it began.
        now: What was seen last.
        first: What was seen at the start.
    """

    start: Start
    now: Seen
    first: History
    score: float = 0.0
    steps: int = 0
    frames: list[NDArray[np.uint8]] = field(default_factory=list)
    actions: list[NDArray[np.float32]] = field(default_factory=list)

    @classmethod
    def begun(cls, start: Start, seen: Seen) -> Self:
        """Take the start."""
        return cls(start, seen, seen.observation, frames=[*seen.frames])

    def take(self, seen: Seen, chunk: NDArray[np.float32]) -> None:
        """Take what came of a chunk, f32[h, a]."""
        self.now, self.score, self.steps = seen, max(self.score, seen.reward), self.steps + seen.steps
        self.frames.extend(seen.frames)
        self.actions.extend(() if self.start.expert else chunk[: seen.steps])  # an expert decides on the way

    def episode(self, spec: DataSpec) -> Episode:
        """Give what counts."""
        jerk = mean_jerk(self.actions, positions(spec), spec.rate_hz)
        return Episode(self.start.seed, self.score, self.score >= SUCCESS_REWARD, self.steps, jerk)


def recipe_for(env: str, spec: DataSpec, execute: int) -> Recipe:
    """Say how workers make an environment that shows what a policy was trained on.

    Raises:
        ValueError: It differs from what the policy was trained on.
        ImportError: The simulator is not installed.
    """
    open_env(env, spec, execute).close()
    return unchecked(env, spec, execute)


def unchecked(env: str, spec: DataSpec, execute: int) -> Recipe:
    """Say how workers make an environment, without opening it to see whether it fits."""
    return Recipe(env, spec.image_size, execute, frame_offsets(spec), spec.horizon)


def waves(
    workers: Workers, actor: Actor, recipe: Recipe, starts: Sequence[Start], seed: int, beside: int = WAVE
) -> Iterator[list[Game]]:
    """Play episodes in groups, and give each group when all its episodes are over.

    Args:
        workers: Simulate.
        actor: Decides; reset before each group.
        recipe: How environments are made.
        starts: One per episode.
        seed: What the actor is reset with; with the same one an episode does not depend on which others are played.
        beside: Episodes of a group.
    """
    for first in range(0, len(starts), beside):
        group = starts[first : first + beside]
        seen = workers.begin(recipe, group)
        games = {number: Game.begun(start, seen[number]) for number, start in enumerate(group)}
        with isolate_rng():  # a head may draw from the global generators
            torch.manual_seed(seed)
            actor.reset(seed)
            _play(workers, actor, games)
        yield list(games.values())


def _play(workers: Workers, actor: Actor, games: Mapping[int, Game]) -> None:
    alive = dict(games)
    while alive:
        seeds = np.array([game.start.seed for game in alive.values()])
        chunks = np.asarray(actor.act({**_stack(list(alive.values())), "episode": {"seed": seeds}}), dtype=np.float32)
        _refuse_broken(chunks, seeds)
        given = dict(zip(alive, chunks, strict=True))
        for number, seen in workers.step(given).items():
            games[number].take(seen, given[number])
        alive = {number: game for number, game in alive.items() if not game.now.over}


def _refuse_broken(chunks: NDArray[np.float32], seeds: NDArray[np.int64]) -> None:
    if chunks.ndim != 3 or len(chunks) != len(seeds):
        raise ValueError(f"The policy gave {list(chunks.shape)} actions for {len(seeds)} episodes, expected [b, h, a].")
    if (bad := ~np.isfinite(chunks).all(axis=(1, 2))).any():
        raise ValueError(
            f"The policy gave actions with NaN or infinity in the episode of seed {seeds[bad][0]}, expected finite "
            "numbers; look at its normaliser and weights (uva replay --ckpt tells which of the two)."
        )


def _stack(games: Sequence[Game]) -> dict[str, dict[str, Any]]:
    observations = [game.now.observation for game in games]
    return {
        kind: {name: np.stack([one[kind][name] for one in observations]) for name in entries}
        for kind, entries in observations[0].items()
    }
