"""Simulators behind one gymnasium interface, by name: ``make("pusht")``.

Importing this package registers them with gymnasium, such as ``uva_lightning/pusht``; the physics are imported when an
environment is made.
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

try:
    import gymnasium as gym
except ImportError as error:  # pragma: no cover - depends on the installation
    raise ImportError(
        f"The simulators need gymnasium ({error}); install it with pip install 'uva_lightning[sim]'."
    ) from error

NAMESPACE = "uva_lightning/"


@dataclass(frozen=True)
class Entry:
    """An environment.

    Args:
        kind: Its class, ``module:Class`` in this package.
        max_steps: Length limit of an episode in control steps.
        arguments: What makes the variant.
        score: Makes the reward that a planner reads off imagined frames, ``module:Class``; None where the goal differs
            between episodes.
        score_arguments: Its arguments.
        tasks: Tasks that it has, each an environment of its own: ``name/0`` and so on; 0 where there is only one.
    """

    kind: str
    max_steps: int
    arguments: Mapping[str, Any] = field(default_factory=dict)
    score: str | None = None
    score_arguments: Mapping[str, Any] = field(default_factory=dict)
    tasks: int = 0


MAX_STEPS = 300
"""Length limit of a Push-T episode in control steps, as in Diffusion Policy."""
BLOCK_PUSH_STEPS = 200
"""Length limit of an episode of block pushing; the expert needs 72 to 112 control steps for both blocks."""


def _block_push(block: str, square: str) -> Entry:
    asked = {"goal": f"{block}-{square}"}
    return Entry("block_push:BlockPush", BLOCK_PUSH_STEPS, asked, "block_push_goal:BlockPushGoal", asked)


LIBERO = {"libero_spatial": 10, "libero_object": 10, "libero_goal": 10, "libero_10": 10, "libero_90": 90}
"""Suites of LIBERO, and their tasks."""
LIBERO_STEPS, TOOL_HANG_STEPS = 600, 700
"""Length limits in control steps: LIBERO's own evaluation, and UVA's of Tool Hang."""


def _libero(suite: str, tasks: int) -> Entry:
    return Entry("manipulation:Libero", LIBERO_STEPS, {"suite": suite}, tasks=tasks)


ENVS: dict[str, Entry] = {
    "pusht": Entry("pusht:PushT", MAX_STEPS, {"random_goal": False}, "pusht_goal:PushTGoal"),
    "pusht_m": Entry("pusht:PushT", MAX_STEPS, {"random_goal": True}),
    "block_push": Entry("block_push:BlockPush", BLOCK_PUSH_STEPS),
    "block_push_scattered": Entry("block_push:BlockPush", BLOCK_PUSH_STEPS, {"scatter": 0.5}),
    "block_push_careless": Entry("block_push:BlockPush", BLOCK_PUSH_STEPS, {"scatter": 0.5, "careless": 0.5}),
    **{name: _libero(name, tasks) for name, tasks in LIBERO.items()},
    "toolhang": Entry("manipulation:ToolHang", TOOL_HANG_STEPS),
    **{f"block_push_{block}{square}".lower(): _block_push(block, square) for block in "RG" for square in "RG"},
}
"""Environments by name. ``block_push`` asks for both blocks, ``block_push_rg`` for the red block in the green square;
``block_push_scattered`` is for demonstrations: half of its episodes start with everything anywhere; in
``block_push_careless`` the expert also plays half of its actions blindly. ``libero_10/3`` is the fourth task of
LIBERO-10; it and ``toolhang`` run in environments that ``uva env install`` makes."""

for _name, _entry in ENVS.items():
    if NAMESPACE + _name not in gym.registry:
        gym.register(
            NAMESPACE + _name,
            f"{__name__}.{_entry.kind}",
            max_episode_steps=_entry.max_steps,
            kwargs=dict(_entry.arguments),
        )


def make(name: str, image_size: int = 96) -> gym.Env[Any, Any]:
    """Make an environment with its time limit.

    Args:
        name: One of ``ENVS``, with or without the prefix ``uva_lightning/``; where there are tasks the number of one
            after a slash, ``libero_10/3``; after a colon a change of what it looks
            like, ``pusht:goal_color``, see ``uva_lightning.envs.perturb``.
        image_size: Side of the rendered picture in pixels.

    Raises:
        ValueError: There is no environment of this name, or no such change.
        ImportError: The simulator is not installed.
    """
    whole, _, change = name.removeprefix(NAMESPACE).partition(":")
    short, _, task = whole.partition("/")
    if short not in ENVS:
        near = difflib.get_close_matches(short, ENVS, n=1)
        hint = f"; did you mean '{near[0]}'?" if near else "."
        raise ValueError(f"There is no environment '{name}', only {', '.join(ENVS)}{hint}")
    env = gym.make(NAMESPACE + short, image_size=image_size, render_mode="rgb_array", **_task(short, task))
    if not change:
        return env
    from uva_lightning.envs.perturb import perturbed

    return perturbed(env, short, change)


def _task(name: str, task: str) -> dict[str, Any]:
    """Give the argument that names a task."""
    count = ENVS[name].tasks
    if not count and not task:
        return {}
    if not task.isdigit() or int(task) >= count:
        expected = f"one of {name}/0 to {name}/{count - 1}" if count else f"'{name}', which has no tasks"
        raise ValueError(f"There is no environment '{name}{'/' if task else ''}{task}', expected {expected}.")
    return {"task": int(task)}


def goal_score(name: str) -> Any:
    """Give the reward that a planner reads off imagined frames of an environment.

    Raises:
        ValueError: The environment has none, since its goal differs between episodes.
    """
    entry = ENVS.get(name.partition(":")[0])
    if entry is None or entry.score is None:
        raise ValueError(f"'{name}' has no fixed goal to score imagined frames by; pass a score of your own.")
    module, kind = entry.score.split(":")
    return getattr(importlib.import_module(f"{__name__}.{module}"), kind)(**entry.score_arguments)
