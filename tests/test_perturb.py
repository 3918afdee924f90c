"""Perturbations change what is seen as they say, and nothing else."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("gymnasium")
pytest.importorskip("pymunk")
pytest.importorskip("shapely")
pytest.importorskip("cv2")

import gymnasium as gym

from uva_lightning import envs
from uva_lightning.envs.perturb import (
    EDITS,
    LIGHT_BLUE,
    LIGHT_RED,
    LOOKS,
    FloorObject,
    floor_of,
    most_frequent,
    perturbed,
)

CHANGES = [*LOOKS, *EDITS]
SEED = 100_000


def played(name, steps=12):
    """Play 12 steps with fixed targets: pictures and all numbers."""
    env = envs.make(name)
    observation, info = env.reset(seed=SEED)
    pictures, numbers = [env.render()], [np.r_[observation["agent"], info["block"], info["goal"]]]
    for step in range(steps):
        observation, reward, *_, info = env.step(np.float32([300 - 10 * step, 200 + 10 * step]))
        pictures.append(env.render())
        numbers.append(np.r_[observation["agent"], info["block"], info["goal"], reward][:8])
    return np.stack(pictures), np.stack(numbers)


@pytest.fixture(scope="module")
def plain():
    return played("pusht")


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("env", ["pusht", "pusht_m"])
def test_only_the_picture_changes_and_all_the_time_alike(env, change):
    as_ever, numbers = played(env)
    pictures, same = played(f"{env}:{change}")
    np.testing.assert_array_equal(same, numbers)
    assert (pictures != as_ever).any(axis=(1, 2, 3)).all()
    assert pictures.dtype == np.uint8
    np.testing.assert_array_equal(pictures, played(f"{env}:{change}")[0])


def colour_at(pictures, x, y):
    return pictures[:, round(y * 96 / 512), round(x * 96 / 512)]


def test_looks_change_what_they_name(plain):
    corner, in_goal = (30, 480), (256, 268)
    block_there = played("pusht")[1][:, 2:4] - in_goal
    assert np.hypot(*block_there.T).min() > 60  # the block covers neither
    assert (colour_at(plain[0], *corner) == 255).all()
    assert (colour_at(played("pusht:background_color")[0], *corner) == LIGHT_BLUE).all()
    assert (colour_at(played("pusht:background_color")[0], *in_goal) == colour_at(plain[0], *in_goal)).all()
    assert (colour_at(played("pusht:goal_color")[0], *in_goal) == LIGHT_RED).all()
    assert (colour_at(played("pusht:goal_color")[0], *corner) == 255).all()
    pictures = played("pusht:background_object")[0]
    assert (colour_at(pictures, 100, 90) == LOOKS["background_object"].objects[0][0]).all()
    changed = (pictures != plain[0]).any(axis=-1).mean(axis=(1, 2))
    assert 0.01 < changed.min() <= changed.max() < 0.06


def test_picture_edits_know_the_floor(plain):
    first = plain[0][0]
    assert most_frequent(first).tolist() == [255, 255, 255]
    floor = floor_of(first, most_frequent(first))
    assert 0.6 < floor.mean() < 0.95
    pictures = played("pusht:picture_background_color")[0]
    assert np.abs(pictures[0][floor].astype(int) - LIGHT_BLUE).max() <= 24
    np.testing.assert_array_equal(pictures[0][~floor], first[~floor])


def test_a_laid_object_is_hidden_by_what_passes_over_it(plain):
    edit = FloorObject()
    edit.begin(plain[0][0], seed=1)
    for picture in plain[0]:
        changed = (edit(picture) != picture).any(axis=-1)
        assert not changed[~floor_of(picture, most_frequent(picture))].any()
    places = set()
    for seed in range(5):
        edit.begin(plain[0][0], seed)
        places.add(str(edit._place))
    assert len(places) == 5


def test_hue_keeps_greys_and_brightness():
    picture = np.array([[[200, 100, 100], [128, 128, 128], [100, 160, 90]]], dtype=np.uint8)
    turned = EDITS["picture_hue"]()(picture)
    np.testing.assert_array_equal(turned[0, 1], picture[0, 1])
    assert (turned[0, 0] != picture[0, 0]).any()
    luma = np.array([0.299, 0.587, 0.114])
    np.testing.assert_allclose(turned @ luma, picture @ luma, atol=1)
    assert turned[0, 0].argmax() == 1  # red has become green


class TwoViews(gym.Env):
    """The left camera sees a red floor, the right one a green one."""

    cameras, camera = ("left", "right"), "left"

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return {}, {}

    def render(self):
        return np.full((8, 8, 3), (200, 0, 0) if self.camera == "left" else (0, 200, 0), np.uint8)


def test_each_camera_has_a_floor_of_its_own():
    env = perturbed(TwoViews(), "views", "picture_background_color")
    for _ in range(2):  # the second episode begins with the camera that was drawn last
        env.reset(seed=1)
        for camera in env.unwrapped.cameras:
            env.unwrapped.camera = camera
            assert (env.render() == LIGHT_BLUE).all()


def test_errors_tell_the_fix():
    with pytest.raises(ValueError, match="no change 'goal_colour', only .*; did you mean 'pusht:goal_color'"):
        envs.make("pusht:goal_colour")
    with pytest.raises(ValueError, match="size is 2, expected a share"):
        FloorObject(size=2)
    assert envs.goal_score("pusht:goal_color") is not None
