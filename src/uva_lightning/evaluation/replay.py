"""Replay demonstrations as a policy's actions would be: what fails here, no policy can do right."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from uva_lightning.action_space import ActionSpace
from uva_lightning.datamodules.base import RobotDataModule
from uva_lightning.datamodules.window_batches import Extras, Variants, WindowBatches
from uva_lightning.datamodules.windows import Windows
from uva_lightning.envs.vector import Workers
from uva_lightning.evaluation.orientation import UPRIGHT, differences, likeliest
from uva_lightning.evaluation.play import Game, recipe_for, waves
from uva_lightning.evaluation.recordings import Recorded
from uva_lightning.metrics.intervals import bootstrap_mean
from uva_lightning.rollouts import Observation

BESIDE = 25
BLOCK = 4096
"""Windows that are read at a time to fit a normaliser."""
LEAST = 0.98
"""Share of the demonstrations' own score that their replay must reach."""
STATE_TOLERANCE = 0.01
"""Share of an entry's range by which the first recorded state may differ from the simulator's."""
COMPARED = 32
"""Episodes whose first pictures are compared."""


class Demonstrations:
    """Chunks of demonstrations, cut and normalised as those that a model is trained on.

    Args:
        data: Reads them.
        space: How the model sees actions; fitted to all of them if it is not yet.
    """

    def __init__(self, data: RobotDataModule, space: ActionSpace) -> None:
        window, store = data.window, data.store
        lead, horizon = window.lead, window.horizon
        pad = (horizon - 1 + lead, window.length - horizon - lead)  # so that each step is the last of one history
        windows = Windows(store.ends, replace(window, pad=pad, allow_short_episodes=True))
        self._batches = WindowBatches(store, windows, Variants.of(store, None), Extras(transform=data.transform))
        self.store, self.space = store, space
        if not space.fitted:
            blocks = torch.arange(len(self._batches)).split(BLOCK)
            space.fit(self._batches.numbers(block) for block in blocks)

    def chunk(self, episode: int, step: int, state: Mapping[str, Tensor]) -> NDArray[np.float32]:
        """Give the chunk at a step as a policy would that had learnt it exactly.

        Args:
            episode: Number of the demonstration.
            step: Control step of the latest frame; the last step where it is later.
            state: f32[1, n, p] per proprioception entry, as the simulator shows it now.

        Returns:
            f32[h, a], physical units.
        """
        step = min(step, int(self.store.lengths[episode]) - 1)
        batch = self._batches.numbers(torch.tensor([int(self.store.begins[episode]) + step]))
        if batch.action is None:
            raise ValueError("The demonstrations have no actions, expected recordings of a robot.")
        known = self.space.encode(batch.action, batch.state)[..., : batch.action.shape[-1]]
        return self.space.decode(known, state)[0].numpy()


class Replay:
    """Act as the demonstrations did: the actor of a replay.

    Args:
        demonstrations: What to repeat.
        episodes: Number of the demonstration, by the seed of the episode.
        execute: Actions of a chunk that are run.
    """

    def __init__(self, demonstrations: Demonstrations, episodes: Mapping[int, int], execute: int) -> None:
        self.demonstrations, self.episodes, self.execute = demonstrations, episodes, execute
        self._calls = 0

    def reset(self, seed: int) -> None:
        """Begin anew."""
        self._calls = 0

    def act(self, observation: Observation) -> NDArray[np.float32]:
        """Give the recorded chunks f32[b, h, a]."""
        step = self._calls * self.execute
        self._calls += 1
        chunks = []
        for row, seed in enumerate(observation["episode"]["seed"]):
            state = {name: torch.as_tensor(x[row : row + 1]).float() for name, x in observation["state"].items()}
            chunks.append(self.demonstrations.chunk(self.episodes[int(seed)], step, state))
        return np.stack(chunks)


@dataclass(frozen=True)
class Replayed:
    """What came of a replay.

    Args:
        env: Name of the environment.
        execute: Actions run per chunk.
        episodes: Number of each demonstration.
        scores: Largest reward of each replay, f64[n].
        own: Largest reward that each recording tells, f64[n]; NaN where it does not.
        steps: Control steps of each replay.
        states: Largest difference of the first recorded state from the simulator's, by entry, as a share of its range.
        pictures: How the first recorded pictures differ from the simulator's, by camera and way.
    """

    env: str
    execute: int
    episodes: Sequence[int]
    scores: NDArray[np.float64]
    own: NDArray[np.float64]
    steps: Sequence[int]
    states: Mapping[str, float] = field(default_factory=dict)
    pictures: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    @property
    def score(self) -> float:
        """Mean of the largest rewards."""
        return float(self.scores.mean())

    def faults(self) -> list[str]:
        """Say what is wrong, nothing where a policy may be scored."""
        found = []
        known = np.isfinite(self.own)
        if known.any() and self.scores[known].mean() < LEAST * self.own[known].mean():
            worst = int(np.argmin(np.where(known, self.scores - self.own, np.inf)))
            found.append(
                f"The demonstrations reach {self.scores[known].mean():.3f} when their actions are replayed, but were "
                f"recorded with {self.own[known].mean():.3f}, expected at least {LEAST:.0%} of it (worst: episode "
                f"{self.episodes[worst]}, {self.scores[worst]:.3f} of {self.own[worst]:.3f}); look for a flipped sign, "
                "another rotation, unit or order of the actions, a wrong normaliser, or actions shifted in time."
            )
        for name, share in self.states.items():
            if share > STATE_TOLERANCE:
                found.append(
                    f"The first recorded state '{name}' differs from the simulator's by up to {share:.0%} of its "
                    f"range, expected at most {STATE_TOLERANCE:.0%}; look for another unit, sign or order."
                )
        for camera, by_way in self.pictures.items():
            if (way := likeliest(by_way)) != UPRIGHT:
                found.append(
                    f"The recorded pictures of '{camera}' are {way}: they then differ from the simulator's by "
                    f"{by_way[way]:.1f} of 255, as they are by {by_way[UPRIGHT]:.1f}; turn them when reading."
                )
        return found

    def record(self) -> dict[str, Any]:
        """Give all numbers, for a file."""
        own = [float(x) if np.isfinite(x) else None for x in self.own]
        known = [x for x in own if x is not None]
        rows = zip(self.episodes, self.scores.tolist(), own, self.steps, strict=True)
        return {
            "env": self.env,
            "execute": self.execute,
            "score": self.score,
            "score_interval": list(bootstrap_mean(self.scores)),
            "own_score": float(np.mean(known)) if known else None,
            "n": len(self.scores),
            "method": "mean over the demonstrations of the maximum reward while their actions are replayed, with its "
            "95 % bootstrap interval; own_score is what the recorded rewards or states are worth",
            "states": dict(self.states),
            "pictures": {
                camera: {"as_recorded": by[UPRIGHT], "look": likeliest(by)} for camera, by in self.pictures.items()
            },
            "faults": self.faults(),
            "episodes": [dict(zip(("episode", "score", "own_score", "steps"), row, strict=True)) for row in rows],
        }


def replay(
    workers: Workers,
    env: str,
    data: RobotDataModule,
    space: ActionSpace,
    recorded: Sequence[Recorded],
    episodes: Sequence[int],
    execute: int = 8,
    on_wave: Callable[[int], None] = lambda count: None,
) -> Replayed:
    """Replay demonstrations and compare what is seen with what was recorded.

    Args:
        workers: Simulate.
        env: Name of the environment.
        data: Reads the demonstrations.
        space: How the model sees actions.
        recorded: How each demonstration began and how good it was.
        episodes: Which are replayed.
        execute: Actions of a chunk that are run.
        on_wave: Told how many episodes were played, after each group.

    Raises:
        ValueError: The environment differs from the data, or the recordings from what the datamodule reads.
    """
    if len(recorded) != data.store.episodes:
        raise ValueError(
            f"{data.path} has {len(recorded)} recordings, but the datamodule reads {data.store.episodes} episodes, "
            "expected the same; leave out data.reading.episodes."
        )
    starts = {recorded[number].start.seed: number for number in episodes}
    actor = Replay(Demonstrations(data, space), starts, execute)
    games: list[Game] = []
    firsts: list[Observation] = []
    recipe = recipe_for(env, data.spec, execute)
    for wave in waves(workers, actor, recipe, [recorded[number].start for number in episodes], 0, BESIDE):
        games.extend(wave)
        firsts.extend(game.first for game in wave)
        on_wave(len(wave))
    return Replayed(
        env,
        execute,
        list(episodes),
        np.array([game.score for game in games]),
        np.array([np.nan if recorded[k].score is None else recorded[k].score for k in episodes], dtype=np.float64),
        [game.steps for game in games],
        _states(data, firsts, episodes),
        _pictures(data, firsts, episodes),
    )


def _states(data: RobotDataModule, firsts: Sequence[Observation], episodes: Sequence[int]) -> dict[str, float]:
    found = {}
    for name in data.spec.state_dims:
        values = data.store.state[name]
        spread = np.maximum(values.max(axis=0) - values.min(axis=0), 1e-6)  # f32[p]
        begins = values[data.store.begins[list(episodes)]]
        seen = np.stack([first["state"][name][-1] for first in firsts])
        found[name] = float((np.abs(begins - seen) / spread).max())
    return found


def _pictures(
    data: RobotDataModule, firsts: Sequence[Observation], episodes: Sequence[int]
) -> dict[str, dict[str, float]]:
    if not data.has_pictures:
        return {}
    begins = data.store.begins[list(episodes)][:COMPARED]
    found = {}
    for camera in data.spec.cameras:
        seen = np.stack([first["video"][camera][-1] for first in firsts[:COMPARED]])
        found[camera] = differences(data.store.video[camera][begins], seen)
    return found
