"""How fast windows of frames come out of video files, beside decoding every frame of the window."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from uva_lightning.datamodules.film import pyav
from uva_lightning.datamodules.frames import Pictures
from uva_lightning.datamodules.video_frames import VideoFrames
from uva_lightning.datamodules.windows import Window

MILLISECONDS = 1000


@dataclass(frozen=True)
class WindowSpeed:
    """Time for the frames of one window in ms, mean over random windows.

    Args:
        seeking: ``VideoFrames``, only the frames that a window shows.
        whole: All steps of the window, from the keyframe before it, in a file that stays open.
        lean: As ``whole``, with the one thread and the one colour converter that ``VideoFrames`` has.
        opening: As ``whole``, but the file is opened for each window.
    """

    seeking: float
    whole: float
    lean: float
    opening: float

    def sentence(self) -> str:
        """Say it in one line."""
        others = {"an open file": self.whole, "one thread": self.lean, "opening the file": self.opening}
        told = ", ".join(f"{ms:.1f} ms with {how} ({ms / self.seeking:.1f} times)" for how, ms in others.items())
        return f"{self.seeking:.2f} ms a window; decoding all its steps takes {told}"


def window_speed(frames: VideoFrames, window: Window | None = None, windows: int = 200, seed: int = 0) -> WindowSpeed:
    """Measure random windows; no frame is in memory at the start.

    Args:
        frames: Frames in video files.
        window: What a window holds; 8 of 32 steps if not given.
        windows: Number of windows.
        seed: Of their choice.
    """
    window = window or Window()
    stride = window.horizon // window.frames
    shown = np.arange(stride - 1, 2 * window.horizon, stride)
    rng, span = np.random.default_rng(seed), 2 * window.horizon
    clips = [number for number, clip in enumerate(frames.clips) if clip.length >= span]
    if not clips:
        raise ValueError(f"No episode has {span} steps, expected some for a window; use a shorter horizon.")
    ends = np.cumsum([clip.length for clip in frames.clips])
    chosen = [int(number) for number in rng.choice(clips, windows)]
    starts = [int(rng.integers(frames.clips[number].length - span + 1)) for number in chosen]
    places = list(zip(chosen, starts, strict=True))

    def seeking(place: tuple[int, int]) -> Pictures:
        first = ends[place[0]] - frames.clips[place[0]].length + place[1]
        return frames[first + shown]

    return WindowSpeed(
        _mean_ms(seeking, places),
        _mean_ms(_Whole(frames, span), places),
        _mean_ms(_Whole(frames, span, lean=True), places),
        _mean_ms(_Whole(frames, span, keep=False), places),
    )


class _Whole:
    """Decodes all steps of a window, as a plain loader does."""

    def __init__(self, frames: VideoFrames, span: int, lean: bool = False, keep: bool = True) -> None:
        self.frames, self.span, self.lean, self.keep = frames, span, lean, keep
        self.av = pyav(frames.clips[0].file)
        self.opened: tuple[Path, Any] | None = None
        self.to_rgb = self.av.video.reformatter.VideoReformatter() if lean else None

    def __call__(self, place: tuple[int, int]) -> Pictures:
        clip = self.frames.clips[place[0]]
        if self.opened is None or self.opened[0] != clip.file or not self.keep:
            self.opened = (clip.file, self.av.open(str(clip.file)))
            if self.lean:
                self.opened[1].streams.video[0].codec_context.thread_count = 1
        container = self.opened[1]
        stream = container.streams.video[0]
        first = clip.start + (place[1] - 0.5) / self.frames.rate_hz
        container.seek(round(max(0.0, first) / stream.time_base), stream=stream)
        pictures: list[Pictures] = []
        for frame in container.decode(stream):
            if frame.time < first:
                continue
            frame = frame if self.to_rgb is None else self.to_rgb.reformat(frame, format="rgb24", threads=1)
            pictures.append(frame.to_ndarray(format="rgb24"))
            if len(pictures) == self.span:
                break
        return np.stack(pictures)


def _mean_ms(read: Callable[[tuple[int, int]], Pictures], places: Sequence[tuple[int, int]]) -> float:
    start = time.perf_counter()
    for place in places:
        read(place)
    return (time.perf_counter() - start) / len(places) * MILLISECONDS
