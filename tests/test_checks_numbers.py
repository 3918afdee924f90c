"""Checks of numbers: data with a fault, and data without."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from made_data import ENDS, STEPS, Made, bad, examined, only, sound_store

from uva_lightning.commands.check_data import examine
from uva_lightning.datamodules.store import EpisodeStore
from uva_lightning.datamodules.windows import Window
from uva_lightning.inspection.checks.base import all_checks


@pytest.fixture
def sound():
    return sound_store()


@pytest.fixture
def found(tmp_path):
    return partial(examined, path=tmp_path)


def test_sound_data_raise_no_alarm(sound, found):
    findings = found(sound)
    assert bad(findings) == {}
    assert {kind.title for kind in all_checks()} == set(findings)
    assert "eef[3:7]" in findings["rotations"].said


def test_nan_is_reported_with_episode_and_step(sound, monkeypatch, tmp_path):
    class Holes(Made):
        def read(self):
            action = sound.action.copy()
            action[ENDS[0] + 7] = np.nan
            return replace(sound, action=action)

    ((title, finding),) = examine(Holes(tmp_path, val_ratio=0.3), show_progress=False)
    assert (title, finding.level) == ("readable", "FAIL")
    assert "'action' has 1 steps with NaN or infinity, first in episode 1 at its step 7" in finding.first


def test_jump_of_a_state(sound, found):
    sound.state["eef"][ENDS[0] + 20, 2] += 3
    finding = only(found(sound), "jumps")
    assert finding.count == 2  # there and back
    assert finding.first.startswith("episode 1, step 20: eef[2] goes from ")


def test_jump_of_an_action_may_be_meant(sound, found):
    sound.action[30:, 2] += 3
    assert only(found(sound), "jumps", "warn").first.startswith("episode 0, step 30: action[2]")


def test_switches_and_full_turns_are_no_jumps(sound, found):
    sound.action[:, 2] = np.where(np.arange(STEPS) % 50 < 25, -1, 1)  # a gripper
    angle = (0.05 * np.arange(STEPS) + np.pi) % (2 * np.pi) - np.pi
    state = sound.state["eef"].copy()
    state[:, 3:] *= np.where(angle < 0, -1, 1)[:, None]  # the same rotations
    assert bad(found(replace(sound, state={"eef": state}))) == {}
    state[:, 2] = angle
    assert bad(found(replace(sound, state={"eef": state}))) == {}


def test_axis_angle_that_is_written_the_other_way_round_is_no_jump(sound, found):
    angle = (0.05 * np.arange(STEPS) + np.pi) % (2 * np.pi) - np.pi
    state = np.zeros((STEPS, 7), np.float32)
    state[:, :3], state[:, 3:6] = sound.state["eef"][:, :3], angle[:, None] * [0.6, 0.64, 0.48]
    assert bad(found(replace(sound, state={"eef": state}))) == {}


def test_rotation_that_is_none(sound, found):
    sound.state["eef"][12, 3:] = 0
    finding = bad(found(sound))["rotations"]
    assert (finding.level, finding.count, finding.first) == ("FAIL", 1, "episode 0, step 12: eef[3:7]")


def test_rotation_6d_that_is_none(sound, found):
    angle = 0.05 * np.arange(STEPS)
    six = np.stack([np.cos(angle), np.sin(angle), 0 * angle, -np.sin(angle), np.cos(angle), 0 * angle], axis=1)
    state = np.concatenate([sound.state["eef"][:, :1], six], axis=1).astype(np.float32)
    assert "eef[1:7]" in found(replace(sound, state={"eef": state}))["rotations"].said
    state[ENDS[1] + 3, 4:] = state[ENDS[1] + 3, 1:4]
    assert bad(found(replace(sound, state={"eef": state})))["rotations"].first == "episode 2, step 3: eef[1:7]"


def test_constant_actions(sound, found):
    sound.action[:, 1] = 0.3
    assert "columns [1]" in only(found(sound), "constant actions", "warn").said
    sound.action[:] = 0
    assert only(found(sound), "constant actions").said == "no action ever changes"


def test_episode_without_a_command(sound, found):
    sound.action[ENDS[0] : ENDS[1]] = sound.action[ENDS[0]]
    assert only(found(sound), "constant actions", "warn").first == "episode 1"


def test_saturated_actions(sound, found):
    sound.action[:, 0] = sound.action[:, 0].clip(0.3, 0.7)
    finding = only(found(sound), "saturated actions", "warn")
    assert "columns [0]" in finding.said
    assert finding.first.startswith("episode 0, step ")


def test_videos_of_people_have_no_numbers(sound, found):
    findings = found(EpisodeStore(sound.video, None, {"eef": sound.state["eef"]}, ENDS))
    assert bad(findings) == {}
    assert findings["saturated actions"].level == "-"


def test_short_episodes(sound, found):
    short = replace(sound, ends=np.array([10, *ENDS]))
    finding = bad(found(short, window=Window(2)))["length"]
    assert (finding.level, finding.count, finding.first) == ("FAIL", 1, "episode 0: 10 steps")
    assert bad(found(short, window=Window(2, allow_short_episodes=True)))["length"].level == "warn"
    assert "length" not in bad(found(short, window=Window(2, horizon=4, pad=(1, 3))))
