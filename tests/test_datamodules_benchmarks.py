"""The paper's data sets, on episodes made up in their layout."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from uva_lightning.datamodules.generate import RandomEpisodes
from uva_lightning.datamodules.instructions import RandomInstructions
from uva_lightning.datamodules.libero10 import Libero10
from uva_lightning.datamodules.pusht import PushT
from uva_lightning.datamodules.pusht_m import PushTM
from uva_lightning.datamodules.rows import Rows
from uva_lightning.datamodules.toolhang import ToolHang
from uva_lightning.datamodules.umi import UMI
from uva_lightning.datamodules.umi_multi import UMIMulti
from uva_lightning.datamodules.umi_poses import RelativePoses
from uva_lightning.datamodules.windows import Window
from uva_lightning.rotations import from_axis_angle, to_six

zarr = pytest.importorskip("zarr")

UMI_WINDOW = Window(pad=(15, 16), state_steps=16, shift_action=False, every=3)
SETS = {
    "pusht": (PushT, {}, {"agent": 2}),
    "pusht_m": (PushTM, {}, {"agent": 2}),
    "libero10": (Libero10, {"text": RandomInstructions()}, {}),
    "toolhang": (ToolHang, {}, {"eef_pos": 3, "eef_quat": 4, "gripper_qpos": 2}),
    "umi": (UMI, {"window": UMI_WINDOW}, {"eef_pos": 3, "eef_rot": 6, "gripper_width": 1, "eef_rot_wrt_start": 6}),
    "umi_multi": (
        UMIMulti,
        {"window": UMI_WINDOW, "text": RandomInstructions()},
        {"eef_pos": 3, "eef_rot": 6, "gripper_width": 1, "eef_rot_wrt_start": 6},
    ),
}
MAKER = RandomEpisodes(episodes=2, steps=30)


def ready(kind, path, **options):
    data = kind(path, batch_size=4, generate=MAKER, **options)
    data.prepare_data()
    data.setup("fit")
    return data


@pytest.mark.parametrize("name", SETS)
def test_made_up_episodes_become_batches(name, tmp_path):
    kind, options, states = SETS[name]
    data = ready(kind, tmp_path / "set.zarr", **options)
    spec = data.spec
    for batch in (next(iter(data.train_dataloader())), next(iter(data.val_dataloader()))):
        assert batch.action.shape == (4, 16, spec.action_dim)
        assert {entry: values.shape[1:] for entry, values in batch.state.items()} == {
            entry: (spec.proprio_steps, width) for entry, width in states.items()
        }
        assert {entry: values.shape[1:] for entry, values in batch.future_state.items()} == {
            entry: (16, width) for entry, width in states.items()
        }
        for camera in spec.cameras:
            assert batch.video[camera].shape == (4, 8, spec.image_size, spec.image_size, 3)
            assert batch.video[camera].float().std() > 5
        text = (4, 512) if "text" in options else None
        assert (None if batch.text is None else tuple(batch.text.shape)) == text
        assert all(torch.isfinite(values).all() for values in (batch.action, *batch.state.values()))


def test_nothing_is_overwritten_and_nothing_is_left_half(tmp_path, monkeypatch):
    (tmp_path / "mine").mkdir()
    MAKER(tmp_path / "mine", PushT(tmp_path / "mine"))
    assert not list((tmp_path / "mine").iterdir())

    def fail(*_):
        raise OSError("no space left")

    monkeypatch.setattr(MAKER, "_numbers", fail)
    with pytest.raises(OSError, match="no space left"):
        MAKER(tmp_path / "set.zarr", PushT(tmp_path / "set.zarr"))
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_the_same_seed_makes_the_same_episodes(tmp_path):
    one, two = (ready(PushT, tmp_path / name).store for name in ("one.zarr", "two.zarr.zip"))
    assert (one.video["top"] == two.video["top"]).all()
    assert (one.action == two.action).all()
    assert one.action.min() >= 0
    assert 100 < one.action.max() <= 512


def test_a_data_set_without_fields_cannot_be_made_up(tmp_path):
    class Own(PushT):
        fields = {}

    with pytest.raises(ValueError, match="Own does not say how it looks as replay_buffer"):
        Own(tmp_path / "x", generate=MAKER).prepare_data()


def test_libero_is_turned_upright_once(tmp_path):
    data = ready(Libero10, tmp_path / "set.zarr", text=RandomInstructions())
    stored = zarr.open_group(tmp_path / "set.zarr", mode="r")["data/agentview_rgb"][:]
    np.testing.assert_array_equal(data.store.video["agentview"][:], stored[:, ::-1])
    assert data.store.instructions == ["made-up task 0", "made-up task 1"]
    assert Libero10(tmp_path / "set.zarr").store.instructions is None  # nobody asked


def test_libero_tokens_are_read_with_clips_vocabulary(tmp_path):
    tokenizer = pytest.importorskip("open_clip.tokenizer").SimpleTokenizer()
    ready(Libero10, tmp_path / "set.zarr")
    root = zarr.open_group(tmp_path / "set.zarr", mode="a")
    del root["meta/instructions"]
    ids = np.full((60, 2, 30), 49407)
    for row, sentence in ((0, "KITCHEN SCENE3 turn on the stove"), (30, "put both moka pots on it")):
        words = tokenizer.encode(sentence)
        ids[row : row + 30, 0, : len(words) + 1] = [49406, *words]
    root.create_array("data/language", data=ids)
    store = Libero10(tmp_path / "set.zarr", text=RandomInstructions()).store
    assert store.instructions == ["kitchen scene 3 turn on the stove", "put both moka pots on it"]


def test_missing_data_say_how_to_try_without(tmp_path):
    with pytest.raises(FileNotFoundError, match="set data.path to one, or try without: --data.generate RandomEpisodes"):
        ToolHang(tmp_path / "none").setup("fit")


def homogeneous(place, turn):
    pose = torch.eye(4, dtype=torch.float64).repeat(*place.shape[:-1], 1, 1)
    pose[..., :3, 3], pose[..., :3, :3] = place, from_axis_angle(turn)
    return pose


def test_umi_poses_are_relative_to_the_present(tmp_path):
    """Written out with 4 x 4 matrices: inverse(present) @ pose."""
    data = ready(UMI, tmp_path / "set.zarr", window=UMI_WINDOW)
    raw = data.store
    batch = data._batches(data._train, None)[torch.tensor([12, 29])]
    begin = int(raw.begins[1 - data.val_episodes()[0]])
    for sample, now in enumerate((begin + 12, begin + 29)):
        steps = (now + 3 * torch.arange(-15, 17)).clamp(begin, begin + 29)
        place, turn = (torch.from_numpy(raw.state[n]).double() for n in ("eef_pos", "eef_axis_angle"))
        poses = torch.linalg.inv(homogeneous(place[now], turn[now])) @ homogeneous(place[steps], turn[steps])
        ten = torch.cat((poses[:, :3, 3], to_six(poses[:, :3, :3])), dim=-1).float()
        torch.testing.assert_close(batch.action[sample, :, :9], ten[16:], atol=1e-5, rtol=0)
        torch.testing.assert_close(batch.state["eef_pos"][sample], ten[:16, :3], atol=1e-5, rtol=0)
        torch.testing.assert_close(batch.state["eef_rot"][sample], ten[:16, 3:], atol=1e-5, rtol=0)
        width = torch.from_numpy(raw.state["gripper_width"])[steps]
        torch.testing.assert_close(batch.action[sample, :, 9:], width[16:])
        start = torch.from_numpy(raw.state["start_pose"]).double()[now]
        from_start = (torch.linalg.inv(homogeneous(start[:3], start[3:])) @ homogeneous(place[steps], turn[steps]))[
            :, :3, :3
        ]
        entry = torch.cat((batch.state["eef_rot_wrt_start"], batch.future_state["eef_rot_wrt_start"]), dim=1)
        torch.testing.assert_close(entry[sample], to_six(from_start).float(), atol=1e-5, rtol=0)
    assert batch.state["eef_pos"][:, -1].abs().max() < 1e-6


def test_noise_on_the_start_pose_is_drawn_anew_and_repeatable(tmp_path):
    data = ready(UMI, tmp_path / "set.zarr", window=UMI_WINDOW)
    batches = data._batches(data._train, None)

    def rotation(batch):
        return batches[Rows(torch.arange(4), 1, batch, 0, 4)].state["eef_rot_wrt_start"]

    assert rotation(5).equal(rotation(5))
    assert 0.01 < float((rotation(5) - rotation(6)).std()) < 0.2
    batches.extras = batches.extras._replace(transform=RelativePoses(start_noise=0.0))
    torch.testing.assert_close(rotation(5), batches[torch.arange(4)].state["eef_rot_wrt_start"])


def test_rates_follow_from_the_window():
    assert UMI("nowhere", window=UMI_WINDOW).spec.rate_hz == pytest.approx(19.98)
    assert UMI("nowhere", window=replace(UMI_WINDOW, every=1)).spec.rate_hz == pytest.approx(59.94)
