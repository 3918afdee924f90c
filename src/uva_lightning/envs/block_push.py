"""Block pushing as a gymnasium environment: push two blocks into two coloured squares, in whichever way.

A planar version of Diffusion Policy's task (Chi et al., 2023) with the physics of Push-T. A *goal class* such as
``R-G`` asks for less: that one block, here the red one, gets into one square, here the green one. UVA's table of
planning has a column for each of the four.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from uva_lightning.envs.block_push_draw import draw
from uva_lightning.envs.block_push_expert import BlockPushExpert
from uva_lightning.envs.block_push_world import COLOURS, REACHED, BlockPushWorld, Pose, Snapshot
from uva_lightning.envs.pusht_world import CONTROL_HZ, WORLD_SIZE
from uva_lightning.envs.resets import episode_seed, known_options

CLASSES = {"R-R": (0, 0), "R-G": (0, 1), "G-R": (1, 0), "G-G": (1, 1)}
"""Goal classes: which block belongs into which square, 0 is red and 1 green."""

APART = 75.0
"""Least distance in px between the centres of agent and blocks where a start is anywhere."""

Observation = dict[str, NDArray[np.float32]]

_ANY = (((0, 0), (1, 1)), ((0, 1), (1, 0)))
_OPTIONS = ("goal", "state")
_STATE = 8


class BlockPush(gym.Env[Any, Any]):
    """Push a red and a green block with a round agent that is pulled to a target at 10 Hz.

    Action: f32[2], absolute target of the agent in px, in [0, 512]. Observation: ``agent`` f32[2], its position in px.
    The picture comes from ``render``, so that one pays only for the frames one looks at.

    Reward, in [0, 1]: the share of its way that a block has gone, 1 where its centre is within 40 px of the square's.
    With a goal class that of the block it names; without one the mean of both blocks, each in a square of its own, and
    of the two ways to assign them the better. An episode ends at 1.

    ``info`` holds ``blocks`` f64[2, 3] (red and green: x, y in px, angle in rad), ``reached`` bool[2, 2] (by block and
    square), ``placed`` bool[2] (blocks that are where they may go) and ``success``.

    Args:
        image_size: Side of the rendered picture in pixels.
        goal: One of ``R-R``, ``R-G``, ``G-R``, ``G-G``, block first; None asks for both blocks.
        scatter: Share of the episodes, drawn from their seeds, that start with everything anywhere: for demonstrations
            that show what to do after a push has gone wrong.
        careless: Share of its actions that the expert plays blindly, see ``BlockPushExpert``.
        render_mode: ``rgb_array`` or nothing; both render pictures.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": CONTROL_HZ}
    recorded: ClassVar[tuple[str, ...]] = ("blocks",)
    recorded_once: ClassVar[tuple[str, ...]] = ()
    probed_moving: ClassVar[tuple[str, ...]] = ("agent position", "red block position", "green block position")
    probed_flags: ClassVar[tuple[str, ...]] = ("contact with red", "contact with green")
    probed_robot: ClassVar[tuple[str, ...]] = ("agent position",)

    def __init__(
        self,
        image_size: int = 96,
        goal: str | None = None,
        scatter: float = 0.0,
        careless: float = 0.0,
        render_mode: str | None = "rgb_array",
    ) -> None:
        if image_size < 1:
            raise ValueError(f"image_size is {image_size} pixels, expected at least 1; demonstrations have 96.")
        for name, share in (("scatter", scatter), ("careless", careless)):
            if not 0 <= share <= 1:
                raise ValueError(f"{name} is {share}, expected a share, 0 to 1.")
        self.image_size, self.scatter, self.careless, self.render_mode = image_size, scatter, careless, render_mode
        self.goal = _known(goal)
        self.action_space = spaces.Box(0, WORLD_SIZE, (2,), np.float32)
        self.observation_space = spaces.Dict({"agent": spaces.Box(0, WORLD_SIZE, (2,), np.float32)})
        self.world = BlockPushWorld()
        self._asked = _asked(self.goal)
        self._way = self.world.distances()

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Start an episode.

        Args:
            seed: Seed of the episode; the start is the same for every goal. Without one it is drawn.
            options: ``goal`` is the goal class of this episode instead of the environment's; ``state`` (agent x, y,
                then x, y in px and angle in rad of the red and of the green block) is the start.

        Raises:
            ValueError: An option or the seed is not one of the above.
        """
        super().reset(seed=seed)
        given = known_options(options, _OPTIONS)
        seed = episode_seed(seed, self.np_random)
        self._asked = _asked(_known(given.get("goal", self.goal)))
        agent, blocks = _given(given["state"]) if "state" in given else self._start(seed)
        self.world = BlockPushWorld()
        self.world.start(agent, blocks)
        self._way = self.world.distances()
        return self._observation(), self._info()

    def step(self, action: NDArray[np.float32]) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Pull the agent to ``action`` (x, y in px) for 0.1 s; to the edge where that lies beyond the plane."""
        x, y = np.clip(action, 0, WORLD_SIZE)
        self.world.advance(float(x), float(y))
        info = self._info()
        return self._observation(), self._progress(), info["success"], False, info

    def render(self) -> NDArray[np.uint8]:
        """Draw the scene: u8[image_size, image_size, 3], RGB, without a mark of action or goal."""
        return draw(self.world.agent_position, self.world.poses, self.image_size)

    def demonstrate(self, candidates: int, seed: int) -> Iterator[tuple[float, float]]:
        """Let the scripted expert play on; it steers and tries nothing, so ``candidates`` make no difference."""
        return BlockPushExpert(seed, self.careless).targets(self.world)

    def probe_targets(self) -> dict[str, list[float]]:
        """Give the state in numbers that a latent may hold, see ``envs.probing``; a quarter turn of a block is none."""
        targets = {"agent position": list(self.world.agent_position)}
        for name, body, (x, y, angle) in zip(COLOURS, self.world.blocks, self.world.poses.tolist(), strict=True):
            targets[f"{name} block position"] = [x, y]
            targets[f"{name} block angle"] = [math.sin(4 * angle), math.cos(4 * angle)]
            targets[f"contact with {name}"] = [float(self.world.touches(body))]
        return targets

    def snapshot(self) -> Snapshot:
        """Remember the present state, for a planner that tries actions."""
        return self.world.snapshot()

    def restore(self, snapshot: Snapshot) -> None:
        """Return to a remembered state of this episode; the goal stays."""
        self.world.restore(snapshot)

    def _start(self, seed: int) -> tuple[tuple[float, float], tuple[Pose, Pose]]:
        random = np.random.RandomState(seed)
        start = _drawn(random)
        return _scattered(random) if random.uniform() < self.scatter else start

    def _observation(self) -> Observation:
        # Float rounding of the controller may leave the plane by less than one float32 step.
        return {"agent": np.clip(np.array(self.world.agent_position, dtype=np.float32), 0, WORLD_SIZE)}

    def _progress(self) -> float:
        to_go = np.maximum(self.world.distances() - REACHED, 0) / np.maximum(self._way - REACHED, 1)
        done = np.clip(1 - to_go, 0, 1)
        return max(float(np.mean([done[pair] for pair in pairs])) for pairs in self._asked)

    def _info(self) -> dict[str, Any]:
        reached = self.world.distances() <= REACHED
        may = np.zeros((2, 2), dtype=bool)
        for pairs in self._asked:
            for pair in pairs:
                may[pair] = True
        return {
            "blocks": self.world.poses,
            "reached": reached,
            "placed": (reached & may).any(axis=1),
            "success": any(all(reached[pair] for pair in pairs) for pairs in self._asked),
        }


def _known(goal: str | None) -> str | None:
    if goal is not None and goal not in CLASSES:
        raise ValueError(f"goal is {goal!r}, expected one of {', '.join(CLASSES)} (block first), or None for both.")
    return goal


def _asked(goal: str | None) -> tuple[tuple[tuple[int, int], ...], ...]:
    """Give the alternatives, each a list of pairs of block and square."""
    return _ANY if goal is None else ((CLASSES[goal],),)


def _drawn(random: np.random.RandomState) -> tuple[tuple[float, float], tuple[Pose, Pose]]:
    """Draw a start: the agent below, a block on the left and one on the right, of either colour."""
    agent = (random.uniform(100, 412), random.uniform(420, 470))
    left, right = (
        (random.uniform(low, low + 90), random.uniform(270, 340), random.uniform(0, math.pi / 2)) for low in (130, 292)
    )
    return agent, (left, right) if random.randint(2) else (right, left)


def _scattered(random: np.random.RandomState) -> tuple[tuple[float, float], tuple[Pose, Pose]]:
    """Draw a start with all three anywhere, clear of each other."""
    while True:
        places = random.uniform((60, 60), (452, 452), (3, 2))
        places[1:, 1] = 100 + (places[1:, 1] - 60) * 0.75  # blocks keep off the upper and lower wall
        if min(np.linalg.norm(places[a] - places[b]) for a, b in ((0, 1), (0, 2), (1, 2))) > APART:
            break
    angles = random.uniform(0, math.pi / 2, 2)
    red, green = ((float(x), float(y), float(angle)) for (x, y), angle in zip(places[1:], angles, strict=True))
    return (float(places[0, 0]), float(places[0, 1])), (red, green)


def _given(values: Any) -> tuple[tuple[float, float], tuple[Pose, Pose]]:
    numbers = np.asarray(values, dtype=np.float64).ravel()
    if len(numbers) != _STATE or not np.isfinite(numbers).all():
        raise ValueError(f"Option 'state' is {values}, expected {_STATE} finite numbers: x, y, then two poses.")
    x, y, *poses = numbers.tolist()
    return (x, y), ((poses[0], poses[1], poses[2]), (poses[3], poses[4], poses[5]))
