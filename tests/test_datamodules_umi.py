"""UMI's recordings: one and two hands, several tasks, JPEG XL in a zip, mirrors painted over."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from uva_lightning.datamodules import replay_buffer
from uva_lightning.datamodules.faults import Broken
from uva_lightning.datamodules.frames import JoinedFrames, LazyFrames
from uva_lightning.datamodules.generate import RandomEpisodes
from uva_lightning.datamodules.inpainting import Painted, covered
from uva_lightning.datamodules.instructions import RandomInstructions
from uva_lightning.datamodules.rows import Rows
from uva_lightning.datamodules.umi import UMI
from uva_lightning.datamodules.umi_bimanual import UMIBimanual
from uva_lightning.datamodules.umi_multi import UMIMulti
from uva_lightning.datamodules.umi_poses import RelativePoses
from uva_lightning.datamodules.windows import Window
from uva_lightning.rotations import from_axis_angle, to_six
from uva_lightning.types import Batch

pytest.importorskip("zarr")

WINDOW = Window(pad=(15, 16), state_steps=16, shift_action=False, every=3)
SIDE = [(0.0, 0.5), (0.25, 0.5), (0.25, 1.0), (0.0, 1.0)]


def made_up(kind, path, episodes=2, **options):
    jpeg_xl = options.pop("jpeg_xl", False)
    maker = RandomEpisodes(episodes, steps=30, jpeg_xl=jpeg_xl)
    data = kind(path, batch_size=4, window=WINDOW, generate=maker, **options)
    data.prepare_data()
    return data


def test_jpeg_xl_is_read_from_the_zip_when_asked_for(tmp_path, monkeypatch):
    pytest.importorskip("imagecodecs")
    monkeypatch.setattr(replay_buffer, "IN_MEMORY_BYTES", 0)
    data = made_up(UMI, tmp_path / "cups.zarr.zip", jpeg_xl=True)
    data.setup("fit")
    assert isinstance(data.store.video["camera0"], LazyFrames)
    plain = made_up(UMI, tmp_path / "plain.zarr")
    batch, other = (next(iter(each.val_dataloader())) for each in (data, plain) if each.setup("fit") is None)
    difference = batch.video["camera0"].float() - other.video["camera0"].float()
    assert difference.abs().mean() < 3
    assert batch.action.equal(other.action)
    assert [path.name for path in tmp_path.iterdir()] == ["cups.zarr.zip", "plain.zarr"]  # nothing was extracted


def test_two_hands_have_a_camera_and_ten_numbers_each(tmp_path):
    data = made_up(UMIBimanual, tmp_path / "two.zarr")
    data.setup("fit")
    assert data.spec.cameras == ("camera0", "camera1")
    assert data.spec.action_dim == 20
    batch = data._batches(data._train, None)[torch.tensor([12])]
    assert set(batch.video) == {"camera0", "camera1"}
    assert {name: tuple(values.shape) for name, values in batch.state.items()} == {
        f"robot{robot}_{name}": (1, 16, width)
        for robot in range(2)
        for name, width in (("eef_pos", 3), ("eef_rot", 6), ("gripper_width", 1), ("eef_rot_wrt_start", 6))
    }
    raw, begin = data.store, int(data.store.begins[1 - data.val_episodes()[0]])
    now, steps = begin + 12, (begin + 12 + 3 * torch.arange(1, 17)).clamp(begin, begin + 29)
    for robot in range(2):
        place, turn = (torch.from_numpy(raw.state[f"robot{robot}_{name}"]) for name in ("eef_pos", "eef_axis_angle"))
        facing = from_axis_angle(turn[now])
        expected = torch.cat(
            (
                (place[steps] - place[now]) @ facing,
                to_six(facing.mT @ from_axis_angle(turn[steps])),
                torch.from_numpy(raw.state[f"robot{robot}_gripper_width"])[steps],
            ),
            dim=-1,
        )
        torch.testing.assert_close(batch.action[0, :, 10 * robot : 10 * robot + 10], expected, atol=1e-5, rtol=0)
    assert not batch.action[..., :10].allclose(batch.action[..., 10:], atol=0.01)


def test_the_start_poses_of_two_hands_get_noise_of_their_own():
    entries = {"eef_pos": 3, "eef_axis_angle": 3, "gripper_width": 1, "start_pose": 6}
    state = {f"robot{r}_{name}": torch.zeros(2, 4, width) for r in range(2) for name, width in entries.items()}
    batch = Batch(state=state, future_state=state, action=torch.zeros(2, 16, 14))
    noisy = RelativePoses(grippers=("robot0_", "robot1_"))(batch, Rows(torch.arange(2), 1, 0, 0, 2))
    one, other = (noisy.state[f"robot{robot}_eef_rot_wrt_start"] for robot in range(2))
    assert (one - other).abs().max() > 0.01


def test_tasks_are_joined_and_read_when_asked_for(tmp_path, monkeypatch):
    monkeypatch.setattr(replay_buffer, "IN_MEMORY_BYTES", 0)
    data = made_up(UMIMulti, tmp_path / "set", text=RandomInstructions())
    store = data.store
    assert isinstance(store.video["camera0"], JoinedFrames)
    assert store.instructions == [sentence for sentence in UMIMulti.tasks.values() for _ in range(2)]
    towel = UMI(tmp_path / "set/towel_folding_0.zarr", window=WINDOW).store
    np.testing.assert_array_equal(store.video["camera0"][np.arange(60, 120)], towel.video["camera0"][:])
    np.testing.assert_array_equal(store.action[60:120], towel.action)
    assert store.names[2] == "towel_folding_0.zarr: episode 0"
    assert store.identity
    (tmp_path / "set/towel_folding_0.zarr").rename(tmp_path / "set/other.zarr")
    with pytest.raises(FileNotFoundError, match=r"no dataset at .*towel_folding_0\.zarr"):
        UMIMulti(tmp_path / "set").setup("fit")


def test_mirrors_are_painted_over_in_the_recordings_that_have_them(tmp_path):
    plain = made_up(UMIMulti, tmp_path / "set").store.video["camera0"]
    mirrors = {"cup_arrangement_0": [SIDE, [(1 - x, y) for x, y in SIDE]]}
    painted = UMIMulti(tmp_path / "set", window=WINDOW, mirrors=mirrors).store.video["camera0"]
    cup, towel = np.arange(5), np.arange(60, 65)
    assert painted[cup][:, 113:, :55].max() == 0
    assert painted[cup][:, 113:, 169:].max() == 0
    np.testing.assert_array_equal(painted[cup][:, :111], plain[cup][:, :111])
    np.testing.assert_array_equal(painted[cup][:, :, 58:166], plain[cup][:, :, 58:166])
    np.testing.assert_array_equal(painted[towel], plain[towel])
    assert plain[cup][:, 113:, :55].max() > 0  # nothing was painted in place
    with pytest.raises(ValueError, match="data.mirrors names the recording 'cups', expected one of cup_arrangement_0"):
        UMIMulti(tmp_path / "set", mirrors={"cups": [SIDE]})


def test_pictures_painted_over_differently_are_told_apart_without_reading_them(tmp_path, monkeypatch):
    monkeypatch.setattr(replay_buffer, "IN_MEMORY_BYTES", 0)
    path = made_up(UMIMulti, tmp_path / "set").path
    paint = ({}, {"cup_arrangement_0": [SIDE]}, {"cup_arrangement_0": [SIDE, [(1 - x, y) for x, y in SIDE]]})
    known = [UMIMulti(path, window=WINDOW, mirrors=mirrors).store.identity for mirrors in (*paint, paint[1])]
    assert None not in known
    assert len(set(known)) == 3
    assert known[1] == known[3]


def test_polygons_are_relative_to_the_picture():
    mask = covered([[(0, 0), (1, 0), (1, 0.5), (0, 0.5)]], 9, 20)
    assert mask[:5].all()
    assert not mask[5:].any()
    for polygon in ([(0, 0), (1, 1)], [(0, 0), (120, 0), (120, 60)]):
        with pytest.raises(ValueError, match="expected three or more corners .* from 0 to 1"):
            Painted(np.zeros((2, 8, 8, 3), np.uint8), [polygon])


def test_a_window_with_a_damaged_picture_stops_or_is_replaced(tmp_path, monkeypatch):
    pytest.importorskip("imagecodecs")
    monkeypatch.setattr(replay_buffer, "IN_MEMORY_BYTES", 0)
    path = tmp_path / "cups.zarr"
    made_up(UMI, path, jpeg_xl=True)
    for step in range(0, 30, 7):
        Path(path / f"data/camera0_rgb/{step}.0.0.0").write_bytes(b"no picture")
    from uva_lightning.datamodules.reading import Reading

    data = UMI(path, batch_size=60, window=WINDOW)
    data.setup("fit")
    batches = data._batches(data._windows([0, 1]), None)
    with pytest.raises(Broken, match=r"'camera0_rgb' in .*cups.zarr, episode 0 from its step 0 "):
        batches[torch.arange(30)]
    data = UMI(path, batch_size=60, window=WINDOW, reading=Reading(on_error="skip"))
    data.setup("fit")
    batches = data._batches(data._windows([0, 1]), None)
    batch = batches[torch.arange(30)]
    assert batch.video["camera0"].shape[0] == 30
    assert batches.broken


def test_a_recording_of_one_hand_is_none_of_two(tmp_path):
    made_up(UMI, tmp_path / "one.zarr")
    with pytest.raises(ValueError, match=r"lacks camera1_rgb, robot1_demo_start_pose, robot1_eef_pos"):
        UMIBimanual(tmp_path / "one.zarr").setup("fit")
