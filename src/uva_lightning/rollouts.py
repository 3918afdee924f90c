"""Run a policy in simulated environments, all in lockstep, and sum up how well it did."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
import torch
from lightning.pytorch.utilities.seed import isolate_rng
from numpy.typing import ArrayLike, NDArray
from tqdm.auto import tqdm

from uva_lightning.metrics.intervals import Interval, bootstrap_mean, wilson
from uva_lightning.metrics.jerk import mean_jerk
from uva_lightning.metrics.pose_error import positions
from uva_lightning.results import versions
from uva_lightning.types import DataSpec

if TYPE_CHECKING:
    from uva_lightning.envs.receding_horizon import RecedingHorizon

FIRST_TEST_SEED = 100_000
"""Seed of UVA's first test episode; demonstrations use lower ones."""
SUCCESS_REWARD = 1.0
"""Reward of a solved episode: on Push-T, coverage above 0.95."""

Observation = Mapping[str, Mapping[str, NDArray[Any]]]
Actions = NDArray[np.float32]
Frames = NDArray[np.uint8]


class Actor(Protocol):
    """Whatever can act: a trained policy, or a baseline."""

    def reset(self, seed: int) -> None:
        """Start anew; the same seed and observations give the same actions."""

    def act(self, observation: Observation) -> Actions:
        """Decide.

        Args:
            observation: ``video`` by camera u8[b, t, H, W, 3], ``state`` by name f32[b, t, p], and ``episode`` with
                ``seed`` i64[b], so that what is random may follow the episode.

        Returns:
            Chunks f32[b, h, a], in physical units.
        """
        ...


@runtime_checkable
class Enters(Protocol):
    """An actor that is given the environments, such as a planner that tries chunks in them."""

    def enter(self, envs: Mapping[int, RecedingHorizon]) -> None:
        """Get the environments of the episodes to come, by their seeds."""


class HoldPosition:
    """Baseline: stay where the robot is.

    Args:
        state: Proprioception entry that has the unit and width of the actions.
        horizon: Actions in a chunk.
    """

    def __init__(self, state: str, horizon: int) -> None:
        self.state, self.horizon = state, horizon

    def reset(self, seed: int) -> None:
        """There is nothing random."""

    def act(self, observation: Observation) -> Actions:
        """Repeat the latest position."""
        latest = np.asarray(observation["state"][self.state], dtype=np.float32)[:, -1:]
        return latest.repeat(self.horizon, axis=1)


class ConstantAction:
    """Baseline: always the same action, such as the mean of the data.

    Args:
        action: f32[a].
        horizon: Actions in a chunk.
    """

    def __init__(self, action: Actions, horizon: int) -> None:
        self.action, self.horizon = np.asarray(action, dtype=np.float32), horizon

    @classmethod
    def mean(cls, actions: ArrayLike, horizon: int) -> ConstantAction:
        """Take the mean of f32[..., a]."""
        numbers = np.asarray(actions)
        return cls(numbers.reshape(-1, numbers.shape[-1]).mean(axis=0, dtype=np.float64), horizon)

    def reset(self, seed: int) -> None:
        """There is nothing random."""

    def act(self, observation: Observation) -> Actions:
        """Repeat the action."""
        count = len(next(iter(observation["video"].values())))
        return np.tile(self.action, (count, self.horizon, 1))


@dataclass(frozen=True)
class Episode:
    """One rollout.

    Args:
        seed: Seed of the environment.
        score: Largest reward.
        success: Whether that is a success.
        steps: Length in control steps.
        jerk: Mean jerk of the positions it was told to go to, in their unit per s^3; None where that is not known.
    """

    seed: int
    score: float
    success: bool
    steps: int
    jerk: float | None = None


@dataclass(frozen=True)
class RolloutResult:
    """Rollouts of one actor.

    Args:
        env: Name of the environment.
        execute: Actions run per chunk.
        episodes: In the order of the seeds.
        frames: u8[n, H, W, 3] of the recorded episodes, by seed.
    """

    env: str
    execute: int
    episodes: tuple[Episode, ...]
    frames: Mapping[int, Frames] = field(default_factory=dict)

    @property
    def score(self) -> float:
        """Mean of the episodes' largest rewards."""
        return float(np.mean([episode.score for episode in self.episodes]))

    @property
    def score_interval(self) -> Interval:
        """Bootstrap interval of the score."""
        return bootstrap_mean([episode.score for episode in self.episodes])

    @property
    def successes(self) -> int:
        """Number of solved episodes."""
        return sum(episode.success for episode in self.episodes)

    @property
    def success(self) -> float:
        """Share of solved episodes."""
        return self.successes / len(self.episodes)

    @property
    def success_interval(self) -> Interval:
        """Wilson interval of the share."""
        return wilson(self.successes, len(self.episodes))

    @property
    def jerk(self) -> float | None:
        """Mean of the episodes' jerks; None where one is not known."""
        return None if self._jerks is None else float(np.mean(self._jerks))

    @property
    def jerk_interval(self) -> Interval | None:
        """Bootstrap interval of the jerk."""
        return None if self._jerks is None else bootstrap_mean(self._jerks)

    @property
    def _jerks(self) -> list[float] | None:
        known = [episode.jerk for episode in self.episodes if episode.jerk is not None]
        return known if len(known) == len(self.episodes) else None

    def record(self) -> dict[str, Any]:
        """Give all but the frames, for ``results.json``."""
        return {
            "env": self.env,
            "execute": self.execute,
            "score": self.score,
            "score_interval": list(self.score_interval),
            "success": self.success,
            "success_interval": list(self.success_interval),
            "jerk": self.jerk,
            "jerk_interval": None if self.jerk_interval is None else list(self.jerk_interval),
            "method": "mean of the maximum reward with its 95 % bootstrap interval; share of solved episodes with "
            "its 95 % Wilson interval",
            "seeds": [episode.seed for episode in self.episodes],
            "episodes": [asdict(episode) for episode in self.episodes],
            "versions": versions(),
        }


class _Game:
    """One environment under way."""

    def __init__(self, env: RecedingHorizon, seed: int) -> None:
        self.env, self.seed = env, seed
        self.observation, info = env.reset(seed=seed)
        self.frames: list[Frames] = list(info.get("frames", ()))
        self.score, self.steps, self.over = 0.0, 0, False
        self.actions: list[Actions] = []

    def step(self, chunk: Actions) -> int:
        """Run a chunk and give the number of steps that it took."""
        self.observation, reward, terminated, truncated, info = self.env.step(chunk)
        self.score, self.over = max(self.score, reward), terminated or truncated
        self.frames.extend(info.get("frames", ()))
        self.steps += len(info["rewards"])
        self.actions.extend(chunk[: len(info["rewards"])])
        return len(info["rewards"])


def run_rollouts(
    actor: Actor,
    env: str,
    spec: DataSpec,
    seeds: Sequence[int],
    execute: int = 8,
    record: int = 0,
    max_steps: int | None = None,
    progress: bool = True,
) -> RolloutResult:
    """Roll an actor out, all episodes at once; it decides for all that are not over with one call.

    Args:
        actor: Decides; reset once, with the first seed.
        env: Name of the environment.
        spec: What the actor was trained on; gives the history that it sees.
        seeds: One per episode.
        execute: Actions of a chunk that are run before it decides again.
        record: Record the frames of so many episodes, the first ones.
        max_steps: Control steps of an episode, instead of the environment's own limit.
        progress: Show a progress bar.

    Raises:
        ValueError: The environment differs from what the actor was trained on, or a number is out of range.
    """
    if not seeds or len(set(seeds)) != len(seeds):
        raise ValueError(f"The seeds are {list(seeds)}, expected at least one, each once.")
    games: list[_Game] = []
    try:
        for number, seed in enumerate(seeds):
            games.append(_Game(open_env(env, spec, execute, number < record, max_steps), seed))
        with isolate_rng():  # a head may draw from the global generators; training must not notice
            torch.manual_seed(seeds[0])
            if isinstance(actor, Enters):
                actor.enter({game.seed: game.env for game in games})
            actor.reset(seeds[0])
            _play(games, actor, max_steps or _limit(games[0].env), f"{env} rollouts", progress)
    finally:
        for game in games:
            game.env.close()
    columns = positions(spec)
    episodes = tuple(
        Episode(g.seed, g.score, g.score >= SUCCESS_REWARD, g.steps, mean_jerk(g.actions, columns, spec.rate_hz))
        for g in games
    )
    return RolloutResult(env, execute, episodes, {g.seed: np.stack(g.frames) for g in games[:record]})


def _play(games: Sequence[_Game], actor: Actor, limit: int, title: str, progress: bool) -> None:
    alive = list(games)
    with tqdm(total=len(games) * limit, desc=title, unit="step", disable=not progress, leave=False) as bar:
        while alive:
            seeds = np.array([game.seed for game in alive])
            seen = {**_stack([game.observation for game in alive]), "episode": {"seed": seeds}}
            chunks = np.asarray(actor.act(seen), dtype=np.float32)
            for game, chunk in zip(alive, chunks, strict=True):
                bar.update(game.step(chunk))
                if game.over:
                    bar.update(limit - game.steps)  # what it will not need, so that the time left stays right
            alive = [game for game in alive if not game.over]
            score = sum(game.score for game in games) / len(games)
            bar.set_postfix_str(f"{len(games) - len(alive)}/{len(games)} episodes, score {score:.2f}")


def frame_offsets(spec: DataSpec) -> tuple[int, ...]:
    """Give the steps of the history relative to now: (-8, 0) for 2 frames in 16 steps, (-12, -8, -4, 0) for 4."""
    return tuple(range(-(spec.frames - 1) * spec.stride, 1, spec.stride))


def open_env(
    name: str, spec: DataSpec, execute: int = 8, record: bool = False, max_steps: int | None = None
) -> RecedingHorizon:
    """Make an environment that shows what the data showed.

    Raises:
        ValueError: It cannot: cameras, pictures, proprioception or actions differ; or a number is out of range.
        ImportError: The simulator is not installed.
    """
    from uva_lightning import envs
    from uva_lightning.envs.receding_horizon import RecedingHorizon

    if not 1 <= execute <= spec.horizon:
        raise ValueError(f"execute is {execute}, expected 1 to {spec.horizon}, the actions in a chunk.")
    game = envs.make(name, spec.image_size)
    if max_steps is not None:
        from gymnasium.wrappers import TimeLimit

        if max_steps < 1:
            raise ValueError(f"max_steps is {max_steps}, expected at least 1 control step.")
        game = TimeLimit(game, max_steps)
    env = RecedingHorizon(game, execute, frame_offsets(spec), spec.horizon, record_every=int(record))
    try:
        _check_fits(env, name, spec)
    except BaseException:
        env.close()  # it may be a process that holds gigabytes
        raise
    return env


def _check_fits(env: RecedingHorizon, name: str, spec: DataSpec) -> None:
    observation, _ = env.reset()
    video, state = observation["video"], observation["state"]
    actions = env.action_space.shape or (0,)
    found: dict[str, Any] = {"cameras": tuple(video), "action width": actions[-1]}
    trained: dict[str, Any] = {"cameras": spec.cameras, "action width": spec.action_dim}
    for camera in set(spec.cameras) & set(video):
        what = f"picture size of camera '{camera}'"
        found[what], trained[what] = video[camera].shape[1:3], (spec.image_size, spec.image_size)
    for entry, width in spec.state_dims.items():
        what = f"width of state '{entry}'"
        found[what], trained[what] = state[entry].shape[-1] if entry in state else "none", width
    for what, value in trained.items():
        if found[what] != value:
            fix = "choose the environment that the model was trained for."
            raise ValueError(f"{name} has {what} {found[what]}, the model was trained with {value}; {fix}")


def _limit(env: RecedingHorizon) -> int:
    if env.spec is None or env.spec.max_episode_steps is None:
        raise ValueError("The environment has no limit of steps, expected one; give max_steps.")
    return int(env.spec.max_episode_steps)


def _stack(observations: Sequence[Observation]) -> Observation:
    return {
        kind: {name: np.stack([one[kind][name] for one in observations]) for name in entries}
        for kind, entries in observations[0].items()
    }
