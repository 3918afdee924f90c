"""Episodes of simulators in one worker process: made once, used for many episodes, asked by plain messages."""

from __future__ import annotations

import signal
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from multiprocessing.connection import Connection
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from uva_lightning import envs
from uva_lightning.envs.receding_horizon import History, RecedingHorizon
from uva_lightning.simulators.client import SimulatorDied

Chunk = NDArray[np.float32]
Order = tuple[Any, ...]

CANDIDATES = 100
"""Pushes that an expert tries before each decision, as in demonstrations."""


@dataclass(frozen=True)
class Recipe:
    """How an environment is made, and what it shows of the past.

    Args:
        env: Its name, as ``envs.make`` knows it.
        image_size: Side of its pictures in pixels.
        execute: Actions of a chunk that are run.
        frames: Steps of the history relative to now, see ``RecedingHorizon``.
        chunk: Actions in a chunk.
    """

    env: str
    image_size: int
    execute: int
    frames: tuple[int, ...]
    chunk: int


@dataclass(frozen=True)
class Start:
    """How an episode begins and ends.

    Args:
        seed: Seed of the environment.
        options: Options of its reset, such as a recorded state.
        steps: Control steps after which it ends, besides the environment's own limit.
        film: Record its frames.
        expert: Let the environment's own expert act instead of the chunks that are given.
    """

    seed: int
    options: Mapping[str, Any] | None = None
    steps: int | None = None
    film: bool = False
    expert: bool = False


@dataclass(frozen=True)
class Seen:
    """What came of a reset or of a chunk.

    Args:
        observation: Histories by kind and name, see ``RecedingHorizon``.
        reward: The largest of the chunk's steps; 0 after a reset.
        over: Whether the episode has ended.
        steps: Control steps that were run.
        frames: u8[H, W, 3] each, of an episode that is filmed.
    """

    observation: History
    reward: float = 0.0
    over: bool = False
    steps: int = 0
    frames: tuple[NDArray[np.uint8], ...] = ()


class Limit(gym.Wrapper[Any, Any, Any, Any]):
    """End an episode after ``steps`` control steps, if any are set; unlike a time limit it may change."""

    steps: int | None = None

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Start an episode."""
        self._done = 0
        return self.env.reset(seed=seed, options=options)

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Run a step."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        self._done += 1
        return observation, float(reward), terminated, truncated or self._done == self.steps, info


class _Guided:
    """A chunk that an expert decides step by step, each action after the one before was run."""

    def __init__(self, actions: Iterator[Any], length: int) -> None:
        self.actions, self.length = actions, length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, part: slice) -> Iterator[NDArray[np.float32]]:
        return (np.asarray(action, dtype=np.float32) for action in islice(self.actions, part.stop))


class Game:
    """One environment, with the episode that is played in it."""

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        self._limit = Limit(envs.make(recipe.env, recipe.image_size))
        self.env = RecedingHorizon(self._limit, recipe.execute, recipe.frames, recipe.chunk)

    def begin(self, start: Start) -> Seen:
        """Begin an episode."""
        self._limit.steps, self.env.record_every = start.steps, int(start.film)
        options = None if start.options is None else dict(start.options)
        observation, info = self.env.reset(seed=start.seed, options=options)
        self._expert = self._actions(start.seed) if start.expert else None
        return Seen(observation, frames=tuple(info.get("frames", ())))

    def step(self, chunk: Chunk) -> Seen:
        """Run a chunk, f32[k, a], or as many steps of the expert."""
        acted: Any = chunk if self._expert is None else _Guided(self._expert, self.recipe.chunk)
        observation, reward, terminated, truncated, info = self.env.step(acted)
        rewards = info["rewards"]
        return Seen(observation, reward, terminated or truncated, len(rewards), tuple(info.get("frames", ())))

    def close(self) -> None:
        """Close the simulator."""
        self.env.close()

    def _actions(self, seed: int) -> Iterator[Any]:
        demonstrate = getattr(self.env.unwrapped, "demonstrate", None)
        if demonstrate is None:
            raise ValueError(
                f"'{self.recipe.env}' has no expert that plays from its state, expected an environment with a method "
                "'demonstrate'; leave the baseline out."
            )
        actions: Iterator[Any] = demonstrate(CANDIDATES, seed)
        return actions


class Stage:
    """All games of a worker by their numbers; environments that are free are used again."""

    def __init__(self) -> None:
        self._games: dict[int, Game] = {}
        self._free: list[Game] = []

    def __call__(self, order: Order) -> Seen | None:
        """Carry out an order: the number of an episode, ``begin``, ``step`` or ``leave``, and its arguments."""
        number, verb, *given = order
        verbs: dict[str, Callable[..., Seen | None]] = {"begin": self.begin, "step": self.step, "leave": self.leave}
        return verbs[verb](number, *given)

    def begin(self, number: int, recipe: Recipe, start: Start) -> Seen:
        """Begin the episode ``number``; one of that number that is under way is given up."""
        self.leave(number)
        same = [game for game in self._free if game.recipe == recipe]
        if same:
            self._free.remove(same[0])
        else:  # nobody goes back to an earlier kind of environment, and some take gigabytes
            for game in self._free:
                game.close()
            self._free = []
        self._games[number] = same[0] if same else Game(recipe)
        return self._games[number].begin(start)

    def step(self, number: int, chunk: Chunk) -> Seen:
        """Run a chunk of an episode; the environment of one that has ended is free."""
        seen = self._games[number].step(chunk)
        if seen.over:
            self.leave(number)
        return seen

    def leave(self, number: int) -> None:
        """Give an episode up."""
        if (game := self._games.pop(number, None)) is not None:
            self._free.append(game)

    def close(self) -> None:
        """Close all environments."""
        for game in (*self._games.values(), *self._free):
            game.close()


def serve(connection: Connection) -> None:
    """Run in a worker: take two lists of ``(number, verb, *arguments)``, answer with what came of the second one.

    The first one repeats what a worker that died had done. An error is answered with its words, and the worker goes on.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides
    stage = Stage()
    try:
        while True:
            past, orders = connection.recv()
            try:
                for order in past:
                    stage(order)
                connection.send([stage(order) for order in orders])
            except SimulatorDied:  # as if this process had died: another one takes its place
                break
            except Exception as error:
                plain = isinstance(error, ValueError | ImportError)
                connection.send(str(error) if plain else traceback.format_exc())
    except (EOFError, OSError):  # the parent is gone
        pass
    finally:
        stage.close()
