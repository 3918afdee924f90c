"""Recorded episodes become training data: from the recordings, or from the LeRobot dataset made of them."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest
import torch
from recordings import META, made_recordings

from uva_lightning.datamodules.arm_episodes import ArmEpisodes
from uva_lightning.datamodules.arm_recordings import Choice, Recordings
from uva_lightning.datamodules.faults import Broken, Faults
from uva_lightning.datamodules.lerobot_dataset import LeRobot
from uva_lightning.datamodules.reading import Reading
from uva_lightning.datamodules.windows import Window
from uva_lightning.robot.episodes import RecordedEpisode
from uva_lightning.robot.operator import Label
from uva_lightning.robot.recorder import Recorder
from uva_lightning.robot.tool_poses import actions, tool_pose
from uva_lightning.rotations import from_axis_angle

LABELS = ("success", "failure", "success", "invalid")
WINDOW = Window(frames=2, horizon=8, shift_action=False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("recordings")
    made_recordings(path, LABELS, steps=11)
    return path


@pytest.fixture(scope="module")
def dataset(folder, tmp_path_factory):
    from uva_lightning.cli import main

    out = tmp_path_factory.mktemp("converted") / "dataset"
    assert main(["convert", "robot_episodes", str(folder), "--out", str(out)]) == 0
    return out


def batches(data):
    data.setup("fit")
    return next(iter(data.train_dataloader()))


def test_windows_are_relative_to_the_present(folder):
    data = ArmEpisodes(folder, 32, window=WINDOW, batch_size=4)
    assert (data.spec.rate_hz, data.spec.cameras, data.spec.action_dim) == (10.0, ("wrist",), 10)
    assert data.spec.state_dims == {"eef_pos": 3, "eef_rot": 6, "gripper_width": 1, "eef_rot_wrt_start": 6}
    assert data.store.episodes == 2
    assert data.store.instructions == ["go forward"] * 2
    assert data.store.video["wrist"].shape == (data.store.steps, 32, 32, 3)
    batch = batches(data)
    assert batch.video["wrist"].shape == (4, 4, 32, 32, 3)
    assert batch.action.shape == (4, 8, 10)
    np.testing.assert_allclose(batch.state["eef_pos"][:, -1], 0, atol=1e-6)
    np.testing.assert_allclose(batch.state["eef_rot"][:, -1], torch.eye(3)[:2].flatten().expand(4, 6), atol=1e-6)
    assert (batch.action[:, :, 2].diff(dim=1) > -1e-6).all()  # along the tool, as the arm went


def test_actions_are_what_the_arm_would_be_told(folder):
    """The way from a recording to a window is the inverse of that from a chunk to the arm."""
    data = ArmEpisodes(folder, 32, window=WINDOW, batch_size=4)
    episode = RecordedEpisode(sorted(folder.iterdir())[0])
    measured, state = episode.measured(), data.store.state
    begin = max(measured.time[0], episode.films["wrist"].times[0])
    wanted = begin + np.arange(9) / 10.0
    rows = [int(np.abs(measured.time - time).argmin()) for time in wanted]
    np.testing.assert_allclose(measured.time[rows], wanted, atol=2e-3)
    expected = actions(tool_pose(measured.eef[rows]), measured.opening[rows], tool_pose(measured.eef[rows[0]]))
    data.setup("fit")
    seven = torch.from_numpy(data.store.action[:9])[None]
    np.testing.assert_array_equal(seven[0, :, :3], state["eef_pos"][:9])
    batch = batches(data)
    one = replace(
        batch,
        action=seven,
        past_action=None,
        state={name: torch.from_numpy(values[:1])[None] for name, values in state.items()},
        future_state={name: torch.from_numpy(values[1:2])[None] for name, values in state.items()},
    )
    np.testing.assert_allclose(data.transform(one, None).action[0], expected, atol=2e-4)


def test_the_dataset_is_the_recordings(folder, dataset):
    recorded, converted = (ArmEpisodes(path, 32, window=WINDOW, batch_size=4) for path in (folder, dataset))
    assert recorded.spec == converted.spec
    for name, values in recorded.store.numbers().items():
        np.testing.assert_array_equal(values, converted.store.numbers()[name])
    one, other = batches(recorded), batches(converted)
    torch.testing.assert_close(one.action, other.action, rtol=0, atol=0)
    assert (one.video["wrist"].float() - other.video["wrist"]).abs().mean() < 4


def test_lerobot_reads_the_dataset_as_it_is(dataset):
    data = LeRobot(dataset, 32, window=WINDOW, batch_size=4)
    assert (data.spec.rate_hz, data.spec.cameras, data.spec.action_dim) == (10.0, ("wrist",), 7)
    assert data.spec.action_meaning == "x, y, z, rx, ry, rz, opening"
    assert set(data.spec.state_dims) == {"eef_pos", "eef_axis_angle", "gripper_width", "start_pose"}
    assert batches(data).action.shape == (4, 8, 7)


def test_the_dataset_is_one_of_lerobot_v3(dataset):
    info = json.loads((dataset / "meta/info.json").read_text())
    assert (info["codebase_version"], info["fps"], info["total_episodes"]) == ("v3.0", 10, 2)
    assert info["features"]["observation.images.wrist"]["shape"] == [32, 48, 3]
    assert info["features"]["action"]["names"] == ["x", "y", "z", "rx", "ry", "rz", "opening"]
    table = pyarrow.parquet.read_table(dataset / "data/chunk-000/file-000.parquet")
    assert table.num_rows == info["total_frames"]
    listed = pyarrow.parquet.read_table(dataset / "meta/episodes/chunk-000/file-000.parquet").to_pylist()
    assert [episode["length"] for episode in listed] == [table.num_rows // 2] * 2
    assert {"dataset_from_index", "videos/observation.images.wrist/from_timestamp"} <= set(listed[0])
    tasks = pyarrow.parquet.read_table(dataset / "meta/tasks.parquet").to_pylist()
    assert tasks == [{"task_index": 0, "__index_level_0__": "go forward"}]


def test_a_model_trains_on_them(dataset, tiny_module):
    from lightning import Trainer

    data = ArmEpisodes(dataset, 48, window=WINDOW, batch_size=4)
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "accelerator": "cpu"}
    trainer = Trainer(max_steps=2, limit_val_batches=1, enable_model_summary=False, **quiet)
    trainer.fit(tiny_module(data.spec), data)
    assert trainer.global_step == 2


def test_labels_are_chosen_and_the_rest_is_counted(folder, uva, tmp_path):
    status, out, _ = uva("convert", "robot_episodes", folder, "--out", tmp_path / "one")
    assert status == 0
    assert "2 of 4 recordings taken (success), left out: 1 failure, 1 invalid." in out
    assert "2 episodes, " in out
    status, out, _ = uva(
        "convert", "robot_episodes", folder, "--out", tmp_path / "two", "--labels", "[success,failure]", "--rate_hz", 5
    )
    assert "3 of 4 recordings taken (success or failure), left out: 1 invalid." in out
    sources = json.loads((tmp_path / "two/meta/recordings.json").read_text())["episodes"]
    assert [source["label"] for source in sources] == ["success", "failure", "success"]
    assert [source["recording"] for source in sources] == [path.name for path in sorted(folder.iterdir())[:3]]
    assert (sources[0]["seed"], sources[0]["operator"]) == (3, "nobody")
    assert ArmEpisodes(tmp_path / "two", window=WINDOW).spec.rate_hz == 5


def test_conversion_leaves_nothing_behind_when_it_fails(folder, uva, tmp_path):
    for options, says in (
        (("--labels", "[invalid]", "--cameras", "[top]"), "Not all recordings have the camera 'top'. Known: wrist."),
        (("--gap", "0.03"), "has nothing of 'wrist' for 0.10 s, expected gaps of at most 0.06 s"),
        (("--rate_hz", "-1"), "rate_hz is -1.0, expected a positive number."),
    ):
        status, out, complaint = uva("convert", "robot_episodes", folder, "--out", tmp_path / "out", *options)
        assert (status, out) == (2, "")
        assert says in complaint
        assert not list(tmp_path.iterdir())
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("")
    status, _, complaint = uva("convert", "robot_episodes", folder, "--out", tmp_path / "out")
    assert "exists and is not empty" in complaint


def test_unfinished_and_broken_recordings_are_told(folder, uva, tmp_path):
    copied = shutil.copytree(folder, tmp_path / "copied")
    first = sorted(copied.iterdir())[0]
    (first / "video_wrist.mp4").write_bytes((first / "video_wrist.mp4").read_bytes()[:3000])
    (copied / "20260101T000000_000.partial").mkdir()
    status, _, complaint = uva("convert", "robot_episodes", copied, "--out", tmp_path / "out")
    assert status == 2
    assert f"{first.name}/video_wrist.mp4" in complaint
    with pytest.warns(UserWarning, match="1 broken episodes were left out, 1 are whole"):
        status, out, _ = uva("convert", "robot_episodes", copied, "--out", tmp_path / "out", "--on_error", "skip")
    assert status == 0
    assert "1 of 4 recordings taken (success), left out: 1 failure, 1 invalid, 1 broken; 1 unfinished, run: " in out
    with pytest.warns(UserWarning, match="1 broken episodes were left out"):
        store = ArmEpisodes(copied, reading=Reading(on_error="skip"), window=WINDOW).store
    assert store.episodes == 1


def test_no_recording_of_a_label_is_told(folder, tmp_path):
    failed = shutil.copytree(sorted(folder.iterdir())[1], tmp_path / "one")
    with pytest.raises(
        ValueError, match=r"0 of 1 recordings taken \(success\), left out: 1 failure; expected at least"
    ):
        Recordings(failed.parent, Choice(), Faults())


def made(folder: Path, times, frames, camera="wrist", size=(16, 16), **facts):
    recording = Recorder(folder, 1000).begin({**META, **facts})
    for time in times:
        recording.step({"time": time, "q": np.full(6, 0.01 * time), "opening": 0.05})
    for time in frames:
        recording.frame(camera, np.zeros((*size, 3), np.uint8), time)
    return recording.end(Label.SUCCESS, "")


@pytest.mark.parametrize(
    ("times", "frames", "says"),
    [
        ([0.0, 0.1, 0.2], [], "has no film"),
        ([0.0], [0.0, 0.1], "a single measurement or picture"),
        ([0.0, 0.1, 0.2], [0.5, 0.6, 0.7], "have 0.00 s in common"),
        ([0.0, 0.1, 2.0, 2.1], np.arange(0, 2.1, 0.1), "nothing of measurements for 1.90 s"),
    ],
)
def test_episodes_without_enough_are_broken(tmp_path, times, frames, says):
    made(tmp_path, times, frames)
    with pytest.raises(Broken, match=says):
        Recordings(tmp_path, Choice(), Faults())


def test_recordings_that_do_not_fit_together_are_told(tmp_path):
    made(tmp_path, [0.0, 0.1, 0.2], [0.0, 0.1, 0.2])
    made(tmp_path, [0.0, 0.1, 0.2], [0.0, 0.1, 0.2], size=(32, 16))
    with pytest.raises(ValueError, match=r"pictures of 'wrist' of 16 x 16 px and 32 x 16 px, expected one size"):
        Recordings(tmp_path, Choice(), Faults()).store(["wrist"])
    made(tmp_path, [0.0, 0.1, 0.2], [0.0, 0.1, 0.2], camera="top")
    with pytest.raises(ValueError, match="no camera that all recordings show"):
        Recordings(tmp_path, Choice(), Faults())


def test_tasks_come_from_the_recordings_or_the_command(tmp_path):
    for task in ("", "wave"):
        made(tmp_path, [0.0, 0.1, 0.2], [0.0, 0.1, 0.2], task=task)
        if not task:
            assert Recordings(tmp_path, Choice(), Faults()).store(["wrist"]).instructions is None
    with pytest.raises(ValueError, match="does not say what the robot was told, others do; set task"):
        Recordings(tmp_path, Choice(), Faults()).store(["wrist"])
    store = Recordings(tmp_path, Choice(task="rest"), Faults()).store(["wrist"])
    assert store.instructions == ["rest", "wave"]


def test_rates_are_those_of_the_slowest_stream(tmp_path):
    made(tmp_path, np.arange(0, 1.0, 0.01), 0.013 + np.arange(0, 1.0, 0.0334))
    recordings = Recordings(tmp_path, Choice(), Faults())
    assert recordings.rate_hz == 30.0
    store = recordings.store(["wrist"])
    assert store.steps == 30
    assert Recordings(tmp_path, Choice(rate_hz=12.5), Faults()).store(["wrist"]).steps == 13


def test_turns_are_interpolated_on_the_shorter_way(tmp_path):
    """Half-way between two rotations, also where their vectors jump."""
    recording = Recorder(tmp_path, 1000).begin(META)
    for time, angle in ((0.0, 3.0), (1.0, 3.4)):
        eef = np.eye(4)
        eef[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
        recording.step({"time": time, "eef": eef, "opening": 0.05 * time})
        recording.frame("wrist", np.zeros((16, 16, 3), np.uint8), time)
    recording.end(Label.SUCCESS, "")
    store = Recordings(tmp_path, Choice(rate_hz=2.0, gap=1.0), Faults()).store(["wrist"])
    turned = from_axis_angle(torch.from_numpy(store.state["eef_axis_angle"])).numpy()
    between = turned[0].T @ turned[1]
    assert np.arccos((np.trace(between) - 1) / 2) == pytest.approx(0.2, abs=1e-4)
    np.testing.assert_allclose(store.state["gripper_width"][:, 0], [0, 0.025, 0.05], atol=1e-7)


def test_options_that_cannot_be_are_told(folder):
    with pytest.raises(ValueError, match=r"set data.window.shift_action=false"):
        ArmEpisodes(folder, window=Window())
    with pytest.raises(ValueError, match="names top, but .* has wrist"):
        ArmEpisodes(folder, cameras=["top"])
    with pytest.raises(ValueError, match=r"labels are \['good'\]"):
        Choice(labels=("good",))
    with pytest.raises(FileNotFoundError, match="is no folder"):
        ArmEpisodes(folder / "none")
