"""Episodes in memory: what every reader delivers and all windows are cut from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class EpisodeStore:
    """All episodes of a dataset, one after another; a frame and a state precede the action of the same step.

    Args:
        video: u8[n, H, W, 3] per camera, RGB.
        action: f32[n, a].
        state: f32[n, p] per proprioception entry.
        ends: i64[e], exclusive end of each episode.
        instructions: What the robot is told in each episode; None where it is told nothing.

    Raises:
        ValueError: Lengths or types disagree, episodes are empty, or a number is not finite.
    """

    video: Mapping[str, NDArray[np.uint8]]
    action: NDArray[np.float32]
    state: Mapping[str, NDArray[np.float32]]
    ends: NDArray[np.int64]
    instructions: Sequence[str] | None = None

    def __post_init__(self) -> None:
        self._check_ends()
        if self.instructions is not None and len(self.instructions) != self.episodes:
            raise ValueError(
                f"There are {len(self.instructions)} instructions for {self.episodes} episodes, expected one each."
            )
        steps = int(self.ends[-1])
        for camera, frames in self.video.items():
            if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[-1] != 3:
                raise ValueError(f"Camera '{camera}' is {frames.dtype}{list(frames.shape)}, expected u8[n, H, W, 3].")
            _check_length(f"Camera '{camera}'", frames, steps)
        for name, numbers in {"action": self.action, **self.state}.items():
            if numbers.dtype != np.float32 or numbers.ndim != 2:
                raise ValueError(f"'{name}' is {numbers.dtype}{list(numbers.shape)}, expected f32[n, width].")
            _check_length(f"'{name}'", numbers, steps)
            self._check_finite(name, numbers)

    @property
    def episodes(self) -> int:
        """Number of episodes."""
        return len(self.ends)

    @property
    def steps(self) -> int:
        """Number of steps over all episodes."""
        return int(self.ends[-1])

    @property
    def begins(self) -> NDArray[np.int64]:
        """First step of each episode, i64[e]."""
        return np.concatenate([[0], self.ends[:-1]]).astype(np.int64)

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Steps of each episode, i64[e]."""
        return self.ends - self.begins

    @classmethod
    def joined(cls, stores: Sequence[EpisodeStore]) -> EpisodeStore:
        """Put the episodes of several stores of one kind one after another."""
        told = [store.instructions for store in stores]
        return cls(
            {name: np.concatenate([store.video[name] for store in stores]) for name in stores[0].video},
            np.concatenate([store.action for store in stores]),
            {name: np.concatenate([store.state[name] for store in stores]) for name in stores[0].state},
            np.cumsum(np.concatenate([store.lengths for store in stores])),
            None if None in told else [sentence for part in told for sentence in part or ()],
        )

    def select(self, indices: Sequence[int]) -> EpisodeStore:
        """Copy some episodes, in the given order."""
        if not len(indices):
            raise ValueError("No episode was selected, expected at least one.")
        begins, ends = self.begins, self.ends
        rows = np.concatenate([np.arange(begins[index], ends[index]) for index in indices])
        return EpisodeStore(
            {camera: frames[rows] for camera, frames in self.video.items()},
            self.action[rows],
            {name: numbers[rows] for name, numbers in self.state.items()},
            np.cumsum(self.lengths[list(indices)]),
            None if self.instructions is None else [self.instructions[index] for index in indices],
        )

    def _check_ends(self) -> None:
        if not len(self.ends):
            raise ValueError("The dataset has 0 episodes, expected at least one; it may not have been recorded fully.")
        empty = np.flatnonzero(self.lengths <= 0)
        if len(empty):
            raise ValueError(
                f"Episode {empty[0]} ends at step {self.ends[empty[0]]}, expected more than {self.begins[empty[0]]}: "
                "the ends must be exclusive and rise; repair them in the dataset."
            )

    def _check_finite(self, name: str, numbers: NDArray[np.float32]) -> None:
        bad = np.flatnonzero(~np.isfinite(numbers).all(axis=1))
        if len(bad):
            episode = int(np.searchsorted(self.ends, bad[0], side="right"))
            raise ValueError(
                f"'{name}' has {len(bad)} steps with NaN or infinity, first in episode {episode} at its step "
                f"{bad[0] - self.begins[episode]}, expected finite numbers; repair or remove these episodes."
            )


def _check_length(what: str, values: NDArray[Any], steps: int) -> None:
    if len(values) != steps:
        raise ValueError(
            f"{what} has {len(values)} steps, but the last episode ends at {steps}; the dataset is cut off or mixed up."
        )
