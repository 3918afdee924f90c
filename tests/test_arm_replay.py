"""A recorded episode played dry goes as it went, and tells what other limits would have refused."""

from dataclasses import replace as changed

import numpy as np
import pytest
from recordings import LIMITS, META, RecordedRun, made_recordings

from uva_lightning.robot.control import Control
from uva_lightning.robot.episodes import BrokenEpisode, RecordedEpisode
from uva_lightning.robot.operator import Label
from uva_lightning.robot.recorder import Recorder
from uva_lightning.robot.replay import replay, told
from uva_lightning.robot.tool_poses import to_six


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("recordings")
    made_recordings(path, ("success",), steps=9)
    return path


@pytest.fixture(scope="module")
def episode(folder):
    return RecordedEpisode(next(folder.iterdir()))


def test_under_the_same_limits_it_goes_the_same_way(episode):
    result = replay(episode, LIMITS)
    assert [(chunk.then, chunk.today, chunk.alone) for chunk in result.chunks] == [(None, None, False)] * 3
    assert result.off < 0.01
    assert not result.refused
    assert "3 chunks: 0 refused then, 0 today" in told(result)


def test_stricter_limits_refuse(episode):
    result = replay(episode, changed(LIMITS, eef_speed=0.01))
    assert len(result.refused) == 3
    assert [chunk.alone for chunk in result.chunks] == [False, True, True]
    assert "The tool speed would be" in result.chunks[0].today
    assert "3 of those carried out then would be refused today" in told(result)
    assert "alone: checked from where the recorded arm was" in told(result)


class Hasty:
    """Says something too fast once, then goes on slowly."""

    def __init__(self):
        self.asked = 0

    def reset(self, seed):
        pass

    def act(self, observation):
        self.asked += 1
        chunk = np.zeros((1, 16, 10))
        chunk[0, :, 2] = (0.1 if self.asked == 1 else 0.01) * 0.2 * np.arange(1, 17)
        chunk[0, :, 3:9], chunk[0, :, 9] = to_six(np.eye(3)), 0.086
        return chunk


def test_wider_limits_allow_what_was_refused(tmp_path):
    """The refused chunk was never sent, so it is planned again from what the policy said."""
    strict = changed(LIMITS, eef_speed=0.05)
    path = RecordedRun(Hasty(), steps=6, limits=strict).record(tmp_path, Label.FAILURE)
    episode = RecordedEpisode(path)
    assert [chunk.then is None for chunk in replay(episode, strict).chunks] == [False, True, True]
    assert not replay(episode, strict).allowed
    result = replay(episode, LIMITS)
    assert [chunk.number for chunk in result.allowed] == [result.chunks[0].number]
    assert [chunk.alone for chunk in result.chunks] == [False, True, True]
    assert "carried out today, refused then, OutOfLimits" in told(result)


class Stumbling(Hasty):
    """Says something good once, then only what is too fast."""

    def act(self, observation):
        chunk = super().act(observation)
        chunk[0, :, 2] = (0.04 if self.asked == 1 else 0.1) * 0.2 * np.arange(1, 17)
        return chunk


def test_after_a_refusal_a_chunk_is_planned_as_it_was_then(tmp_path):
    """What was refused is planned again from where the arm stood, not joined to what it had followed before."""
    strict = changed(LIMITS, eef_speed=0.05)
    path = RecordedRun(Stumbling(), steps=7, limits=strict).record(tmp_path, Label.FAILURE)
    chunks = replay(RecordedEpisode(path), strict).chunks
    assert [chunk.then is None for chunk in chunks] == [True, False, False, False]
    for chunk in chunks[1:]:
        then, today = (float(said.split(" m/s")[0].split()[-1]) for said in (chunk.then, chunk.today))
        assert today == pytest.approx(then, abs=0.003), chunk


def test_a_chunk_of_which_only_the_refusal_is_known_stays_refused(tmp_path):
    recording = Recorder(tmp_path, 1000).begin(META)
    recording.step({"time": 1.0, "q": [0.0, 1.49, 1.7, -1.2, 0.0, 0.0], "opening": 0.086})
    recording.step({"time": 1.1, "rejected": "Stale: too old"})
    result = replay(RecordedEpisode(recording.end(Label.FAILURE, "")), LIMITS, Control())
    assert "Only the refusal is recorded" in result.chunks[0].today
    assert (result.refused, result.allowed, result.off) == ([], [], None)


def test_an_episode_without_chunks_or_arm_is_told(tmp_path):
    recording = Recorder(tmp_path, 1000).begin(META)
    assert told(replay(RecordedEpisode(recording.end(Label.FAILURE, "")))) == "Nothing was asked for."
    recording = Recorder(tmp_path, 1000).begin(META)
    recording.step({"time": 1.0, "action": np.zeros((16, 10))})
    with pytest.raises(BrokenEpisode, match="an arm that it does not show"):
        replay(RecordedEpisode(recording.end(Label.FAILURE, "")))


def test_the_command_fails_where_something_would_be_refused(uva, folder):
    workspace = ("--limits.workspace_min", "[0.1, -0.35, -0.03]")
    status, out, _ = uva("arm", "replay", folder, *workspace)
    assert status == 0
    assert "(success):\n3 chunks: 0 refused then, 0 today" in out
    status, out, _ = uva("arm", "replay", folder, *workspace, "--limits.joint_velocity", 0.001)
    assert status == 1
    assert "refused today, OutOfLimits: The joint velocity" in out
    assert "limits today: joint_velocity 0.001 (then 1.0)\n" in out
    status, _, complaint = uva("arm", "replay", folder, "--limits.joint_velocity", 99)
    assert status == 2
    assert "limits.joint_velocity is 99" in complaint


def test_recordings_are_finished_by_the_command(uva, tmp_path):
    assert uva("arm", "recover", tmp_path) == (0, f"{tmp_path} has no unfinished recordings.\n", "")
    recording = Recorder(tmp_path, 1000).begin(META)
    status, out, _ = uva("arm", "recover", tmp_path)
    assert status == 1
    assert "is still being recorded; end that first." in out
    recording.abort("")
    (tmp_path / "cut.partial").mkdir()
    (tmp_path / "cut.partial" / "meta.json").write_text('{"format": "uva_lightning episode 1"}')
    status, out, _ = uva("arm", "recover", tmp_path)
    assert (status, out) == (0, f"finished {tmp_path / 'cut'}\n")
    status, _, complaint = uva("arm", "recover", tmp_path / "none")
    assert status == 2
    assert "There is no folder" in complaint
