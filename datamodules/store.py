"""Episodes: what every reader delivers and all windows are cut from."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from uva_lightning.datamodules.frames import Frames, chosen, joined


@dataclass(frozen=True)
class EpisodeStore:
    """All episodes of a dataset, one after another; a frame and a state precede the action of the same step.

    Numbers are in memory, pictures may be read when they are asked for.

    Args:
        video: u8[n, H, W, 3] per camera, RGB.
        action: f32[n, a]; None where none were recorded, as in videos of people.
        state: f32[n, p] per proprioception entry.
        ends: i64[e], exclusive end of each episode.
        instructions: What the robot is told in each episode; None where it is told nothing.
        names: Where each episode lies, for people: file and number.
        identity: Hash of names, sizes and times of the files, by which a cache knows them without reading all; None
            where pictures are in memory.

    Raises:
        ValueError: Lengths or types disagree, episodes are empty, or a number is not finite.
    """

    video: Mapping[str, Frames]
    action: NDArray[np.float32] | None
    state: Mapping[str, NDArray[np.float32]]
    ends: NDArray[np.int64]
    instructions: Sequence[str] | None = None
    names: Sequence[str] | None = None
    identity: str | None = None

    def __post_init__(self) -> None:
        self._check_ends()
        for what, each in (("instructions", self.instructions), ("names", self.names)):
            if each is not None and len(each) != self.episodes:
                raise ValueError(f"There are {len(each)} {what} for {self.episodes} episodes, expected one each.")
        steps = int(self.ends[-1])
        for camera, frames in self.video.items():
            if frames.dtype != np.uint8 or len(frames.shape) != 4 or frames.shape[-1] != 3:
                raise ValueError(f"Camera '{camera}' is {frames.dtype}{list(frames.shape)}, expected u8[n, H, W, 3].")
            _check_length(f"Camera '{camera}'", frames, steps)
        for name, numbers in self.numbers().items():
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

    def numbers(self) -> dict[str, NDArray[np.float32]]:
        """Give action and state by name, f32[n, width]."""
        return {**({} if self.action is None else {"action": self.action}), **self.state}

    def name(self, episode: int) -> str:
        """Say which episode this is."""
        return f"episode {episode}" if self.names is None else f"episode {episode} ({self.names[episode]})"

    @classmethod
    def joined(cls, stores: Sequence[EpisodeStore]) -> EpisodeStore:
        """Put the episodes of several stores of one kind one after another."""
        first = stores[0]
        actions = [store.action for store in stores if store.action is not None]
        known = [store.identity or "" for store in stores]
        return cls(
            {name: joined([store.video[name] for store in stores]) for name in first.video},
            np.concatenate(actions) if len(actions) == len(stores) else None,
            {name: np.concatenate([store.state[name] for store in stores]) for name in first.state},
            np.cumsum(np.concatenate([store.lengths for store in stores])),
            _all_or_none([store.instructions for store in stores]),
            _all_or_none([store.names for store in stores]),
            "-".join(known) if all(known) else None,
        )

    def select(self, indices: Sequence[int]) -> EpisodeStore:
        """Take some episodes, in the given order; pictures in memory are copied."""
        if not len(indices):
            raise ValueError("No episode was selected, expected at least one.")
        if unknown := [index for index in indices if not 0 <= index < self.episodes]:
            raise ValueError(f"There is no episode {unknown[0]}, expected 0 to {self.episodes - 1}; choose others.")
        begins, ends = self.begins, self.ends
        rows = np.concatenate([np.arange(begins[index], ends[index]) for index in indices])
        return EpisodeStore(
            {camera: chosen(frames, rows) for camera, frames in self.video.items()},
            None if self.action is None else self.action[rows],
            {name: numbers[rows] for name, numbers in self.state.items()},
            np.cumsum(self.lengths[list(indices)]),
            None if self.instructions is None else [self.instructions[index] for index in indices],
            None if self.names is None else [self.names[index] for index in indices],
            None if self.identity is None else f"{self.identity}-{hash_of(indices)}",
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
                f"'{name}' has {len(bad)} steps with NaN or infinity, first in {self.name(episode)} at its step "
                f"{bad[0] - self.begins[episode]}, expected finite numbers; repair or remove these episodes."
            )


def hash_of(*facts: object) -> str:
    """Hash what an identity follows from."""
    return hashlib.blake2b(repr(facts).encode(), digest_size=8).hexdigest()


def _all_or_none(parts: Sequence[Sequence[str] | None]) -> list[str] | None:
    given = [part for part in parts if part is not None]
    return [entry for part in given for entry in part] if len(given) == len(parts) else None


def _check_length(what: str, values: Frames | NDArray[Any], steps: int) -> None:
    if len(values) != steps:
        raise ValueError(
            f"{what} has {len(values)} steps, but the last episode ends at {steps}; the dataset is cut off or mixed up."
        )
