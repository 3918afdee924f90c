"""Every layout on disk becomes the same episodes in memory, and bad data is refused with its reason."""

from __future__ import annotations

import json

import numpy as np
import pytest

from uva_lightning.datamodules.layouts import read_episodes
from uva_lightning.datamodules.pusht import PushT
from uva_lightning.datamodules.store import EpisodeStore

LENGTHS = (30, 41, 36)


def read(path):
    return read_episodes(path, PushT.fields, PushT.facts)


def made_up():
    """Three episodes of noise."""
    rng, steps = np.random.default_rng(0), sum(LENGTHS)
    return EpisodeStore(
        {"top": rng.integers(0, 256, (steps, 96, 96, 3), dtype=np.uint8)},
        rng.uniform(0, 512, (steps, 2)).astype(np.float32),
        {"agent": rng.uniform(0, 512, (steps, 2)).astype(np.float32)},
        np.cumsum(LENGTHS),
    )


def same(one, other):
    np.testing.assert_array_equal(one.video["top"], other.video["top"])
    np.testing.assert_array_equal(one.action, other.action)
    np.testing.assert_array_equal(one.state["agent"], other.state["agent"])
    np.testing.assert_array_equal(one.ends, other.ends)


def write_replay_buffer(path, store, img=np.uint8, keys=("img", "state", "action")):
    zarr = pytest.importorskip("zarr")
    target = zarr.storage.ZipStore(path, mode="w") if path.suffix == ".zip" else path
    root = zarr.open_group(target, mode="w", zarr_format=2)
    state = np.concatenate([store.state["agent"], np.zeros((store.steps, 3), np.float32)], axis=1)
    arrays = {"img": store.video["top"].astype(img), "state": state, "action": store.action}
    for key in keys:
        root.create_array(f"data/{key}", data=arrays[key], chunks=(40, *arrays[key].shape[1:]))
    root.create_array("meta/episode_ends", data=store.ends)
    if path.suffix == ".zip":
        target.close()


def write_demos(path, store, count=None):
    path.mkdir()
    meta = {"format": "uva_lightning demos 1", "env": "pusht", "seed": 0, "candidates": 100, "episodes": 3}
    (path / "meta.json").write_text(json.dumps(meta))
    for number, (begin, end) in list(enumerate(zip(store.begins, store.ends, strict=True)))[:count]:
        arrays = {"frames": store.video["top"], "action": store.action, "agent": store.state["agent"]}
        rows = {name: values[begin:end] for name, values in arrays.items()}
        np.savez_compressed(path / f"episode_{number:06d}.npz", **rows)


@pytest.mark.parametrize("img", [np.uint8, np.float32], ids=["u8", "f32"])
@pytest.mark.parametrize("name", ["folder.zarr", "whole.zarr.zip"])
def test_replay_buffer(tmp_path, name, img):
    store = made_up()
    write_replay_buffer(tmp_path / name, store, img)
    same(read(tmp_path / name), store)


def test_demos(tmp_path):
    store = made_up()
    write_demos(tmp_path / "demos", store)
    same(read(tmp_path / "demos"), store)


def test_nothing_there_and_unknown_layout(tmp_path):
    with pytest.raises(FileNotFoundError, match="no dataset at .*nowhere; set data.path"):
        read(tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"nothing readable.*expected one of: folder of episode.*zarr.*LeRobot"):
        read(tmp_path)
    (tmp_path / "film.mp4").touch()
    with pytest.raises(ValueError, match=r"it holds film.mp4"):
        read(tmp_path)


def test_bad_replay_buffers(tmp_path):
    store = made_up()
    write_replay_buffer(tmp_path / "keys.zarr", store, keys=("img", "action"))
    with pytest.raises(ValueError, match=r"lacks state: found action, img, expected action, img, state"):
        read(tmp_path / "keys.zarr")
    dark = EpisodeStore({"top": store.video["top"] // 128}, store.action, store.state, store.ends)
    write_replay_buffer(tmp_path / "unit.zarr", dark, np.float32)
    with pytest.raises(ValueError, match=r"'img' in .* has values from 0 to 1 .*expected 0 to 255"):
        read(tmp_path / "unit.zarr")
    (tmp_path / "half.zip").write_bytes(b"PK\x03\x04 not all of it")
    with pytest.raises(ValueError, match="no whole zip file"):
        read(tmp_path / "half.zip")
    (tmp_path / "empty.zarr").mkdir()
    (tmp_path / "empty.zarr/.zgroup").write_text('{"zarr_format": 2}')
    with pytest.raises(ValueError, match="lacks .* found nothing"):
        read(tmp_path / "empty.zarr")


def test_bad_demos(tmp_path):
    write_demos(tmp_path / "part", made_up(), count=2)
    with pytest.raises(ValueError, match="2 of 3 episodes, expected all; finish it with: uva demos pusht --out"):
        read(tmp_path / "part")
    write_demos(tmp_path / "cut", made_up())
    file = tmp_path / "cut/episode_000001.npz"
    file.write_bytes(file.read_bytes()[:5000])
    with pytest.raises(ValueError, match="episode_000001.npz is damaged"):
        read(tmp_path / "cut")


def test_store_refuses_bad_numbers():
    store = made_up()
    action = store.action.copy()
    action[[35, 40, 77]] = np.nan
    with pytest.raises(ValueError, match="'action' has 3 steps with NaN or .*, first in episode 1 at its step 5"):
        EpisodeStore(store.video, action, store.state, store.ends)
    with pytest.raises(ValueError, match="'action' has 106 steps, but the last episode ends at 107"):
        EpisodeStore(store.video, store.action[:-1], store.state, store.ends)
    with pytest.raises(ValueError, match="Episode 1 ends at step 20, expected more than 30"):
        EpisodeStore(store.video, store.action, store.state, np.array([30, 20, 107]))
    with pytest.raises(ValueError, match="0 episodes, expected at least one"):
        EpisodeStore(store.video, store.action, store.state, np.array([], dtype=np.int64))
    with pytest.raises(ValueError, match=r"Camera 'top' is float32\[107, 96, 96, 3\], expected u8"):
        EpisodeStore({"top": store.video["top"].astype(np.float32)}, store.action, store.state, store.ends)


def test_store_selects_episodes():
    store = made_up()
    part = store.select([2, 0])
    assert part.lengths.tolist() == [36, 30]
    np.testing.assert_array_equal(part.action, np.concatenate([store.action[71:], store.action[:30]]))
    np.testing.assert_array_equal(part.video["top"][36:], store.video["top"][:30])
