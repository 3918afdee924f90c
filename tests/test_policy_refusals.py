"""What the policy refuses: observations, names and options that are held wrong, each by what was given and expected."""

from __future__ import annotations

from copy import deepcopy

import numpy as np
import pytest
import torch
from fitted_models import fitted
from observed import episode

from uva_lightning.policy.policy import UVAPolicy


@pytest.fixture(scope="module")
def module(tiny_data, tiny_module):
    return fitted(tiny_data(), tiny_module)


@pytest.fixture
def policy(module):
    return UVAPolicy(module, torch.float32)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"video": {}}, r"cameras none, the checkpoint was trained with \['top'\]"),
        ({"video": {"front": np.zeros((96, 96, 3), np.uint8)}}, r"cameras \['front'\], .* trained with \['top'\]"),
        ({"video": {"top": np.zeros((96, 96, 3), np.float32)}}, r"'top' has float32 pictures, .* trained with uint8"),
        ({"video": {"top": np.zeros((48, 48, 3), np.uint8)}}, r"'top' is \[48, 48, 3\], .* trained with \[96, 96, 3\]"),
        ({"video": {"top": np.zeros((3, 96, 96), np.uint8)}}, r"'top' is \[3, 96, 96\], .* trained with \[96, 96, 3\]"),
        ({"video": {"top": [[0]]}}, r"'top' is a list, expected a NumPy array u8\[96, 96, 3\]"),
        ({"state": {}}, r"state none, the checkpoint was trained with \['agent'\]"),
        ({"state": {"agent": np.zeros(7)}}, r"state 'agent' is \[7\], the checkpoint was trained with \[2\]"),
        ({"state": {"agent": np.array([0, np.nan])}}, r"state 'agent' has NaN"),
        ({"state": {"agent": "here"}}, r"state 'agent' is no array of numbers"),
        ({"rate_hz": 30}, r"come at 30 Hz, the checkpoint was trained at 10 Hz"),
        ({"orientation": "upside down"}, r"'top' are 'upside down', the checkpoint was trained with 'upright'"),
        ({"orientation": {"top": "mirrored"}}, r"'top' are 'mirrored', the checkpoint was trained with 'upright'"),
        ({"rate_hz": float("nan")}, r"come at nan Hz, the checkpoint was trained at 10 Hz"),
        ({"rate_hz": "10"}, r"'rate_hz' of the observation is '10', expected a number of Hz"),
        ({"orientation": 180}, r"'orientation' of the observation is a int, expected a dictionary: 'upright', or one"),
        ({"step": 0.5}, r"'step' of the observation is 0.5, expected a whole number"),
        ({"step": "a"}, r"'step' of the observation is 'a', expected a whole number"),
        ({"step": float("nan")}, r"'step' of the observation is nan, expected a whole number"),
        ({"step": 1e30}, r"'step' of the observation is 1e\+30, expected a whole number"),
        ({"time": float("inf")}, r"'time' of the observation is inf, expected a finite number in s"),
        (
            {"video": np.zeros((96, 96, 3), np.uint8)},
            r"'video' of the observation is a ndarray, .*: pictures by camera",
        ),
        ({"video": {"top": np.zeros((0, 96, 96, 3), np.uint8)}}, r"is of no environment, expected at least one"),
        ({"images": {}}, r"has 'images', expected only video, state"),
    ],
)
def test_an_observation_unlike_those_of_training_is_refused_with_both_sides(policy, change, words):
    with pytest.raises(ValueError, match=words):
        policy.act({**episode()[0], **change})
    policy.act({**episode()[0], "orientation": "upright", "rate_hz": 10.0})


def test_what_is_no_observation_is_refused(policy):
    with pytest.raises(ValueError, match="The observation is a tuple, expected a dictionary"):
        policy.act((np.zeros((96, 96, 3), np.uint8), np.zeros(2)))
    policy.act(episode()[0])
    with pytest.raises(ValueError, match="frames is a ndarray, expected a dictionary: pictures by camera"):
        policy.explain(np.zeros((2, 96, 96, 3), np.uint8))
    with pytest.raises(ValueError, match=r"'top' is \[1, 96, 96, 3\], .* \[2, 96, 96, 3\] .*; give \[2\] pictures"):
        policy.explain({"top": np.zeros((1, 96, 96, 3), np.uint8)})
    with pytest.raises(ValueError, match=r"instruction is a vector \[512\], .* trained without instructions"):
        policy.reset(np.zeros(512, np.float32))
    with pytest.raises(ValueError, match="predict_next has no actions"):
        policy.predict_next(None, None)
    with pytest.raises(ValueError, match="The action chunk has NaN or infinity, .*; check what decided it"):
        policy.predict_next(None, np.full((16, 2), np.nan))


def test_names_and_numbers_may_come_from_numpy(module):
    policy = UVAPolicy(module, torch.float32, every=np.int64(8))
    twice = {"video": {"top": np.zeros((2, 96, 96, 3), np.uint8)}, "state": {"agent": np.zeros((2, 2))}}
    clock = {"step": np.array([3, 4]), "time": [0.3, 0.4], "rate_hz": np.array(10.0)}
    policy.observe({**twice, **clock}, environments=np.array([4, 7]))
    assert policy.act(environments={4: "a", 7: "b"}.keys()).actions.shape == (2, 16, 2)
    policy.forget(np.flatnonzero(np.array([0, 0, 0, 0, 1])))
    assert policy.environments == [7]
    assert policy.imagine(environments=(7,), iterations=np.int64(2))["top"].shape == (1, 2, 96, 96, 3)
    reward = lambda past, future: np.zeros((2, 1))  # noqa: E731
    assert policy.plan(None, np.int64(2), reward, environments=[7]).actions.shape == (1, 16, 2)


def test_names_of_environments_are_a_list_without_doubles(policy):
    policy.act(episode()[0], environments=["left"])
    for ask in (
        lambda: policy.reset(environments="left"),
        lambda: policy.act(episode()[0], environments="left"),
        lambda: policy.forget("left"),
    ):
        with pytest.raises(ValueError, match=r"environments is 'left', expected a list of names: \['left'\]"):
            ask()
    with pytest.raises(ValueError, match="environments is 0, expected a list"):
        policy.act(episode()[0], 0)
    with pytest.raises(ValueError, match="There is no environment 'right', expected some of \\['left'\\]"):
        policy.act(environments=["right"])
    twice = {"video": {"top": np.zeros((2, 96, 96, 3), np.uint8)}, "state": {"agent": np.zeros((2, 2))}}
    with pytest.raises(ValueError, match="Two environments are called 'left', expected each name once"):
        policy.act(twice, environments=["left", "left"])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"temperature": float("nan")}, "temperature is nan, expected a number from 0 to 10"),
        ({"temperature": -1.0}, r"temperature is -1.0, expected"),
        ({"guidance": float("inf")}, "guidance is inf, expected a finite number"),
        ({"iterations": 2.5}, "iterations is 2.5, expected a whole number"),
    ],
)
def test_options_out_of_range_are_refused(policy, options, words):
    policy.act(episode()[0])
    with pytest.raises(ValueError, match=words):
        policy.imagine(**options)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"steps": {"acton": 4}}, "steps names 'acton', the model has heads for video, action; rename it"),
        ({"steps": 16}, "steps is 16, expected one by modality: {'action': 16}"),
        ({"steps": {"action": "dpm10"}}, "dpm10"),
        ({"every": 1.5}, "every is 1.5"),
        ({"dtype": torch.float64}, "dtype is torch.float64, expected torch.float32, torch.bfloat16 or torch.float16"),
    ],
)
def test_a_policy_is_refused_when_it_is_made(module, options, words):
    with pytest.raises(ValueError, match=words):
        UVAPolicy(module, **options)


def test_actions_that_are_no_numbers_leave_no_policy(module):
    broken = deepcopy(module)
    for parameter in broken.head("action").parameters():
        parameter.data.fill_(float("nan"))
    with pytest.raises(ValueError, match="The model gave actions with NaN or infinity"):
        UVAPolicy(broken, torch.float32).act(episode()[0])


def test_a_planner_needs_a_reward_and_a_margin(policy):
    policy.act(episode()[0])
    with pytest.raises(ValueError, match="reward is 'pusht', expected a Reward such as PixelGoal, or a function"):
        policy.plan(None, 2, "pusht")
    with pytest.raises(ValueError, match="margin is NaN, expected a number in the unit"):
        policy.plan(None, 2, lambda past, future: np.zeros((2, 1)), margin=float("nan"))
    with pytest.raises(ValueError, match="proposals is 2.5, expected a whole number, chunks"):
        policy.plan(None, 2.5, lambda past, future: np.zeros((2, 1)))
