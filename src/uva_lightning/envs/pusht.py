"""Push-T as a gymnasium environment: push the T onto the green goal.

Physics, starts, reward and pictures equal those of Diffusion Policy (Chi et al., 2023) and UVA (Li et al., 2025). The
goal is fixed (Push-T) or drawn for each episode (Push-T-M); the draw follows the seed of the episode, unlike UVA's.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from uva_lightning.envs.look import Look
from uva_lightning.envs.pusht_draw import USUAL, draw
from uva_lightning.envs.pusht_expert import PushTExpert
from uva_lightning.envs.pusht_world import CONTROL_HZ, GOAL, WORLD_SIZE, PushTWorld, Snapshot
from uva_lightning.envs.resets import episode_seed, known_options

SUCCESS_COVERAGE = 0.95
GOAL_REACH = 100.0
"""Largest distance of a random goal from the centre, along each axis, in px."""

Observation = dict[str, NDArray[np.float32]]

_OPTIONS = ("state", "goal")


class PushT(gym.Env[Any, Any]):
    """Push the T with a round agent that is pulled to a target at 10 Hz.

    Action: f32[2], absolute target of the agent in px, in [0, 512]. Observation: ``agent`` f32[2], its position in px.
    Reward: coverage of the goal divided by 0.95, clipped to [0, 1]; an episode ends above 0.95 coverage. The picture
    comes from ``render``, so that one pays only for the frames one looks at.

    ``info`` holds ``block`` and ``goal`` f64[3] (x, y in px, angle in rad), ``coverage`` and ``success``.

    Args:
        image_size: Side of the rendered picture in pixels.
        random_goal: Draw the goal from the seed of each episode (Push-T-M) instead of keeping the standard one.
        render_mode: ``rgb_array`` or nothing; both render pictures.
        look: Colours and things that do not matter to the task.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": CONTROL_HZ}
    recorded: ClassVar[tuple[str, ...]] = ("block",)
    recorded_once: ClassVar[tuple[str, ...]] = ("goal",)
    probed_moving: ClassVar[tuple[str, ...]] = ("agent position", "block position")
    probed_flags: ClassVar[tuple[str, ...]] = ("contact",)
    probed_robot: ClassVar[tuple[str, ...]] = ("agent position",)

    def __init__(
        self,
        image_size: int = 96,
        random_goal: bool = False,
        render_mode: str | None = "rgb_array",
        look: Look = USUAL,
    ) -> None:
        if image_size < 1:
            raise ValueError(f"image_size is {image_size} pixels, expected at least 1; the recorded data has 96.")
        self.image_size = image_size
        self.random_goal = random_goal
        self.render_mode = render_mode
        self.look = look
        self.action_space = spaces.Box(0, WORLD_SIZE, (2,), np.float32)
        self.observation_space = spaces.Dict({"agent": spaces.Box(0, WORLD_SIZE, (2,), np.float32)})
        self.world = PushTWorld()

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Start an episode.

        Args:
            seed: Seed of the episode; the same start as in Diffusion Policy. Without one it is drawn.
            options: ``state`` (agent x, y, block x, y in px, block angle in rad) restores a recorded state instead;
                ``goal`` (x, y, angle) replaces the goal.

        Raises:
            ValueError: An option or the seed is not one of the above.
        """
        super().reset(seed=seed)
        given = known_options(options, _OPTIONS)
        seed = episode_seed(seed, self.np_random)
        random = np.random.RandomState(seed)
        agent = (float(random.randint(50, 450)), float(random.randint(50, 450)))
        block = (float(random.randint(100, 400)), float(random.randint(100, 400)))
        angle = float(random.randn() * 2 * math.pi - math.pi)
        goal = _pose(given["goal"], "goal", 3) if "goal" in given else self._goal(random)
        self.world = PushTWorld((goal[0], goal[1], goal[2]))
        if "state" in given:
            x, y, *pose = _pose(given["state"], "state", 5)
            self.world.restore(Snapshot((x, y), (0, 0), (pose[0], pose[1], pose[2]), (0, 0), 0))
        else:
            self.world.start(agent, (*block, angle))
        return self._observation(), self._info()

    def step(self, action: NDArray[np.float32]) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Pull the agent to ``action`` (x, y in px) for 0.1 s."""
        self.world.advance(float(action[0]), float(action[1]))
        info = self._info()
        reward = min(info["coverage"] / SUCCESS_COVERAGE, 1.0)
        return self._observation(), reward, info["success"], False, info

    def render(self) -> NDArray[np.uint8]:
        """Draw the scene: u8[image_size, image_size, 3], RGB, without a mark of the action."""
        return draw(self.world.agent_position, self.world.block_pose, self.world.goal, self.image_size, self.look)

    def demonstrate(self, candidates: int, seed: int) -> Iterator[tuple[float, float]]:
        """Let the scripted expert play on; it tries so many pushes before each decision."""
        return PushTExpert(candidates, seed).targets(self.world)

    def probe_targets(self) -> dict[str, list[float]]:
        """Give the state in numbers that a latent may hold, see ``envs.probing``: px, and sine and cosine of angles."""
        x, y, angle = self.world.block_pose
        return {
            "agent position": list(self.world.agent_position),
            "block position": [x, y],
            "block angle": [math.sin(angle), math.cos(angle)],
            "contact": [float(self.world.touches(self.world.block))],
        }

    def snapshot(self) -> Snapshot:
        """Remember the present state, for a planner or an expert that tries actions."""
        return self.world.snapshot()

    def restore(self, snapshot: Snapshot) -> None:
        """Return to a remembered state; the goal stays."""
        self.world.restore(snapshot)

    def _goal(self, random: np.random.RandomState) -> tuple[float, float, float]:
        if not self.random_goal:
            return GOAL
        x, y = WORLD_SIZE / 2 + random.uniform(-GOAL_REACH, GOAL_REACH, 2)
        return float(x), float(y), float(random.uniform(0, 2 * math.pi))

    def _observation(self) -> Observation:
        # Float rounding of the controller may leave the plane by less than one float32 step.
        return {"agent": np.clip(np.array(self.world.agent_position, dtype=np.float32), 0, WORLD_SIZE)}

    def _info(self) -> dict[str, Any]:
        coverage = self.world.coverage()
        return {
            "block": np.array(self.world.block_pose),
            "goal": np.array(self.world.goal),
            "coverage": coverage,
            "success": coverage > SUCCESS_COVERAGE,
        }


def _pose(values: Any, name: str, length: int) -> tuple[float, ...]:
    numbers = np.asarray(values, dtype=np.float64).ravel()
    if len(numbers) != length or not np.isfinite(numbers).all():
        raise ValueError(f"Option '{name}' is {values}, expected {length} finite numbers.")
    return tuple(numbers.tolist())
