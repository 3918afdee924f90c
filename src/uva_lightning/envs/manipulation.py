"""LIBERO and Tool Hang as gymnasium environments; robosuite runs in another process and another environment."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from uva_lightning.envs.resets import episode_seed, known_options
from uva_lightning.simulators.client import Client, SimulatorDied
from uva_lightning.simulators.installed import ready

ACTION = 10
STATES = {"eef_pos": 3, "eef_quat": 4, "gripper_qpos": 2, "target": ACTION}
"""Proprioception: hand in m, quaternion x, y, z, w, fingers in m; ``target`` is the action that moves nothing."""
CONTROL_HZ = 20

Observation = dict[str, NDArray[np.float32]]


class Manipulation(gym.Env[Any, Any]):
    """A robosuite scene with one Panda, driven at 20 Hz by absolute targets of its hand.

    Action: f32[10], position in m, rotation-6d (first two rows of the matrix), gripper from -1 (open) to 1.
    Observation: see ``STATES``. Pictures come from ``render``, upright, so that one pays only for the frames one looks
    at. Reward: 1 where the task is done, else 0; the episode then ends. ``info`` has ``success`` and ``instruction``.

    The simulator is started by the first reset. When its process dies, ``SimulatorDied`` is raised, and the next reset
    starts another one.

    Args:
        kind: Simulator, as ``uva env install`` names it.
        task: What it is told to load.
        cameras: Our names of its cameras by theirs.
        image_size: Side of a picture in pixels.
        render_mode: ``rgb_array`` or nothing; both render pictures.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": CONTROL_HZ}
    known: ClassVar[tuple[str, ...]] = ("state", "bodies", "settle")
    """Options of ``reset``."""

    def __init__(
        self, kind: str, task: str, cameras: Mapping[str, str], image_size: int, render_mode: str | None
    ) -> None:
        if image_size < 1:
            raise ValueError(f"image_size is {image_size} pixels, expected at least 1.")
        self.kind, self.task, self.image_size, self.render_mode = kind, task, image_size, render_mode
        self.cameras, self._theirs = tuple(cameras), dict(cameras)
        self.camera = self.cameras[0]
        """What ``render`` draws."""
        self.action_space = spaces.Box(-np.inf, np.inf, (ACTION,), np.float32)
        boxes: dict[str, spaces.Space[Any]] = {
            name: spaces.Box(-np.inf, np.inf, (width,), np.float32) for name, width in STATES.items()
        }
        self.observation_space = spaces.Dict(boxes)
        self._client: Client | None = None
        self._made: Mapping[str, Any] = {}

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Start an episode.

        Args:
            seed: Seed of the scene's random start. Without one it is drawn.
            options: ``state``, the numbers of a recorded state, time first, in its place; ``bodies``, then also where
                things stand that do not move, by name: position in m, quaternion w, x, y, z; ``settle``, steps in which
                the hand stays and things come to rest; further ones are those of the kind of environment.

        Raises:
            ValueError: The simulator refuses.
            ImportError: It is not installed.
        """
        super().reset(seed=seed)
        given = known_options(options, self.known)
        seed = episode_seed(seed, self.np_random)
        if self._client is None:
            self._client = self._started()
        head, numbers = self._begin(seed, given)
        return self._observation(numbers), self._info(head)

    def step(self, action: NDArray[np.float32]) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Send the hand towards a target for 0.05 s."""
        head, numbers = self._ask("step", {"action": np.asarray(action, dtype=np.float64)})
        info = self._info(head)
        return self._observation(numbers), float(head["reward"]), info["success"], False, info

    def render(self) -> NDArray[np.uint8]:
        """Draw what ``camera`` sees: u8[image_size, image_size, 3], RGB."""
        _, found = self._ask("render", camera=self._theirs[self.camera], size=self.image_size)
        return found["picture"]

    def close(self) -> None:
        """End the simulator."""
        if self._client is not None:
            self._client.close()
            self._client = None

    def _begin(self, seed: int, given: Mapping[str, Any]) -> tuple[Mapping[str, Any], Mapping[str, NDArray[Any]]]:
        state = {"state": np.asarray(given["state"], dtype=np.float64)} if "state" in given else None
        bodies = {name: list(map(float, pose)) for name, pose in given.get("bodies", {}).items()}
        return self._ask("reset", state, seed=seed, settle=int(given.get("settle", 0)), bodies=bodies)

    def _ask(
        self, verb: str, arrays: Mapping[str, NDArray[Any]] | None = None, **given: Any
    ) -> tuple[Mapping[str, Any], Mapping[str, NDArray[Any]]]:
        try:
            if self._client is None:  # a new one would stand at another start, and nobody would know
                raise SimulatorDied(f"No simulator {self.kind} runs at '{verb}', expected a reset before; do that.")
            return self._client.ask(verb, arrays, **given)
        except SimulatorDied:
            self.close()
            raise

    def _started(self) -> Client:
        client = Client(self.kind, ready(self.kind))
        try:
            self._made, _ = client.ask("make", task=self.task)
        except BaseException:
            client.close()
            raise
        return client

    def _observation(self, numbers: Mapping[str, NDArray[Any]]) -> Observation:
        return {name: numbers[name] for name in STATES}

    def _info(self, head: Mapping[str, Any]) -> dict[str, Any]:
        return {"success": head["reward"] >= 1, "instruction": self._made["instruction"]}


class Libero(Manipulation):
    """A task of LIBERO (Liu et al., 2023); option ``start`` of ``reset`` is one of its 50 fixed initial states.

    Args:
        suite: Name of the suite.
        task: Number in it.
        image_size: Side of a picture in pixels.
        render_mode: See the base class.
    """

    known: ClassVar[tuple[str, ...]] = (*Manipulation.known, "start")

    def __init__(self, suite: str, task: int = 0, image_size: int = 128, render_mode: str | None = "rgb_array") -> None:
        super().__init__("libero", f"{suite}/{task}", {"agentview": "agentview"}, image_size, render_mode)

    def _begin(self, seed: int, given: Mapping[str, Any]) -> tuple[Mapping[str, Any], Mapping[str, NDArray[Any]]]:
        if "start" not in given:
            return super()._begin(seed, given)
        if others := sorted({"state", "bodies"} & set(given)):
            raise ValueError(f"reset got 'start' and {', '.join(others)}, expected one way to begin; leave one out.")
        return self._ask("start", number=int(given["start"]), seed=seed, settle=int(given.get("settle", 0)))


class ToolHang(Manipulation):
    """Insert a frame into a stand and hang a tool on it, from robomimic (Mandlekar et al., 2021).

    Args:
        image_size: Side of a picture in pixels.
        render_mode: See the base class.
    """

    def __init__(self, image_size: int = 240, render_mode: str | None = "rgb_array") -> None:
        cameras = {"sideview": "sideview", "wrist": "robot0_eye_in_hand"}
        super().__init__("toolhang", "ToolHang", cameras, image_size, render_mode)
