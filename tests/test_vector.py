"""Environments in workers: the same episodes as in one process, whatever dies; official starts, to the last digit."""

from __future__ import annotations

import os
import signal
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("gymnasium")
pytest.importorskip("pymunk")
pytest.importorskip("shapely")
pytest.importorskip("cv2")

import pymunk

from uva_lightning import envs
from uva_lightning.datamodules.pusht import PushT
from uva_lightning.envs.games import Recipe, Start
from uva_lightning.envs.vector import EnvironmentFailed, Workers
from uva_lightning.evaluation.play import recipe_for, waves
from uva_lightning.rollouts import FIRST_TEST_SEED, run_rollouts

SPEC = replace(PushT.facts, frames=2)
SEEDS = range(FIRST_TEST_SEED, FIRST_TEST_SEED + 3)
RECIPE = Recipe("pusht", 96, 8, (-8, 0), 16)


class Wanderer:
    """Go somewhere else with each decision, by the seed of the episode."""

    def reset(self, seed):
        self.calls = 0

    def act(self, observation):
        self.calls += 1
        drawn = [np.random.default_rng((int(s), self.calls)) for s in observation["episode"]["seed"]]
        middle = observation["state"]["agent"][:, -1:]
        return (middle + np.stack([rng.uniform(-90, 90, (16, 2)) for rng in drawn])).astype(np.float32)


class Killer(Wanderer):
    """Kill workers in the middle of the episodes."""

    def __init__(self, workers, at):
        self.workers, self.at = workers, at

    def act(self, observation):
        if (at := self.calls) in self.at:
            os.kill(self.workers.processes[at % len(self.workers.processes)], signal.SIGKILL)
        return super().act(observation)


def played(workers, actor, beside=10, starts=None):
    starts = starts or [Start(seed, steps=60) for seed in SEEDS]
    recipe = recipe_for("pusht", SPEC, 8)
    return [game for wave in waves(workers, actor, recipe, starts, SEEDS[0], beside) for game in wave]


@pytest.fixture(scope="module")
def workers():
    with Workers(2) as several:
        yield several


def test_the_same_as_in_one_process(workers):
    expected = run_rollouts(Wanderer(), "pusht", SPEC, SEEDS, max_steps=60, record=1, progress=False)
    starts = [Start(seed, steps=60, film=seed == SEEDS[0]) for seed in SEEDS]
    games = played(workers, Wanderer(), starts=starts)
    assert tuple(game.episode(SPEC) for game in games) == expected.episodes
    np.testing.assert_array_equal(np.stack(games[0].frames), expected.frames[SEEDS[0]])
    assert games[1].frames == []
    assert tuple(game.episode(SPEC) for game in played(workers, Wanderer(), beside=2)) == expected.episodes


def test_a_killed_worker_loses_nothing():
    with Workers(2) as whole:
        expected = [game.episode(SPEC) for game in played(whole, Wanderer())]
        assert whole.crashes == 0
    with Workers(2) as workers:
        games = played(workers, Killer(workers, at=(0, 3, 5)))
        assert workers.crashes == 3
        assert [game.episode(SPEC) for game in games] == expected


@pytest.mark.slow
def test_a_worker_that_hangs_is_replaced():
    with Workers(1, patience_s=3.0) as workers:
        workers.begin(RECIPE, [Start(5)])
        os.kill(workers.processes[0], signal.SIGSTOP)
        stuck = workers.processes[0]
        seen = workers.step({0: np.full((16, 2), 200, np.float32)})
        assert (workers.crashes, seen[0].steps) == (1, 8)
        assert workers.processes[0] != stuck


def test_an_environment_that_always_dies_ends_with_a_sentence(monkeypatch):
    import uva_lightning.envs.vector as vector

    with Workers(1) as workers:
        workers.begin(RECIPE, [Start(5)])

        def launch(worker):
            worker.connection, other = vector.multiprocessing.get_context("spawn").Pipe()
            worker.process = vector.multiprocessing.get_context("spawn").Process(target=os._exit, args=(3,))
            worker.process.start()
            worker.answered = False
            other.close()

        monkeypatch.setattr(vector._Worker, "launch", launch)
        os.kill(workers.processes[0], signal.SIGKILL)
        with pytest.raises(EnvironmentFailed, match=r"worker of the episodes \[0\] died 4 times .* fewer workers"):
            workers.step({0: np.full((16, 2), 200, np.float32)})


def test_an_error_of_an_environment_is_told_and_the_worker_goes_on(workers):
    with pytest.raises(EnvironmentFailed, match="expected 5 finite numbers"):
        workers.begin(RECIPE, [Start(5, {"state": [1, 2]})])
    with pytest.raises(EnvironmentFailed, match="There is no environment 'hanoi'"):
        workers.begin(replace(RECIPE, env="hanoi"), [Start(5)])
    assert workers.begin(RECIPE, [Start(5)])[0].observation["video"]["top"].shape == (2, 96, 96, 3)


@pytest.mark.slow
def test_the_expert_of_an_environment_plays(workers):
    """Each action is decided after the one before, although it is asked for by chunks."""
    seen = workers.begin(RECIPE, [Start(3, expert=True)])[0]
    score = 0.0
    while not seen.over:
        seen = workers.step({0: np.zeros((16, 2), np.float32)})[0]
        score = max(score, seen.reward)
    assert score == 1.0


def official_start(seed):
    """Diffusion Policy's legacy rule, written with pymunk alone: position before angle, then one physics step."""
    random = np.random.RandomState(seed)
    state = np.array(
        [random.randint(50, 450), random.randint(50, 450), random.randint(100, 400), random.randint(100, 400)]
        + [random.randn() * 2 * np.pi - np.pi]
    )
    space = pymunk.Space()
    space.gravity, space.damping = (0, 0), 0
    for a, b in [((5, 506), (5, 5)), ((5, 5), (506, 5)), ((506, 5), (506, 506)), ((5, 506), (506, 506))]:
        space.add(pymunk.Segment(space.static_body, a, b, 2))
    agent = pymunk.Body(body_type=pymunk.Body.KINEMATIC)
    space.add(agent, pymunk.Circle(agent, 15))
    scale, length = 30, 4
    bar = [(-length * scale / 2, scale), (length * scale / 2, scale), (length * scale / 2, 0), (-length * scale / 2, 0)]
    stem = [(-scale / 2, scale), (-scale / 2, length * scale), (scale / 2, length * scale), (scale / 2, scale)]
    moment = pymunk.moment_for_poly(1, bar)
    block = pymunk.Body(1, moment + moment)
    shapes = [pymunk.Poly(block, bar), pymunk.Poly(block, stem)]
    block.center_of_gravity = (shapes[0].center_of_gravity + shapes[1].center_of_gravity) / 2
    space.add(block, *shapes)
    agent.position = tuple(state[:2])
    block.position = tuple(state[2:4])
    block.angle = state[4]
    space.step(0.01)
    return np.array([*agent.position, *block.position, block.angle % (2 * np.pi)])


def test_official_starts_are_reproduced():
    env = envs.make("pusht")
    for seed in range(FIRST_TEST_SEED, FIRST_TEST_SEED + 50):
        observation, info = env.reset(seed=seed)
        expected = official_start(seed)
        np.testing.assert_array_equal(observation["agent"], np.float32(expected[:2]))
        np.testing.assert_allclose(info["block"], expected[2:], rtol=0, atol=1e-9)
