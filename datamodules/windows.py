"""Which steps a window holds: index arithmetic of UVA's sequence sampler, for whole batches at once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from uva_lightning.types import DataSpec

Index = NDArray[np.int64]


class Windows:
    """Windows of ``2 * horizon`` steps; where one reaches beyond its episode, the edge step is repeated.

    In an episode of ``n`` steps, windows begin at ``-pad_before`` to ``n - 2 * horizon + pad_after``. With 16 steps and
    4 frames a window shows frames 3, 7, 11, 15 as history and 19, 23, 27, 31 as future; the action chunk is steps
    15 to 30: it begins with the action recorded at the last history frame.

    Args:
        ends: i64[e], exclusive end of each episode.
        spec: Facts of the dataset; gives horizon and frames.
        pad_before: Steps by which a window may begin early.
        pad_after: Steps by which a window may end late.
        episodes: Episodes to cut windows from, all where left out.
        allow_short_episodes: Give an episode that is too short one window, padded further, instead of refusing it.

    Raises:
        ValueError: An episode is too short for a window.
    """

    def __init__(
        self,
        ends: Index,
        spec: DataSpec,
        pad_before: int = 1,
        pad_after: int = 7,
        episodes: Sequence[int] | None = None,
        allow_short_episodes: bool = False,
    ) -> None:
        length = 2 * spec.horizon
        if not (0 <= pad_before < length and 0 <= pad_after < length):
            raise ValueError(
                f"The pads are {pad_before} and {pad_after} steps, expected 0 to {length - 1}; set data.pad=[1, 7]."
            )
        self._frames = np.array(spec.frame_steps())
        self._actions = np.arange(spec.horizon) + spec.horizon - 1
        chosen = np.arange(len(ends)) if episodes is None else np.asarray(episodes, dtype=np.int64)
        begins = np.concatenate([[0], ends[:-1]])[chosen].astype(np.int64)
        ends = ends[chosen]
        counts = ends - begins - length + pad_after + pad_before + 1
        if (short := np.flatnonzero(counts < 1)).size and not allow_short_episodes:
            raise ValueError(
                f"Episode {chosen[short[0]]} has {ends[short[0]] - begins[short[0]]} steps, expected at least "
                f"{length - pad_before - pad_after} for a window ({len(short)} of {len(chosen)} episodes are too "
                "short); set data.allow_short_episodes=true to repeat their edges, or remove them."
            )
        counts = np.maximum(counts, 1)
        self._begin, self._end = np.repeat(begins, counts), np.repeat(ends, counts)
        within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        self._start = self._begin + within - pad_before

    def __len__(self) -> int:
        return len(self._start)

    def steps(self) -> Index:
        """Give every step of the chosen episodes, once: i64[n]."""
        spans = dict(zip(self._begin.tolist(), self._end.tolist(), strict=True))
        return np.concatenate([np.arange(begin, end) for begin, end in spans.items()])

    def frame_index(self, windows: Index) -> Index:
        """Give the steps of the frames in the dataset: i64[b, 2t], history first."""
        return self._clipped(windows, self._frames)

    def history_index(self, windows: Index) -> Index:
        """Give the steps of the history frames, where the proprioception is read too: i64[b, t]."""
        return self._clipped(windows, self._frames[: len(self._frames) // 2])

    def action_index(self, windows: Index) -> Index:
        """Give the steps of the action chunk: i64[b, h]."""
        return self._clipped(windows, self._actions)

    def _clipped(self, windows: Index, steps: Index) -> Index:
        index = self._start[windows, None] + steps
        clipped: Index = np.clip(index, self._begin[windows, None], self._end[windows, None] - 1)
        return clipped
