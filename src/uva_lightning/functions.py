"""``uva functions``: does each of the five functions of a checkpoint beat the honest baseline beside it?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from uva_lightning.metrics.comparison import Comparison, HeldOut, video_functions
from uva_lightning.model.checkpoint import build, load_module, read
from uva_lightning.policy.planner import Planner
from uva_lightning.policy.policy import UVAPolicy
from uva_lightning.results import versions, write_json
from uva_lightning.rollouts import FIRST_TEST_SEED, Actor, ConstantAction, HoldPosition, run_rollouts

RESULTS = "results.json"


def functions(
    ckpt: Path,
    out: Path | None = None,
    data: Path | None = None,
    env: str = "pusht",
    episodes: int = 50,
    seed: int = FIRST_TEST_SEED,
    windows: int = 512,
    proposals: int = 8,
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

    Returns:
        What ``results.json`` holds.
    """
    from uva_lightning.report import show

    out = out or ckpt.parent.parent
    module, source = load_module(ckpt)
    if data is not None:
        source.path = data
    source.pad, source.generate = (0, 0), None  # every frame of a window is a real one, and nothing is made up
    source.setup("validate")
    held_out = HeldOut.of(iter(source.val_dataloader()), windows)
    policy = UVAPolicy(module, dtype=torch.bfloat16)
    untrained = UVAPolicy(_untrained(ckpt), dtype=torch.bfloat16)
    seeds = range(seed, seed + episodes)

    def score(actor: Actor, record: int = 0) -> tuple[NDArray[np.float64], Any]:
        result = run_rollouts(actor, env, module.spec, seeds, record=record)
        return np.array([episode.score for episode in result.episodes]), result.frames

    from uva_lightning.envs import goal_score

    single, videos = score(policy, record=4)
    planned, _ = score(Planner(policy, goal_score(env, module.spec.image_size), proposals))
    state = next(iter(module.spec.state_dims))
    baselines = {
        "hold position": score(HoldPosition(state, module.spec.horizon))[0],
        "untrained model": score(untrained)[0],
        "mean action": score(ConstantAction.mean(source.store.action, module.spec.horizon))[0],
    }
    reward = f"mean of the maximum reward, {episodes} starts"
    comparisons = {
        "robot policy": Comparison(reward, single, baselines),
        **video_functions(policy, held_out),
        "policy + planner": Comparison(
            f"{reward}, best of {proposals} proposals", planned, {"one proposal": single}, ties_count=True
        ),
    }
    results = {
        "functions": {name: comparison.row() for name, comparison in comparisons.items()},
        "env": env,
        "seeds": list(seeds),
        "checkpoint": str(ckpt),
        "versions": versions(),
    }
    write_json(out / RESULTS, results)
    show(out, results, policy, held_out, videos)
    return results


def _untrained(ckpt: Path) -> Any:
    """The same model before its first step, with what was fitted on the data."""
    checkpoint = read(ckpt)
    module, _ = build(checkpoint["config"])
    module.on_load_checkpoint(checkpoint)
    return module.eval()
