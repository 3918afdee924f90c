"""Windows equal those of UVA's sequence sampler, and batches hold what the windows say."""

from __future__ import annotations

import itertools
import json
import time
import zlib
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from uva_lightning.datamodules.fields import Fields
from uva_lightning.datamodules.rows import Rows
from uva_lightning.datamodules.varied_history import VariedHistory
from uva_lightning.datamodules.windows import Window, Windows
from uva_lightning.types import DataSpec

UVA_FRAMES = [3, 7, 11, 15, 19, 23, 27, 31]
UVA_ACTIONS = list(range(15, 31))
"""Read from UVA's code run on 32 steps: frames of a window, and its actions with shift_action on."""


def test_a_window_inside_an_episode_has_uvas_steps():
    windows = Windows(np.array([32]), Window(pad=(0, 0)))
    assert len(windows) == 1
    assert windows.frame_index(np.array([0])).tolist() == [UVA_FRAMES]
    assert windows.history_index(np.array([0])).tolist() == [UVA_FRAMES[:4]]
    assert windows.action_index(np.array([0])).tolist() == [UVA_ACTIONS]


def test_two_frames_are_eight_steps_apart():
    windows = Windows(np.array([32]), Window(2, pad=(0, 0)))
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
    windows = Windows(ends)
    everything = np.arange(len(windows))
    assert windows.frame_index(everything).tolist() == frames
    assert windows.action_index(everything).tolist() == actions


def test_push_t_has_uvas_number_of_windows():
    lengths = np.full(206, 124)
    lengths[:106] += 1  # 25650 steps in 206 episodes, as in the recorded data
    assert lengths.sum() == 25650
    assert len(Windows(np.cumsum(lengths))) == 20912


def test_chosen_episodes_only():
    ends = np.array([40, 90, 130])
    windows = Windows(ends, episodes=[2, 0])
    index = windows.action_index(np.arange(len(windows)))
    assert not ((index >= 40) & (index < 90)).any()
    assert index[0].min() >= 90
    assert index[-1].max() < 40


def test_short_episode_is_refused_or_padded():
    ends = np.array([40, 60, 100])
    with pytest.raises(ValueError, match=r"Episode 1 has 20 steps, expected at least 24 .*allow_short_episodes=true"):
        Windows(ends)
    padded = Windows(ends, Window(allow_short_episodes=True))
    assert len(padded) == 17 + 1 + 17
    assert padded.frame_index(np.array([17])).tolist() == [[42, 46, 50, 54, 58, 59, 59, 59]]
    with pytest.raises(ValueError, match="pads are 1 and 40 steps, expected 0 to 31"):
        Window(pad=(1, 40))


def test_index_arithmetic_is_fast():
    windows = Windows(np.arange(125, 25001, 125))
    rows = torch.randperm(len(windows))[:64].numpy()
    begin = time.perf_counter()
    for _ in range(100):
        windows.frame_index(rows)
        windows.action_index(rows)
    assert 6400 / (time.perf_counter() - begin) > 20_000


OFFICIAL = json.loads((Path(__file__).parent / "fixtures/official/indices_and_schedules.json").read_text())
"""Read from UVA's code, run on an array that counts the steps of a window."""


@pytest.mark.parametrize("shift", [True, False])
@pytest.mark.parametrize("past", [False, True])
def test_actions_are_those_of_the_official_code(shift, past):
    window = Window(pad=(0, 0), past_action=past, shift_action=shift)
    windows, only = Windows(np.array([window.length]), window), np.array([0])
    expected = OFFICIAL["get_trajectory"][f"n{32 + past}_T{32 + past}_shift{int(shift)}_hist{int(past)}"]
    assert len(windows) == 1
    assert windows.action_index(only)[0].tolist() == expected["trajectory"]
    if past:
        assert windows.past_action_index(only)[0].tolist() == expected["history"]
    frames = [step + past for step in OFFICIAL["train_frames_T32"]]  # steps 1 to 32 of the 33
    assert windows.frame_index(only)[0].tolist() == frames
    assert windows.state_index(only)[0].tolist() == frames[:4]
    assert windows.future_index(only)[0].tolist() == list(range(16 + past, 32 + past))


def test_past_actions_cost_the_first_window():
    plain, past = Windows(np.array([50])), Windows(np.array([50]), Window(past_action=True))
    assert len(past) == len(plain) - 1  # an official window of 33 steps begins one step early, ours of 32 does not
    assert past.frame_index(np.array([0])).tolist() == plain.frame_index(np.array([1])).tolist()
    assert past.past_action_index(np.array([0]))[0].tolist() == [0, *range(15)]


def test_proprioception_at_every_step_of_the_history():
    windows, only = Windows(np.array([32]), Window(pad=(0, 0), state_steps=16)), np.array([0])
    assert windows.state_index(only)[0].tolist() == list(range(16))
    assert windows.state_index(only, np.array([[0, 0, 2, 15]]))[0].tolist() == list(range(16))


def test_every_third_step_as_umi():
    window = Window(pad=(15, 16), every=3, shift_action=False)
    windows = Windows(np.array([200]), window)
    assert len(windows) == 200  # each recorded step is the present of one window
    assert windows.frame_index(np.array([100]))[0].tolist() == [64, 76, 88, 100, 112, 124, 136, 148]
    assert windows.action_index(np.array([100]))[0].tolist() == list(range(103, 149, 3))
    assert windows.frame_index(np.array([0]))[0].tolist() == [0, 0, 0, 0, 12, 24, 36, 48]
    assert window.spec(DataSpec(("a",), 4, 2, {}, rate_hz=60)).rate_hz == 20
    with pytest.raises(ValueError, match="every is 0 steps, expected at least 1"):
        Window(every=0)


def choices():
    free = itertools.combinations_with_replacement(range(16), 3)
    return [[*steps, 15] for steps in free]


def test_varied_histories_are_the_official_ones():
    every = choices()
    assert len(every) == OFFICIAL["history_combination_count"]
    assert every[:10] == OFFICIAL["history_combinations_first10"]
    assert every[-10:] == OFFICIAL["history_combinations_last10"]
    assert zlib.crc32(json.dumps(every).encode()) == OFFICIAL["history_combinations_crc32"]
    rows = Rows(torch.arange(60_000), seed=1, batch=2, first=0, total=60_000)
    drawn = Counter(map(tuple, VariedHistory(4, 16, each_sample=True)(rows).tolist()))
    assert set(drawn) == set(map(tuple, every))
    assert max(drawn.values()) < 2 * 60_000 / 816  # all alike: 73.5 on average, deviation 8.6
    assert min(drawn.values()) > 60_000 / 816 / 2


@pytest.mark.parametrize("each_sample", [True, False])
def test_varied_histories_follow_from_seed_and_place(each_sample):
    vary = VariedHistory(4, 16, each_sample)
    whole = vary(Rows(torch.arange(8), 1, 5, 0, 8))
    parts = [vary(Rows(torch.arange(4), 1, 5, first, 8)) for first in (0, 4)]
    assert torch.cat(parts).equal(whole)
    assert (len(whole.unique(dim=0)) == 1) is not each_sample
    assert not vary(Rows(torch.arange(8), 1, 6, 0, 8)).equal(whole)
    windows = Windows(np.array([32]), Window(pad=(0, 0)))
    shown = windows.frame_index(np.zeros(8, int), whole.numpy())
    assert shown[:, :4].tolist() == whole.tolist()
    assert shown[:, 4:].tolist() == [[19, 23, 27, 31]] * 8


class TestCameras:
    facts = DataSpec(("front", "wrist"), 96, 7, {"pose": 6}, 20)

    def test_are_all_if_none_is_named(self):
        assert Window().spec(self.facts).cameras == ("front", "wrist")

    def test_are_the_named_ones_in_the_order_of_the_data(self):
        assert Window(cameras=("wrist", "front")).spec(self.facts).cameras == ("front", "wrist")
        assert Window(cameras=("wrist",)).spec(self.facts).cameras == ("wrist",)

    def test_must_be_in_the_data(self):
        with pytest.raises(ValueError, match=r"data\.window\.cameras names \['rear'\], but the data has \['front'"):
            Window(cameras=("rear",)).spec(self.facts)

    def test_that_are_not_used_are_not_read(self):
        fields = Fields(video={"front": "a", "wrist": "b"}, action="c", state={})
        assert fields.only(("front",)).names() == {"a", "c"}


@pytest.mark.parametrize("name", ["frames", "horizon", "every"])
def test_a_window_of_nothing_is_refused(name):
    default = getattr(Window, name)
    with pytest.raises(ValueError, match=rf"{name} is 0 steps, .* set data\.window\.{name}={default}\."):
        Window(**{name: 0})


def test_another_horizon_and_more_frames():
    windows, only = Windows(np.array([16]), Window(frames=8, horizon=8, pad=(0, 0))), np.array([0])
    assert windows.frame_index(only)[0].tolist() == list(range(16))
    assert windows.action_index(only)[0].tolist() == list(range(7, 15))
    rows = Rows(torch.arange(2000), 1, 2, 0, 2000)
    drawn = VariedHistory(3, 5, each_sample=True)(rows)
    assert len(drawn.unique(dim=0)) == 15  # pairs with repeats out of five
    assert (drawn.diff() >= 0).all()
    assert drawn[:, -1].eq(4).all()
