"""Windows equal those of UVA's sequence sampler, and batches hold what the windows say."""

from __future__ import annotations

import time

import numpy as np
import pytest
import torch

from uva_lightning.datamodules.windows import Windows
from uva_lightning.types import DataSpec

UVA_FRAMES = [3, 7, 11, 15, 19, 23, 27, 31]
UVA_ACTIONS = list(range(15, 31))
"""Read from UVA's code run on 32 steps: frames of a window, and its actions with shift_action on."""


def spec(frames=4):
    return DataSpec(cameras=("top",), image_size=4, action_dim=2, state_dims={}, rate_hz=10, frames=frames)


def test_a_window_inside_an_episode_has_uvas_steps():
    windows = Windows(np.array([32]), spec(), pad_before=0, pad_after=0)
    assert len(windows) == 1
    assert windows.frame_index(np.array([0])).tolist() == [UVA_FRAMES]
    assert windows.history_index(np.array([0])).tolist() == [UVA_FRAMES[:4]]
    assert windows.action_index(np.array([0])).tolist() == [UVA_ACTIONS]


def test_two_frames_are_eight_steps_apart():
    windows = Windows(np.array([32]), spec(frames=2), pad_before=0, pad_after=0)
    assert windows.frame_index(np.array([0])).tolist() == [[7, 15, 23, 31]]
    assert windows.history_index(np.array([0])).tolist() == [[7, 15]]


def test_equals_a_plain_loop_over_episodes():
    """UVA's rule spelled out: each start, each step clipped to the episode."""
    ends, length = np.array([24, 60, 101]), 32
    frames, actions = [], []
    for begin, end in zip([0, *ends[:-1]], ends, strict=True):
        for start in range(-1, end - begin - length + 7 + 1):
            steps = [begin + min(max(start + step, 0), end - begin - 1) for step in range(length)]
            frames.append([steps[step] for step in UVA_FRAMES])
            actions.append([steps[step] for step in UVA_ACTIONS])
    windows = Windows(ends, spec(), pad_before=1, pad_after=7)
    everything = np.arange(len(windows))
    assert windows.frame_index(everything).tolist() == frames
    assert windows.action_index(everything).tolist() == actions


def test_push_t_has_uvas_number_of_windows():
    lengths = np.full(206, 124)
    lengths[:106] += 1  # 25650 steps in 206 episodes, as in the recorded data
    assert lengths.sum() == 25650
    assert len(Windows(np.cumsum(lengths), spec())) == 20912


def test_chosen_episodes_only():
    ends = np.array([40, 90, 130])
    windows = Windows(ends, spec(), episodes=[2, 0])
    index = windows.action_index(np.arange(len(windows)))
    assert not ((index >= 40) & (index < 90)).any()
    assert index[0].min() >= 90
    assert index[-1].max() < 40


def test_short_episode_is_refused_or_padded():
    ends = np.array([40, 60, 100])
    with pytest.raises(ValueError, match=r"Episode 1 has 20 steps, expected at least 24 .*allow_short_episodes=true"):
        Windows(ends, spec())
    padded = Windows(ends, spec(), allow_short_episodes=True)
    assert len(padded) == 17 + 1 + 17
    assert padded.frame_index(np.array([17])).tolist() == [[42, 46, 50, 54, 58, 59, 59, 59]]
    with pytest.raises(ValueError, match="pads are 1 and 40 steps, expected 0 to 31"):
        Windows(ends, spec(), pad_after=40)


def test_index_arithmetic_is_fast():
    windows = Windows(np.arange(125, 25001, 125), spec())
    rows = torch.randperm(len(windows))[:64].numpy()
    begin = time.perf_counter()
    for _ in range(100):
        windows.frame_index(rows)
        windows.action_index(rows)
    assert 6400 / (time.perf_counter() - begin) > 20_000
