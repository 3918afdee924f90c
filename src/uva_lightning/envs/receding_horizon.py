"""Receding-horizon execution: a policy gives a chunk of actions, the first few are run, then it looks again."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

Image = NDArray[np.uint8]
Chunk = NDArray[np.float32]
History = dict[str, dict[str, NDArray[Any]]]
Mark = Callable[[Image, NDArray[np.float32]], Image]


class RecedingHorizon(gym.Wrapper[Any, Any, Any, Any]):
    """Step an environment by chunks and show the history that the policy was trained on.

    Observation: ``video`` by camera u8[t, H, W, 3] and ``state`` by name f32[t, p], at ``frames`` relative to now;
    before the start of the episode the first observation is repeated. Reward: the largest of the inner steps.
    ``info`` is that of the last inner step, with ``rewards`` (list of float) and, where recorded, ``frames`` (list of
    u8[H, W, 3]). Only frames that a history or the recording needs are rendered.

    Args:
        env: Environment with low-dimensional observations by name and pictures from ``render``.
        execute: Actions of a chunk that are run, fewer where the episode ends.
        frames: Steps of the history relative to now, rising and ending with 0: (-8, 0), or (-12, -8, -4, 0).
        chunk: Actions in a chunk, ``execute`` where left out.
        camera: Name of the camera in the observation, where the environment names none itself: one with several has
            ``cameras``, and draws the one that its attribute ``camera`` names.
        record_every: Steps between recorded frames; 0 records none.
        mark: Draws an action into a recorded frame; the policy never sees it.
    """

    def __init__(
        self,
        env: gym.Env[Any, Any],
        execute: int = 8,
        frames: tuple[int, ...] = (-8, 0),
        chunk: int | None = None,
        camera: str = "top",
        record_every: int = 0,
        mark: Mark | None = None,
    ) -> None:
        super().__init__(env)
        chunk = execute if chunk is None else chunk
        if not 1 <= execute <= chunk:
            raise ValueError(f"execute is {execute} of a chunk of {chunk} actions, expected 1 to {chunk}.")
        if not frames or frames[-1] != 0 or list(frames) != sorted(set(frames)):
            raise ValueError(f"frames is {frames}, expected rising steps that end with 0, such as (-8, 0).")
        if record_every < 0:
            raise ValueError(f"record_every is {record_every} steps, expected 0 for no recording, or more.")
        self.execute, self.offsets = execute, tuple(frames)
        self.cameras: tuple[str, ...] = getattr(env.unwrapped, "cameras", (camera,))
        self.record_every, self.mark = record_every, mark
        self._needed = {offset % execute for offset in frames}  # steps of a chunk that some later history shows
        self._images: deque[tuple[int, dict[str, Image]]] = deque(maxlen=1 - frames[0] + execute)
        self._states: deque[dict[str, NDArray[np.float32]]] = deque(maxlen=1 - frames[0])
        self._now = 0
        self._set_spaces(chunk)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[History, dict[str, Any]]:
        """Start an episode; arguments are those of the inner environment."""
        observation, info = self.env.reset(seed=seed, options=options)
        self._now = 0
        self._images.clear()
        self._states.clear()
        self._states.append(observation)
        self._images.append((0, self._render()))
        recorded = {"frames": [self._images[-1][1][self.cameras[0]]]} if self.record_every else {}
        return self._history(), {**info, **recorded}

    def step(self, action: Chunk) -> tuple[History, float, bool, bool, dict[str, Any]]:
        """Run the first ``execute`` actions of a chunk, f32[k >= execute, a]."""
        if len(action) < self.execute:
            raise ValueError(
                f"The chunk has {len(action)} actions, expected at least execute={self.execute}; lower execute."
            )
        rewards: list[float] = []
        recorded: list[Image] = []
        for inner, target in enumerate(action[: self.execute], start=1):
            observation, reward, terminated, truncated, info = self.env.step(target)
            self._now += 1
            rewards.append(float(reward))
            self._states.append(observation)
            over = terminated or truncated
            record = self.record_every > 0 and (over or self._now % self.record_every == 0)
            if over or record or inner % self.execute in self._needed:
                self._images.append((self._now, self._render()))
            if record:
                image = self._images[-1][1][self.cameras[0]]
                recorded.append(image if self.mark is None else self.mark(image, target))
            if over:
                break
        info = {**info, "rewards": rewards, **({"frames": recorded} if self.record_every else {})}
        return self._history(), max(rewards), terminated, truncated, info

    def _render(self) -> dict[str, Image]:
        drawn, inner = {}, self.env.unwrapped
        for camera in self.cameras:
            if hasattr(inner, "camera"):
                inner.camera = camera
            drawn[camera] = np.asarray(self.env.render(), dtype=np.uint8)
        return drawn

    def _history(self) -> History:
        """Collect what the policy sees; after an early end the latest frame up to each wanted step stands in."""
        images = [self._image(max(0, self._now + offset)) for offset in self.offsets]
        steps = [max(0, len(self._states) - 1 + offset) for offset in self.offsets]
        states = {name: np.stack([self._states[step][name] for step in steps]) for name in self._states[0]}
        video = {camera: np.stack([image[camera] for image in images]) for camera in self.cameras}
        return {"video": video, "state": states}

    def _image(self, step: int) -> dict[str, Image]:
        earlier = [image for at, image in self._images if at <= step]
        return earlier[-1] if earlier else self._images[0][1]

    def _set_spaces(self, chunk: int) -> None:
        one = self.env.action_space
        seen = self.env.observation_space
        if not isinstance(one, spaces.Box) or not isinstance(seen, spaces.Dict):
            raise ValueError(
                f"The environment has actions {one} and observations {seen}, expected a Box and a Dict of Boxes."
            )
        self.action_space = spaces.Box(
            np.repeat(one.low[None], chunk, axis=0), np.repeat(one.high[None], chunk, axis=0), dtype=np.float32
        )
        size = int(self.env.get_wrapper_attr("image_size"))
        count = len(self.offsets)
        states: dict[str, spaces.Space[Any]] = {
            name: spaces.Box(
                np.repeat(box.low[None], count, axis=0), np.repeat(box.high[None], count, axis=0), dtype=np.float32
            )
            for name, box in seen.items()
            if isinstance(box, spaces.Box)
        }
        video = spaces.Box(0, 255, (count, size, size, 3), np.uint8)
        shown = spaces.Dict(dict.fromkeys(self.cameras, video))
        self.observation_space = spaces.Dict({"video": shown, "state": spaces.Dict(states)})
