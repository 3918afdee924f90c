"""Data of your own in a few lines: say what they are and give the episodes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from uva_lightning.datamodules.faults import Broken, Faults
from uva_lightning.datamodules.frames import Frames, JoinedFrames
from uva_lightning.datamodules.pictures import Fit, Resized
from uva_lightning.datamodules.store import EpisodeStore
from uva_lightning.types import DataSpec

Numbers = NDArray[np.float32]


@dataclass(frozen=True)
class Episode:
    """What was seen and done, step by step; a picture and a state precede the action of the same step.

    Args:
        video: u8[n, H, W, 3] per camera, RGB and upright: an array (a ``np.memmap`` too, which is read when needed) or
            any ``Frames``, such as a ``LazyFrames`` of your own.
        action: f32[n, a]; None where nothing was recorded, in all episodes alike.
        state: f32[n, p] per proprioception entry.
        instruction: What the robot is told; None where it is told nothing, in all episodes alike.
        name: Where the episode lies, for messages.
    """

    video: Mapping[str, Frames]
    action: NDArray[Any] | None = None
    state: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    instruction: str | None = None
    name: str = ""


class EpisodeSource(ABC):
    """Episodes of any kind; ``FromSource`` trains from them.

    Attributes:
        facts: What an episode holds, with the recorded rate.
        identity: Changes when the data do, such as a version: a cache of latents then knows them by it, and else by a
            hash of all pictures.
    """

    facts: DataSpec
    identity: str | None = None

    @abstractmethod
    def episodes(self) -> Iterable[Episode]:
        """Give all episodes, always in the same order, since the split follows from their numbers."""


def assemble(source: EpisodeSource, faults: Faults, fit: Fit = "crop") -> EpisodeStore:
    """Put the episodes of a source together; pictures are read when they are asked for.

    Args:
        source: The episodes.
        faults: Takes those that are not as the facts say.
        fit: How pictures of another size become those of the facts.

    Raises:
        Broken: No episode is whole, or one is not and ``faults`` says to stop.
    """
    whole: list[tuple[Episode, str]] = []
    count = 0
    for episode in source.episodes():
        what = f"Episode {count} of {type(source).__name__}" + (f" ({episode.name})" if episode.name else "")
        count += 1
        wrong = _wrong(episode, source.facts) or _unlike(episode, whole[0][0] if whole else episode)
        if wrong:
            faults.add(Broken(f"{what} {wrong}; mend the source, or leave it out with data.reading.on_error=skip."))
        else:
            whole.append((episode, episode.name or what))
    if not whole:
        raise Broken(f"{type(source).__name__} gave {count} episodes, none of them whole, expected at least two.")
    episodes, size = [episode for episode, _ in whole], source.facts.image_size
    return EpisodeStore(
        {
            camera: JoinedFrames([_sized(episode.video[camera], size, fit) for episode in episodes])
            for camera in source.facts.cameras
        },
        _table([episode.action for episode in episodes]),
        {name: np.concatenate([_f32(episode.state[name]) for episode in episodes]) for name in source.facts.state_dims},
        np.cumsum([_length(episode) for episode in episodes]),
        _told([episode.instruction for episode in episodes]),
        [name for _, name in whole],
        source.identity,
    )


def _wrong(episode: Episode, facts: DataSpec) -> str | None:
    """Say in what an episode differs from the facts."""
    for what, found, expected in (
        ("cameras", set(episode.video), set(facts.cameras)),
        ("state entries", set(episode.state), set(facts.state_dims)),
    ):
        if found != expected:
            listed = ", ".join(sorted(found)) or "none"
            return f"has the {what} {listed}, expected {', '.join(sorted(expected)) or 'none'} as the facts say"
    for camera, frames in episode.video.items():
        if frames.dtype != np.uint8 or len(frames.shape) != 4 or frames.shape[-1] != 3:
            return f"has {frames.dtype}{list(frames.shape)} pictures of '{camera}', expected u8[n, H, W, 3]"
    steps = _length(episode)
    if not steps:
        return "is empty, expected at least one step"
    if odd := [camera for camera, frames in episode.video.items() if len(frames) != steps]:
        return f"has {len(episode.video[odd[0]])} pictures of '{odd[0]}', expected {steps} as of the first camera"
    widths = {"action": facts.action_dim, **facts.state_dims}
    numbers = {**({} if episode.action is None else {"action": episode.action}), **episode.state}
    for name, values in numbers.items():
        table = np.asarray(values)
        if table.shape != (steps, widths[name]) or table.dtype.kind not in "uif":
            return f"has '{name}' {table.dtype}{list(table.shape)}, expected numbers {[steps, widths[name]]}"
        if not np.isfinite(table).all():
            step = int(np.argwhere(~np.isfinite(table))[0, 0])
            return f"has NaN or infinity in '{name}', first at its step {step}, expected finite numbers"
    return None


def _unlike(episode: Episode, first: Episode) -> str | None:
    """Say what an episode has that the first has not, or the other way round."""
    for what, one, other in (
        ("actions", episode.action, first.action),
        ("an instruction", episode.instruction, first.instruction),
    ):
        if (one is None) != (other is None):
            return f"{'lacks' if one is None else 'has'} {what}, unlike the first, expected all alike"
    return None


def _length(episode: Episode) -> int:
    return len(next(iter(episode.video.values())))


def _sized(frames: Frames, size: int, fit: Fit) -> Frames:
    return frames if frames.shape[1:3] == (size, size) else Resized(frames, size, fit)


def _f32(values: NDArray[Any]) -> Numbers:
    return np.asarray(values, dtype=np.float32)


def _table(actions: Sequence[NDArray[Any] | None]) -> Numbers | None:
    given = [_f32(action) for action in actions if action is not None]
    return np.concatenate(given) if given else None


def _told(instructions: Sequence[str | None]) -> list[str] | None:
    return [told for told in instructions if told is not None] or None
