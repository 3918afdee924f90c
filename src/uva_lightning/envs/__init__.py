"""Simulators behind one gymnasium interface, by name: ``make("pusht")``.

Importing this package registers ``uva_lightning/pusht`` and ``uva_lightning/pusht_m`` with gymnasium; the physics are
imported when an environment is made.
"""

from __future__ import annotations

import difflib
from typing import Any

try:
    import gymnasium as gym
except ImportError as error:  # pragma: no cover - depends on the installation
    raise ImportError(
        f"The simulators need gymnasium ({error}); install it with pip install 'uva_lightning[sim]'."
    ) from error

NAMESPACE = "uva_lightning/"
ENVS: dict[str, dict[str, Any]] = {"pusht": {"random_goal": False}, "pusht_m": {"random_goal": True}}
"""Environments by name, with the arguments that make the variant."""
MAX_STEPS = 300
"""Length limit of a Push-T episode in control steps, as in Diffusion Policy."""

for _name, _arguments in ENVS.items():
    if NAMESPACE + _name not in gym.registry:
        gym.register(
            NAMESPACE + _name, "uva_lightning.envs.pusht:PushT", max_episode_steps=MAX_STEPS, kwargs=_arguments
        )


def make(name: str, image_size: int = 96) -> gym.Env[Any, Any]:
    """Make an environment with its time limit.

    Args:
        name: ``pusht`` or ``pusht_m``, with or without the prefix ``uva_lightning/``.
        image_size: Side of the rendered picture in pixels.

    Raises:
        ValueError: There is no environment of this name.
        ImportError: The simulator is not installed.
    """
    short = name.removeprefix(NAMESPACE)
    if short not in ENVS:
        near = difflib.get_close_matches(short, ENVS, n=1)
        hint = f"; did you mean '{near[0]}'?" if near else "."
        raise ValueError(f"There is no environment '{name}', only {', '.join(ENVS)}{hint}")
    return gym.make(NAMESPACE + short, image_size=image_size, render_mode="rgb_array")


def goal_score(name: str) -> Any:
    """Give the reward that a planner reads off imagined frames of an environment.

    Raises:
        ValueError: The environment has none, since its goal differs between episodes.
    """
    from uva_lightning.envs.pusht_goal import PushTGoal

    if ENVS.get(name, {}).get("random_goal", True):
        raise ValueError(f"'{name}' has no fixed goal to score imagined frames by; pass a score of your own.")
    return PushTGoal()
