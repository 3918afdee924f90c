"""``uva functions``: does each of the five functions of a checkpoint beat the honest baseline beside it?"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from uva_lightning.commands.checks import check_data, chosen_device
from uva_lightning.commands.rollout import run_folder
from uva_lightning.metrics.comparison import Comparison, HeldOut, video_functions
from uva_lightning.model.checkpoint import before_training, load_module
from uva_lightning.module import UVAModule
from uva_lightning.policy.planner import Planner
from uva_lightning.policy.unipi import UniPi
from uva_lightning.policy.windows import WindowPolicy
from uva_lightning.results import versions, write_json
from uva_lightning.rollouts import FIRST_TEST_SEED, Actor, ConstantAction, HoldPosition, RolloutResult, run_rollouts

RESULTS = "results.json"
LEAST_SCORE = 0.55
"""A Push-T policy below this mean of the maximum reward has not learnt the task; doing nothing gives 0.1 to 0.15."""
PLANNING_TOLERANCE = 0.01
"""Mean reward that the planner may lose to one proposal; the interval of the difference must not lie below zero."""
PLANNING_FACTOR = 2
"""The planner plays so many times the starts of the policy, since its gain is small."""
FILMS = 4


def functions(
    ckpt: Path,
    out: Path | None = None,
    data: Path | None = None,
    env: str = "pusht",
    episodes: int = 50,
    seed: int = FIRST_TEST_SEED,
    windows: int = 512,
    proposals: int = 8,
    device: str = "cpu",
    set: str | None = None,
) -> dict[str, Any]:
    """Measure every function of a checkpoint on held-out episodes and unseen starts.

    Args:
        ckpt: Checkpoint.
        out: Folder for ``results.json``, pictures and videos; that of the run if not given.
        data: Data to take held-out windows from; those of the training if not given.
        env: Environment for the rollouts.
        episodes: Rollouts per actor.
        seed: Seed of the first rollout.
        windows: Held-out windows.
        proposals: Action chunks that the planner chooses from.
        device: Where the model runs.
        set: Data set of a mixture that is like the environment; the only one with actions if not given.

    Returns:
        What ``results.json`` holds.
    """
    from uva_lightning.report import show

    check_data(data)
    where = chosen_device(device)
    module, every = load_module(ckpt)
    source = every.chosen(set)
    if data is not None:
        source.move_to(data)
    held_out, recorded = HeldOut.from_data(source, windows), source.store.action
    if recorded is None:
        raise ValueError(f"{source.path} has no actions, expected recordings of a robot; set --data to such.")
    policy = _policy(module, where, set)
    seeds = range(seed, seed + episodes)
    rows, single = _acting(ckpt, policy, recorded, env, seeds, proposals)
    order = ("robot policy", "video model", "forward dynamics", "inverse dynamics", "policy + planner")
    rows |= video_functions(policy, held_out)
    results = {
        "functions": {name: rows[name].row() for name in order},
        "env": env,
        "seeds": list(seeds),
        "checkpoint": str(ckpt),
        "versions": versions(),
    }
    run = run_folder(ckpt)
    out = out or run
    write_json(out / RESULTS, results)
    show(run, out, results, policy, held_out, single.frames)
    return results


def _acting(
    ckpt: Path, policy: WindowPolicy, actions: NDArray[np.float32], env: str, seeds: range, proposals: int
) -> tuple[dict[str, Comparison], RolloutResult]:
    """Roll out the policy, the planner and what they must beat, from the same starts."""
    from uva_lightning.envs import goal_score

    spec = policy.spec

    def play(actor: Actor, starts: range, record: int = 0) -> RolloutResult:
        return run_rollouts(actor, env, spec, starts, record=record)

    def scores(result: RolloutResult) -> NDArray[np.float64]:
        return np.array([episode.score for episode in result.episodes])

    first = play(policy, seeds, FILMS)
    more = range(seeds.start, seeds.start + PLANNING_FACTOR * len(seeds))
    single, score = play(policy, more), goal_score(env)
    typical, planned = (play(Planner(policy, score, proposals, margin), more) for margin in (math.inf, None))
    video_first = play(UniPi(policy), seeds)
    baselines = {
        "hold position": play(HoldPosition(next(iter(spec.state_dims)), spec.horizon), seeds),
        "untrained model": play(_policy(before_training(ckpt), str(policy.module.device), policy.set), seeds),
        "mean action": play(ConstantAction.mean(actions, spec.horizon), seeds),
    }
    reward = "mean of the maximum reward, {} starts"
    values = {name: scores(result) for name, result in baselines.items()}
    planner = reward.format(len(more)) + f", best of {proposals} proposals"
    return {
        "robot policy": Comparison(
            reward.format(len(seeds)),
            scores(first),
            values,
            least=LEAST_SCORE,
            beside={"video first, then inverse dynamics, as UniPi": scores(video_first)},
        ),
        "policy + planner": Comparison(
            planner,
            scores(planned),
            {"one proposal": scores(single)},
            tolerance=PLANNING_TOLERANCE,
            beside={"most typical proposal, without imagination": scores(typical)},
        ),
    }, first


def _policy(module: UVAModule, device: str, name: str | None) -> WindowPolicy:
    return WindowPolicy(module.to(device).eval(), dtype=torch.bfloat16, set=name)
