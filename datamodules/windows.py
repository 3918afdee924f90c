"""Which steps a window holds: index arithmetic of UVA's sequence sampler, for whole batches at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from uva_lightning.types import DataSpec

Index = NDArray[np.int64]


@dataclass(frozen=True)
class Window:
    """What a window holds; the defaults are UVA's on Push-T.

    Args:
        frames: Frames of the history, and as many of the future.
        horizon: Steps of the action chunk, and of the history.
        pad: Steps by which a window may begin before its episode and end after it; edges are repeated.
        past_action: Also deliver the actions before the chunk. As in UVA the window then begins one step earlier.
        state_steps: Steps at which proprioception is read: null is at the history frames, ``horizon`` at every step.
        shift_action: Begin the chunk with the action recorded at the last history frame, as UVA in simulation; false
            is one step later, as UVA with UMI, whose actions are the poses that were reached.
        vary_history: Draw the history frames in training instead of spacing them evenly: one of the non-decreasing
            choices that end with the latest step (816 for 4 frames of 16 steps), for each ``sample`` or one for the
            whole ``batch``, as UVA's ``different_history_freq``. Evaluation keeps the even ones.
        every: Recorded steps from one step of the window to the next; UVA takes every third of UMI's recordings.
        cameras: Cameras that are read, all if not given.
        allow_short_episodes: Give an episode that is too short one window, padded further, instead of refusing it.
    """

    frames: int = 4
    horizon: int = 16
    pad: tuple[int, int] = (1, 7)
    past_action: bool = False
    state_steps: int | None = None
    shift_action: bool = True
    vary_history: Literal["batch", "sample"] | None = None
    every: int = 1
    cameras: tuple[str, ...] | None = None
    allow_short_episodes: bool = False

    def __post_init__(self) -> None:
        for name in ("frames", "horizon", "every"):
            if getattr(self, name) < 1:
                default = getattr(Window, name)
                raise ValueError(
                    f"{name} is {getattr(self, name)} steps, expected at least 1; set data.window.{name}={default}."
                )
        if not all(0 <= pad < self.length for pad in self.pad):
            raise ValueError(
                f"The pads are {self.pad[0]} and {self.pad[1]} steps, expected 0 to {self.length - 1}; "
                "set data.window.pad=[1, 7]."
            )

    @property
    def lead(self) -> int:
        """Steps before the history, which only past actions reach."""
        return int(self.past_action)

    @property
    def length(self) -> int:
        """Steps of the window."""
        return self.lead + 2 * self.horizon

    @property
    def shortest(self) -> int:
        """Recorded steps that an episode must have for one window."""
        return max(1, (self.length - 1 - sum(self.pad)) * self.every + 1)

    def spec(self, facts: DataSpec) -> DataSpec:
        """Add what the window decides to the facts of a data set.

        Raises:
            ValueError: It names a camera that the data set does not have.
        """
        cameras = facts.cameras if self.cameras is None else self.cameras
        if unknown := set(cameras) - set(facts.cameras):
            raise ValueError(
                f"data.window.cameras names {sorted(unknown)}, but the data has {list(facts.cameras)}; rename."
            )
        late = {} if self.shift_action else {"chunk": "begins one step after the last past frame"}
        return replace(
            facts,
            cameras=tuple(camera for camera in facts.cameras if camera in cameras),
            frames=self.frames,
            horizon=self.horizon,
            state_steps=self.state_steps,
            past_action=self.past_action,
            rate_hz=facts.rate_hz / self.every,
            conventions={**facts.conventions, **late},
        )


class Windows:
    """Windows of ``2 * horizon`` steps; where one reaches beyond its episode, the edge step is repeated.

    In an episode of ``n`` steps, windows begin at ``-pad[0]`` to ``n - 2 * horizon + pad[1]``. With 16 steps and
    4 frames a window shows frames 3, 7, 11, 15 as history and 19, 23, 27, 31 as future; the action chunk is steps
    15 to 30: it begins with the action recorded at the last history frame. Past actions are the steps before it, -1 to
    14, so that with them a window has 33 steps.

    Args:
        ends: i64[e], exclusive end of each episode.
        window: What a window holds.
        episodes: Episodes to cut windows from, all where left out.

    Raises:
        ValueError: An episode is too short for a window.
    """

    def __init__(
        self,
        ends: Index,
        window: Window | None = None,
        episodes: Sequence[int] | None = None,
    ) -> None:
        window = window or Window()
        horizon, lead = window.horizon, window.lead
        stride = horizon // window.frames
        self._history = np.arange(stride - 1, horizon, stride)
        self._future = np.arange(stride - 1, horizon, stride) + horizon
        self._steps = np.arange(horizon)
        self._every_step = window.state_steps not in (None, window.frames)
        self._first_action = horizon - window.shift_action
        self._lead, self._stretch = lead, window.every

        chosen = np.arange(len(ends)) if episodes is None else np.asarray(episodes, dtype=np.int64)
        begins = np.concatenate([[0], ends[:-1]])[chosen].astype(np.int64)
        ends = ends[chosen]
        span = (window.length - 1) * window.every + 1
        before, after = window.pad[0] * window.every, window.pad[1] * window.every
        counts = ends - begins - span + before + after + 1
        if (short := np.flatnonzero(counts < 1)).size and not window.allow_short_episodes:
            raise ValueError(
                f"Episode {chosen[short[0]]} has {ends[short[0]] - begins[short[0]]} steps, expected at least "
                f"{window.shortest} for a window ({len(short)} of {len(chosen)} episodes are too "
                "short); set data.window.allow_short_episodes=true to repeat their edges, or remove them."
            )
        counts = np.maximum(counts, 1)
        self._begin, self._end = np.repeat(begins, counts), np.repeat(ends, counts)
        self._episode = np.repeat(chosen, counts)
        within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        self._start = self._begin + within - before

    def __len__(self) -> int:
        return len(self._start)

    def steps(self) -> Index:
        """Give every step of the chosen episodes, once: i64[n]."""
        spans = dict(zip(self._begin.tolist(), self._end.tolist(), strict=True))
        return np.concatenate([np.arange(begin, end) for begin, end in spans.items()])

    def episode_index(self, windows: Index) -> Index:
        """Give the episodes that windows were cut from: i64[b]."""
        episodes: Index = self._episode[windows]
        return episodes

    def frame_index(self, windows: Index, history: Index | None = None) -> Index:
        """Give the steps of the frames in the data set: i64[b, 2t], history first.

        Args:
            windows: i64[b].
            history: i64[b, t], other steps of the past to show, 0 to ``horizon - 1``.
        """
        return np.concatenate([self.history_index(windows, history), self._clipped(windows, self._future)], axis=1)

    def history_index(self, windows: Index, history: Index | None = None) -> Index:
        """Give the steps of the history frames: i64[b, t]."""
        return self._clipped(windows, self._history if history is None else history)

    def state_index(self, windows: Index, history: Index | None = None) -> Index:
        """Give the steps where proprioception is read: i64[b, n], at the history frames or at every step."""
        return self._clipped(windows, self._steps) if self._every_step else self.history_index(windows, history)

    def future_index(self, windows: Index) -> Index:
        """Give all steps of the future: i64[b, h]."""
        return self._clipped(windows, self._steps + len(self._steps))

    def action_index(self, windows: Index) -> Index:
        """Give the steps of the action chunk: i64[b, h]."""
        return self._clipped(windows, self._steps + self._first_action)

    def past_action_index(self, windows: Index) -> Index:
        """Give the steps of the actions before the chunk: i64[b, h]."""
        return self._clipped(windows, self._steps + self._first_action - len(self._steps))

    def _clipped(self, windows: Index, steps: Index) -> Index:
        index = self._start[windows, None] + (steps + self._lead) * self._stretch
        clipped: Index = np.clip(index, self._begin[windows, None], self._end[windows, None] - 1)
        return clipped
