"""Replay buffers: pictures read when they are asked for, in bounded memory, by any process; damage is named."""

from __future__ import annotations

import builtins
import multiprocessing
import os
import pickle
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from uva_lightning.datamodules import replay_buffer
from uva_lightning.datamodules.faults import Broken, Faults
from uva_lightning.datamodules.fields import Fields
from uva_lightning.datamodules.zarr_frames import ZarrFrames
from uva_lightning.types import DataSpec

zarr = pytest.importorskip("zarr")

LENGTHS = (20, 25, 18)
ENDS = np.cumsum(LENGTHS)
STEPS, SIZE = sum(LENGTHS), 16
SPEC = DataSpec(cameras=("top",), image_size=SIZE, action_dim=2, state_dims={"agent": 2}, rate_hz=10)
FIELDS = Fields(video={"top": "img"}, action="action", state={"agent": "state"})
PICTURES = np.random.default_rng(0).integers(0, 256, (STEPS, SIZE, SIZE, 3), dtype=np.uint8)
NUMBERS = np.random.default_rng(1).normal(size=(STEPS, 2)).astype(np.float32)


def write(path, chunk=8, fmt=2, codec="auto", shards=None, **changes):
    """Write a replay buffer; ``changes`` replace fields, None leaves one out."""
    arrays = {"img": PICTURES, "action": NUMBERS, "state": NUMBERS + 1, "episode_ends": ENDS, **changes}
    store = zarr.storage.ZipStore(path, mode="w") if path.suffix == ".zip" else zarr.storage.LocalStore(path)
    root = zarr.open_group(store, mode="w", zarr_format=fmt)
    root.create_group("meta")
    for name, values in arrays.items():
        if values is None:
            continue
        values = np.asarray(values)
        if name == "img":
            chunks = (chunk, *values.shape[1:])
            root.create_array("data/img", data=values, chunks=chunks, compressors=codec, shards=shards)
        else:
            root.create_array(f"{'meta' if name == 'episode_ends' else 'data'}/{name}", data=values)
    store.close()
    return path


def read(path, on_error="stop"):
    faults = Faults(on_error)
    return replay_buffer.read(path, FIELDS, SPEC, faults), faults


def jpeg_xl():
    codecs = pytest.importorskip("imagecodecs.numcodecs")
    codecs.register_codecs(verbose=False)
    return codecs.Jpegxl(lossless=True)


@pytest.fixture
def lazy(monkeypatch):
    monkeypatch.setattr(replay_buffer, "IN_MEMORY_BYTES", 0)


@pytest.mark.parametrize("fmt", [2, 3])
@pytest.mark.parametrize("name", ["set.zarr", "set.zarr.zip"])
@pytest.mark.parametrize("kind", [np.uint8, np.float32, np.int64])
def test_pictures_are_the_same_from_memory_and_from_disk(tmp_path, monkeypatch, name, fmt, kind):
    path = write(tmp_path / name, fmt=fmt, img=PICTURES.astype(kind))
    whole, _ = read(path)
    monkeypatch.setattr(replay_buffer, "IN_MEMORY_BYTES", 0)
    part, _ = read(path)
    assert isinstance(whole.video["top"], np.ndarray)
    assert isinstance(part.video["top"], ZarrFrames)
    np.testing.assert_array_equal(whole.video["top"], PICTURES)
    index = np.array([62, 0, 7, 8, 8, 33, 0])
    np.testing.assert_array_equal(part.video["top"][index], PICTURES[index])
    np.testing.assert_array_equal(part.video["top"][5:61:3], PICTURES[5:61:3])
    np.testing.assert_array_equal(part.video["top"][:], PICTURES)
    assert part.video["top"][index[:0]].shape == (0, SIZE, SIZE, 3)
    np.testing.assert_array_equal(whole.action, part.action)
    assert whole.identity is None
    assert part.identity
    assert part.names[1] == f"{name}: episode 1"


def test_pictures_in_shards_and_in_pieces(tmp_path, lazy):
    path = write(tmp_path / "set.zarr", fmt=3, chunk=4, shards=(16, SIZE, SIZE, 3))
    np.testing.assert_array_equal(read(path)[0].video["top"][:], PICTURES)
    root = zarr.open_group(tmp_path / "set.zarr", mode="a")
    del root["data/img"]
    root.create_array("data/img", data=PICTURES, chunks=(7, 5, SIZE, 1))
    np.testing.assert_array_equal(read(path)[0].video["top"][:], PICTURES)


def test_each_chunk_is_decoded_once_per_request_and_few_are_kept(tmp_path, monkeypatch):
    frames = ZarrFrames(write(tmp_path / "set.zarr.zip"), "data/img", ENDS, memory=3 * 8 * SIZE * SIZE * 3)
    decoded, decode = [], ZarrFrames._decode
    monkeypatch.setattr(ZarrFrames, "_decode", lambda self, chunks: (decoded.extend(chunks), decode(self, chunks))[1])
    frames[np.array([0, 17, 1, 16, 0, 40])]
    assert sorted(decoded) == [0, 2, 5]
    frames[np.array([3, 18])]
    assert sorted(decoded) == [0, 2, 5]  # kept
    frames[:]
    assert sorted(decoded) == [0, 1, 2, 3, 4, 5, 6, 7]  # those that were kept are used before they give way
    assert frames._bytes == sum(pictures.nbytes for pictures in frames._kept.values()) <= frames.memory


class Steps(torch.utils.data.Dataset):
    def __init__(self, frames):
        self.frames = frames

    def __len__(self):
        return STEPS

    def __getitem__(self, step):
        return self.frames[np.array([step])][0]


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_several_workers_read_one_zip(tmp_path, method):
    frames = ZarrFrames(write(tmp_path / "set.zarr.zip", chunk=1), "data/img", ENDS, memory=0)
    frames[:5]  # opened before the workers are started, as a tokenizer that is fitted does
    context = multiprocessing.get_context(method)
    loader = DataLoader(Steps(frames), batch_size=None, num_workers=2, multiprocessing_context=context, timeout=60)
    np.testing.assert_array_equal(np.stack([np.asarray(picture) for picture in loader]), PICTURES)
    np.testing.assert_array_equal(frames[:], PICTURES)


def test_pickled_frames_hold_no_pictures(tmp_path):
    frames = ZarrFrames(write(tmp_path / "set.zarr.zip"), "data/img", ENDS)
    frames[:]
    words = pickle.dumps(frames)
    assert len(words) < 2000
    np.testing.assert_array_equal(pickle.loads(words)[:], PICTURES)


def test_floats_from_0_to_1_are_refused_but_dark_pictures_are_not(tmp_path):
    path = write(tmp_path / "unit.zarr", img=(PICTURES / 255).astype(np.float32))
    with pytest.raises(Broken, match=r"'img' in .* has values from 0 to 1 in float32, expected 0 to 255; multiply"):
        read(path)
    dark = PICTURES.astype(np.float32)
    dark[8:16] = 0.25
    store, _ = read(write(tmp_path / "dark.zarr", img=dark))
    assert store.video["top"][8:16].max() == 0
    beyond = PICTURES.astype(np.float32)
    beyond[30] = -3
    with pytest.raises(Broken, match=r"'img' in .*beyond.zarr, episode 1 from its step 4 .*from -3 to 255, expected 0"):
        read(write(tmp_path / "beyond.zarr", img=beyond))


def spoil(path, step, words=b"not a picture"):
    """Replace the chunk of one step, in a folder."""
    (path / f"data/img/{step}.0.0.0").write_bytes(words)


def test_a_damaged_jpeg_xl_picture_stops_with_its_place(tmp_path, lazy):
    path = write(tmp_path / "set.zarr", chunk=1, codec=jpeg_xl())
    spoil(path, 41)
    frames = read(path)[0].video["top"]
    np.testing.assert_array_equal(frames[:41], PICTURES[:41])
    place = r"'img' in .*set.zarr, episode 1 from its step 21 \(steps 41 to 41 of the file\), cannot be decoded .*skip"
    with pytest.raises(Broken, match=place):
        frames[:]


def test_episodes_with_damaged_pictures_are_left_out_and_counted(tmp_path):
    path = write(tmp_path / "set.zarr", chunk=1, codec=jpeg_xl())
    spoil(path, 41)
    spoil(path, 43)
    with pytest.raises(Broken, match="episode 1 from its step 2"):
        read(path)
    store, faults = read(path, "skip")
    assert len(faults.found) == 1
    assert store.lengths.tolist() == [20, 18]
    assert store.names == ["set.zarr: episode 0", "set.zarr: episode 2"]
    np.testing.assert_array_equal(store.video["top"], np.concatenate([PICTURES[:20], PICTURES[45:]]))
    np.testing.assert_array_equal(store.action, np.concatenate([NUMBERS[:20], NUMBERS[45:]]))


@pytest.mark.parametrize("name", ["set.zarr", "set.zarr.zip"])
def test_pictures_that_were_not_copied_are_no_black_pictures(tmp_path, lazy, name):
    path = write(tmp_path / name, fmt=2)
    if path.is_dir():
        (path / "data/img/3.0.0.0").unlink()
    else:
        with zipfile.ZipFile(path) as old, zipfile.ZipFile(tmp_path / "new.zip", "w") as new:
            for entry in old.namelist():
                if entry != "data/img/3.0.0.0":
                    new.writestr(entry, old.read(entry))
        path = tmp_path / "new.zip"
    with pytest.raises(Broken, match=r"steps 24 to 31 of the file\), are absent: it has no data/img/3.0.0.0"):
        read(path)[0].video["top"][:]


def test_a_zip_that_was_cut_off_or_changed(tmp_path, lazy):
    whole = write(tmp_path / "set.zarr.zip", chunk=1).read_bytes()
    (tmp_path / "half.zip").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(Broken, match="half.zip is no whole zip file, .* copy or download it again"):
        read(tmp_path / "half.zip")
    with zipfile.ZipFile(tmp_path / "set.zarr.zip") as file:
        place = file.getinfo("data/img/30.0.0.0").header_offset + 60
    (tmp_path / "flip.zip").write_bytes(whole[:place] + bytes([whole[place] ^ 255]) + whole[place + 1 :])
    with pytest.raises(Broken, match=r"episode 1 from its step 10 .*Bad CRC-32"):
        read(tmp_path / "flip.zip")[0].video["top"][:]


def test_missing_imagecodecs_is_named(tmp_path, monkeypatch):
    path = write(tmp_path / "set.zarr", chunk=1, codec=jpeg_xl())
    from numcodecs import registry

    monkeypatch.delitem(registry.codec_registry, "imagecodecs_jpegxl")
    imported = builtins.__import__

    def without(name, *args, **options):
        if name.startswith("imagecodecs"):
            raise ImportError(f"No module named '{name}'")
        return imported(name, *args, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImportError, match=r"needs imagecodecs .*_jpegxl.*pip install 'uva_lightning\[data\]'"):
        read(path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"episode_ends": None}, r"lacks meta/episode_ends: found data/ with action, img, state"),
        ({"episode_ends": ENDS.astype(np.float32)}, r"episode_ends in .* is float32\[3\], expected whole numbers"),
        ({"episode_ends": np.array([20, 10, 63])}, r"falls to 10 at episode 1, expected exclusive ends that rise"),
        ({"episode_ends": np.array([20, 45, 70])}, r"Episode 2 in .* ends at step 70, but there are 63 steps"),
        ({"episode_ends": np.array([20, 45])}, r"has 63 steps, but its last episode ends at 45"),
        (
            {"episode_ends": np.array([20, 20, 63])},
            r"Episode 1 in .* is empty .*remove its entry",
        ),
        ({"action": NUMBERS[:-1]}, r"different numbers of steps \('action' 62, 'img' 63, 'state' 63\)"),
        ({"action": NUMBERS.astype("U8")}, r"'action' in .* is <U8, expected numbers"),
        ({"img": PICTURES[..., 0]}, r"'img' in .* has the shape \[63, 16, 16\], expected \[n, H, W, 3\]"),
        ({"img": PICTURES > 100}, r"'img' in .* is bool, expected u8 or numbers from 0 to 255"),
        ({"state": NUMBERS[:, :1]}, r"'state' in .* has 1 columns, expected 2 or more"),
    ],
)
def test_bad_recordings_are_refused_with_their_reason(tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        read(write(tmp_path / "set.zarr", **changes))


def test_episodes_with_bad_numbers_are_left_out_and_counted(tmp_path, lazy):
    action = NUMBERS.copy()
    action[22] = np.nan
    path = write(tmp_path / "set.zarr", action=action, episode_ends=np.array([20, 20, 45, 60, 70]))
    store, faults = read(path, "skip")
    assert [str(fault).split(" in ")[0] for fault in faults.found] == ["Episode 1", "Episode 4", "'action'"]
    assert "episode 2, first at its step 2" in str(faults.found[2])
    assert store.names == ["set.zarr: episode 0", "set.zarr: episode 3"]
    np.testing.assert_array_equal(store.video["top"][:], PICTURES[np.r_[0:20, 45:60]])


PROBE = """
import sys
from pathlib import Path
import numpy as np
from uva_lightning.datamodules.umi import UMI
from uva_lightning.datamodules.windows import Window

def peak():
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) >> 10

before = peak()
data = UMI(Path(sys.argv[1]), batch_size=16, window=Window(pad=(15, 16), shift_action=False, every=3))
data.setup("fit")
for number, batch in zip(range(int(sys.argv[2])), data.train_dataloader()):
    assert batch.video["camera0"].shape == (16, 8, 224, 224, 3)
print(data.store.steps * 224 * 224 * 3 >> 20, peak() - before)
"""


def huge(path, chunks, chunk=16):
    """Write a recording of UMI whose chunks of pictures are one file under many names."""
    steps = chunks * chunk
    root = zarr.open_group(path, mode="w", zarr_format=2)
    picture = np.random.default_rng(0).integers(0, 256, (chunk, 224, 224, 3), dtype=np.uint8)
    array = root.create_array("data/camera0_rgb", shape=(steps, 224, 224, 3), chunks=(chunk, 224, 224, 3), dtype="u1")
    array[:chunk] = picture
    for number in range(1, chunks):
        os.link(path / "data/camera0_rgb/0.0.0.0", path / f"data/camera0_rgb/{number}.0.0.0")
    for name, width in (("eef_pos", 3), ("eef_rot_axis_angle", 3), ("gripper_width", 1), ("demo_start_pose", 6)):
        root.create_array(f"data/robot0_{name}", data=np.ones((steps, width), np.float32))
    root.create_array("meta/episode_ends", data=np.arange(1, chunks // 20 + 1) * 20 * chunk)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak memory of a process is read from /proc")
def test_memory_does_not_grow_with_the_data_set(tmp_path):
    """Measured: 20 GB of pictures are windowed with the same memory as 6 GB."""
    huge(tmp_path / "cups.zarr", 2600)
    command = [sys.executable, "-c", PROBE, str(tmp_path / "cups.zarr"), "10"]
    result = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": "src"}, check=True
    )
    pictures, grown = map(int, result.stdout.split()[-2:])
    assert pictures > 5900  # MB, decoded
    assert grown < 600
