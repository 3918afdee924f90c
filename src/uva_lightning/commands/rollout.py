"""``uva rollout``: run a checkpoint in simulated environments and say how well it does."""

from __future__ import annotations

import os
import re
import shlex
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from uva_lightning.commands.checks import check_least, chosen_device
from uva_lightning.commands.errors import UserError
from uva_lightning.model.checkpoint import load_module
from uva_lightning.model.stored import weights_file
from uva_lightning.policy.acting import Acting
from uva_lightning.policy.planner import Planner  # noqa: F401 - may be named as actor
from uva_lightning.policy.search import CrossEntropy  # noqa: F401 - may be named as proposals
from uva_lightning.policy.success import SuccessHead  # noqa: F401 - may be named as reward
from uva_lightning.policy.told import Told, embedded
from uva_lightning.policy.unipi import UniPi  # noqa: F401 - may be named as actor
from uva_lightning.policy.windows import WindowPolicy
from uva_lightning.results import sha256, write_json
from uva_lightning.rollouts import FIRST_TEST_SEED, Actor, RolloutResult, run_rollouts
from uva_lightning.video_files import safe, write_mp4

if TYPE_CHECKING:
    from uva_lightning.datamodules.training_data import TrainingData
    from uva_lightning.serving.keys import Target

RESULTS = "results.json"
TOKEN = "UVA_TOKEN"
"""Environment variable with a policy server's token, so that it stands in no list of processes."""
CHECKPOINTS = "checkpoints"


def rollout(
    ckpt: Path | None = None,
    env: str = "pusht",
    episodes: int = 50,
    seed: int = FIRST_TEST_SEED,
    out: Path | None = None,
    videos: int = 4,
    execute: int = 8,
    device: str = "auto",
    set: str | None = None,
    policy: str | None = None,
    keys: dict[str, str | list[str]] | None = None,
    prompt: str = "",
    actor: Callable[[WindowPolicy], Acting] | None = None,
) -> None:
    """Run a checkpoint, or a policy server, in simulated environments; writes results.json and films.

    A server that asks for a token gets the value of the environment variable UVA_TOKEN.

    Args:
        ckpt: Checkpoint of a training run, or folder of uva import-checkpoint.
        env: Environment, such as pusht.
        episodes: Number of episodes.
        seed: Seed of the first episode; the others count up.
        out: Folder for the results; rollouts/CHECKPOINT_ENV in the run's folder where left out.
        videos: Number of episodes to film.
        execute: Actions of each chunk that are run before the policy decides again.
        device: Where the model runs; auto takes the GPU where there is one.
        set: Data set of a mixture that is like the environment; the only one with actions where left out.
        policy: Instead of a checkpoint, address of a policy server, ws://HOST:PORT, ours or one of openpi's protocol.
        keys: For a server that is not ours, our names of pictures and states by its names, as JSON.
        prompt: Instruction, for a policy server and for a model that was trained with instructions.
        actor: How a checkpoint acts, Planner or UniPi, with options such as --actor.proposals CrossEntropy; as robot
            policy where left out. docs/planning.md has examples.
    """
    check_least(1, episodes=episodes)
    check_least(0, videos=videos, seed=seed)
    if (ckpt is None) == (policy is None):
        given = "neither" if ckpt is None else "both"
        raise UserError(f"{given} of ckpt and policy given, expected one: --ckpt FILE or --policy ws://HOST:PORT.")
    seeds = range(seed, seed + episodes)
    if policy is not None and actor is not None:
        raise UserError("actor is given with policy, expected a checkpoint with it: a server says only what to do.")
    if policy is not None:
        result, source, rate_hz = _remote(policy, keys, prompt, env, seeds, execute, videos)
        out = out or Path("rollouts") / f"{re.sub('[^A-Za-z0-9.]+', '_', policy)}_{safe(env)}"
    else:
        assert ckpt is not None  # for the type checker
        find_checkpoint(ckpt)
        model, acting, how = _loaded(ckpt, chosen_device(device), seed, set, actor, prompt)
        result, rate_hz = run_rollouts(acting, env, model.spec, seeds, execute, videos), model.spec.rate_hz
        out = out or run_folder(ckpt) / "rollouts" / f"{ckpt.stem}_{safe(env)}{how}"
        source = {"checkpoint": named_weights(ckpt)}
    for number, frames in result.frames.items():
        write_mp4(out / f"{safe(env)}_{number}.mp4", frames, rate_hz)
    command = shlex.join(["uva", *sys.argv[1:]])
    told = {"prompt": prompt} if prompt else {}
    write_json(out / RESULTS, {**result.record(), **source, **told, "command": command})
    sys.stdout.write(summary(result) + f"\nresults and {len(result.frames)} films: {out}\n")


def _loaded(
    ckpt: Path,
    device: str,
    seed: int,
    set: str | None,
    actor: Callable[[WindowPolicy], Acting] | None,
    prompt: str,
) -> tuple[WindowPolicy, Actor, str]:
    """Rebuild the model of a checkpoint; gives it, what acts, and the end of its results' name."""
    module, data = load_module(ckpt)
    model = WindowPolicy(module.to(device).eval(), seed, set=set)
    acting = None if actor is None else actor(model)
    how = "" if acting is None else f"_{type(acting).__name__}"
    return model, _told(acting or model, model, data, prompt), how


def _told(actor: Actor, model: WindowPolicy, data: TrainingData, prompt: str) -> Actor:
    """Let the actor of a model hear the prompt, where it was trained with instructions."""
    hears = bool(model.spec.text_dim)
    if hears != bool(prompt):
        fix = "say what to do: --prompt 'put the cup down'" if hears else "leave --prompt out"
        raise UserError(
            f"The model was trained {'with' if hears else 'without'} instructions, prompt is {prompt!r}; {fix}."
        )
    if not hears:
        return actor
    text = data.chosen(model.set).text
    if text is None:
        raise UserError("The checkpoint's config has no data.text, expected what embeds instructions; train with one.")
    return Told(actor, embedded(text, prompt))


def _remote(
    url: str, keys: Mapping[str, Target] | None, prompt: str, env: str, seeds: range, execute: int, videos: int
) -> tuple[RolloutResult, dict[str, Any], float]:
    """Play by a policy server; gives the result, what it is of, and the control rate in Hz."""
    from uva_lightning.envs.contract import contract_with
    from uva_lightning.serving.remote import RemoteActor

    actor = RemoteActor(url, execute, os.environ.get(TOKEN, ""), keys, prompt)
    spec = actor.contract or contract_with(env, execute)
    try:
        result = run_rollouts(actor, env, spec, seeds, execute, videos)
    finally:
        actor.reset(0)
    return result, {"policy": {"url": url, "server": actor.metadata.get("server", "unknown")}}, spec.rate_hz


def summary(result: RolloutResult) -> str:
    """Give one line, and a table of the measures."""
    count, worst = len(result.episodes), min(result.episodes, key=lambda episode: episode.score)
    rows = [
        ("measure", "value", "95 % interval"),
        ("mean of the maximum reward", f"{result.score:.3f}", "{:.3f} to {:.3f}".format(*result.score_interval)),
        ("share of solved episodes", f"{result.success:.3f}", "{:.3f} to {:.3f}".format(*result.success_interval)),
        ("control steps, mean", f"{sum(e.steps for e in result.episodes) / count:.0f}", ""),
        ("lowest maximum reward", f"{worst.score:.3f}", f"(seed {worst.seed})"),
    ]
    table = "\n".join(f"  {name:<30}{value:>8}   {interval}".rstrip() for name, value, interval in rows)
    first, last = result.episodes[0].seed, result.episodes[-1].seed
    return (
        f"{result.env}: score {result.score:.3f} over {count} episodes (seeds {first} to {last}), "
        f"{result.successes} solved\n{table}"
    )


def run_folder(ckpt: Path) -> Path:
    """Give the folder of the run that wrote a checkpoint, or that was imported."""
    if ckpt.is_dir():
        return ckpt.resolve()
    folder = ckpt.resolve().parent
    return folder.parent if folder.name == CHECKPOINTS else folder


def named_weights(ckpt: Path) -> dict[str, str]:
    """Say in results which weights they are of: where they lie, and their hash."""
    return {"path": str(ckpt.resolve()), "sha256": sha256(weights_file(ckpt))}


def find_checkpoint(ckpt: Path) -> None:
    """Refuse a path without a file, and name the newest checkpoint nearby."""
    if weights_file(ckpt).is_file():
        return
    place = ckpt
    while not place.is_dir():
        place = place.parent
    found = [] if place == Path(place.anchor) else sorted(place.glob("**/*.ckpt"), key=lambda p: p.stat().st_mtime)
    near = f"the newest below {place} is {found[-1]}." if found else "`uva fit` writes one into its run folder."
    raise UserError(f"There is no checkpoint {ckpt}, expected a file; {near}")
