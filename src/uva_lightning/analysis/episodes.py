"""Episodes for probes: the environment's own expert plays, and the true state is written down at every step."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from uva_lightning.analysis.probe import CONTACT, POSE, ROBOT, VELOCITY, Target
from uva_lightning.evaluation.journal import key_of
from uva_lightning.policy.windows import WindowObservation
from uva_lightning.results import versions
from uva_lightning.rollouts import frame_offsets, open_env
from uva_lightning.types import DataSpec
from uva_lightning.whole_files import whole

FIRST_PROBE_SEED = 300_000
"""Seed of the first episode; demonstrations, rollouts in training and test episodes use lower ones."""
CANDIDATES = 100
"""Pushes that Push-T's expert tries before each decision, as in demonstrations."""
EVERY = 8
"""Steps from one window to the next."""
LONGEST = 300
"""Control steps of an episode at most, where the environment has no limit."""
AHEAD = ", ahead"
"""How the names of targets at the end of the horizon end."""

Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Windows:
    """Histories, as a policy sees them, with the true state.

    Args:
        observation: Of ``n`` windows.
        targets: True state at the last step of the history, and at the end of the horizon.
        episodes: i64[n].
    """

    observation: WindowObservation
    targets: tuple[Target, ...]
    episodes: NDArray[np.int64]


def record(env: str, spec: DataSpec, seed: int) -> dict[str, NDArray[Any]]:
    """Play one episode.

    Returns:
        ``frames`` u8[T, H, W, 3], ``state/NAME`` f32[T, p], ``target/NAME`` f64[T, k] and its group, ``group/NAME``.

    Raises:
        ValueError: The environment has no expert, or does not tell its state.
    """
    from uva_lightning import envs
    from uva_lightning.demos import Demonstrable
    from uva_lightning.envs.probing import Probed

    game = envs.make(env, spec.image_size)
    inner: Any = game.unwrapped
    if not isinstance(inner, Probed) or not isinstance(inner, Demonstrable):
        raise ValueError(
            f"'{env}' cannot be probed: {type(inner).__name__} lacks probe_targets (uva_lightning.envs.probing) or "
            "demonstrate, expected both of an environment whose state is asked for; add them."
        )
    observation, _ = game.reset(seed=seed)
    rows = []
    for target in islice(inner.demonstrate(CANDIDATES, seed), LONGEST):
        state = {f"state/{name}": observation[name] for name in spec.state_dims}
        truth = {f"target/{name}": np.asarray(value, np.float64) for name, value in inner.probe_targets().items()}
        rows.append({"frames": np.asarray(game.render(), np.uint8), **state, **truth})
        observation, _, solved, out_of_time, _ = game.step(np.asarray(target, np.float32))
        if solved or out_of_time:
            break
    game.close()
    arrays = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
    for name in inner.probed_moving:
        arrays[f"target/{_velocity(name)}"] = velocity(arrays[f"target/{name}"], spec.rate_hz)
    kinds = dict.fromkeys(map(_velocity, inner.probed_moving), VELOCITY) | dict.fromkeys(inner.probed_flags, CONTACT)
    kinds |= dict.fromkeys(inner.probed_robot, ROBOT)
    names = [name.partition("/")[2] for name in arrays if name.startswith("target/")]
    return {**arrays, **{f"group/{name}": np.array(kinds.get(name, POSE)) for name in names}}


def velocity(positions: NDArray[np.float64], rate_hz: float) -> NDArray[np.float64]:
    """Give differences to the step before, f64[T, k] per s; an episode begins at rest."""
    return np.diff(positions, axis=0, prepend=positions[:1]) * rate_hz


def recorded(
    folder: Path, env: str, spec: DataSpec, episodes: int, tell: Callable[[int], object] = lambda count: None
) -> list[dict[str, NDArray[Any]]]:
    """Play episodes, or read them where an earlier call has played them.

    Args:
        folder: Where they are kept, one file each.
        env: Environment.
        spec: What is seen of it.
        episodes: How many.
        tell: Told 1 after each.

    Raises:
        ValueError: See ``record``; or the environment differs from what the model was trained on.
    """
    open_env(env, spec).close()
    libraries = {name: versions()[name] for name in ("pymunk", "numpy")}
    facts = {"env": env, "size": spec.image_size, "states": dict(spec.state_dims), "rate": spec.rate_hz, **libraries}
    found = []
    for seed in range(FIRST_PROBE_SEED, FIRST_PROBE_SEED + episodes):
        file = folder / f"{key_of({**facts, 'seed': seed})}.npz"
        if not file.exists():
            with whole(file) as part, part.open("wb") as opened:
                np.savez_compressed(opened, allow_pickle=False, **record(env, spec, seed))
        with np.load(file, allow_pickle=False) as arrays:
            found.append(dict(arrays))
        tell(1)
    return found


def cut(episodes: list[dict[str, NDArray[Any]]], spec: DataSpec, every: int = EVERY) -> Windows:
    """Cut windows out of episodes; the past of a start is the start, as in rollouts.

    Args:
        episodes: See ``record``.
        spec: What a window holds.
        every: Steps from one window to the next.

    Raises:
        ValueError: No episode is longer than the horizon.
    """
    offsets = np.array(frame_offsets(spec))
    steps = offsets if spec.proprio_steps == spec.frames else np.arange(1 - spec.horizon, 1)
    now = [np.arange(0, len(one["frames"]) - spec.horizon, every) for one in episodes]
    number = np.repeat(np.arange(len(episodes)), [len(at) for at in now])
    if not len(number):
        longest = max(len(one["frames"]) for one in episodes)
        raise ValueError(
            f"The longest of {len(episodes)} episodes has {longest} steps, expected more than the {spec.horizon} of "
            "the horizon; set --probes to more."
        )

    def gather(name: str, offset: NDArray[np.int64]) -> NDArray[Any]:
        parts = [one[name][np.maximum(at[:, None] + offset, 0)] for one, at in zip(episodes, now, strict=True)]
        return np.concatenate(parts)

    names = [name.partition("/")[2] for name in episodes[0] if name.startswith("target/")]
    targets = [
        Target(name + ending, gather(f"target/{name}", np.array([step]))[:, 0], str(episodes[0][f"group/{name}"]))
        for step, ending in ((0, ""), (spec.horizon, AHEAD))
        for name in names
    ]
    observation = {
        "video": {spec.cameras[0]: gather("frames", offsets)},
        "state": {name: gather(f"state/{name}", steps) for name in spec.state_dims},
    }
    return Windows(observation, tuple(targets), number)


def _velocity(name: str) -> str:
    return f"{name.removesuffix(' position')} velocity"
