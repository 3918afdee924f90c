"""The Push-T datamodule: facts, split, batches, symmetry and cached latents."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from uva_lightning.datamodules import latent_cache
from uva_lightning.datamodules.pusht import PushT, PushTMirror
from uva_lightning.datamodules.reading import Encoding, Reading
from uva_lightning.datamodules.store import EpisodeStore
from uva_lightning.datamodules.windows import Window

SHARED = Path(os.environ.get("UVA_SHARED", Path(__file__).resolve().parents[2] / "shared"))
ZARR = SHARED / "data/pusht/pusht_cchi_v7_replay_u8.zarr.zip"
EPISODES, STEPS = 10, 40


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Demonstrations of noise."""
    path, rng = tmp_path_factory.mktemp("data") / "demos", np.random.default_rng(0)
    path.mkdir()
    meta = {"format": "uva_lightning demos 1", "env": "pusht", "seed": 0, "candidates": 100, "episodes": EPISODES}
    (path / "meta.json").write_text(json.dumps(meta))
    for number in range(EPISODES):
        np.savez(
            path / f"episode_{number:06d}.npz",
            frames=rng.integers(0, 256, (STEPS, 96, 96, 3), dtype=np.uint8),
            action=rng.uniform(0, 512, (STEPS, 2)).astype(np.float32),
            agent=rng.uniform(0, 512, (STEPS, 2)).astype(np.float32),
        )
    return path


def ready(path, **options):
    data = PushT(path, **options)
    data.setup("fit")
    return data


def encode(frames):
    """Mean colour of 4 x 4 patches: u8[n, 96, 96, 3] to f32[n, 16, 3]."""
    return frames.float().unflatten(2, (4, 24)).unflatten(1, (4, 24)).mean((2, 4)).flatten(1, 2) / 255


def test_facts_are_known_before_the_data():
    spec = PushT("nowhere", window=Window(frames=2)).spec
    assert (spec.cameras, spec.image_size, spec.action_dim, spec.state_dims) == (("top",), 96, 2, {"agent": 2})
    assert spec.frame_steps() == (7, 15, 23, 31)


def test_a_batch_holds_its_windows(folder):
    data = ready(folder, batch_size=8)
    batch = next(iter(data.val_dataloader()))
    begin = data.store.begins[data.val_episodes()[0]]
    starts = begin - 1 + np.arange(8)
    frames = np.maximum(starts[:, None] + np.array([3, 7, 11, 15, 19, 23, 27, 31]), begin)
    np.testing.assert_array_equal(batch.video["top"], data.store.video["top"][frames])
    np.testing.assert_array_equal(batch.state["agent"], data.store.state["agent"][frames[:, :4]])
    np.testing.assert_array_equal(batch.action, data.store.action[starts[:, None] + np.arange(15, 31)])
    assert {name: flags.tolist() for name, flags in batch.present.items()} == dict.fromkeys(
        ("video", "action", "agent"), [True] * 8
    )
    assert (len(batch), batch.action.dtype, batch.video["top"].dtype) == (8, torch.float32, torch.uint8)
    assert len(batch.to("cpu", non_blocking=True)) == 8


def test_split_is_by_episode_and_all_windows_validate(folder):
    data = ready(folder, val_ratio=0.2, batch_size=16)
    held_out = data.val_episodes()
    assert len(held_out) == 2
    windows = STEPS - 23
    assert sum(len(batch.action) for batch in data.val_dataloader()) == 2 * windows
    val = {tuple(row) for episode in held_out for row in data.store.action[data.store.ends[episode] - STEPS :][:STEPS]}
    seen = {tuple(row) for batch in data.train_dataloader() for row in batch.action.flatten(0, 1).numpy()}
    assert seen
    assert not seen & val
    assert len(data.train_dataloader()) == 8 * windows // 16
    assert ready(folder, reading=Reading(episodes=4)).store.episodes == 4


@pytest.mark.real_data
@pytest.mark.skipif(not ZARR.exists(), reason=f"recorded Push-T data not at {ZARR}")
def test_recorded_data_is_split_as_uva_does():
    pytest.importorskip("zarr")
    data = ready(ZARR, symmetry=PushTMirror())
    assert data.val_episodes() == [18, 90, 134, 157]
    batch = data.train_dataloader().dataset[torch.arange(3)]
    assert batch.video["top"].shape == (3, 8, 96, 96, 3)
    # The goal, the walls and the empty plane are their own mirror image, up to the rounding of the drawing.
    scene = torch.from_numpy(np.median(data.store.video["top"][::50], axis=0).astype(np.uint8))
    assert (PushTMirror().frames(scene).int() - scene.int()).abs().float().mean() < 2
    # The agent is where the mirrored state says: the bluest spot of the mirrored picture.
    frames, agent = torch.from_numpy(data.store.video["top"][::500]), torch.from_numpy(data.store.state["agent"][::500])
    mirror = PushTMirror()
    shown = mirror.frames(frames).int()
    blue = (shown[..., 2] - shown[..., 0] > 120).float()  # [n, H, W]
    grid = (torch.arange(96) + 0.5) * 512 / 96
    total = blue.sum((1, 2))
    found = torch.stack([(blue.sum(1) * grid).sum(1), (blue.sum(2) * grid).sum(1)], dim=1) / total[:, None]
    assert (found - mirror.state("agent", agent))[total > 0].abs().max() < 6
    assert (total > 0).float().mean() > 0.9


def test_mirror_is_an_involution_and_exact_in_the_simulator():
    mirror = PushTMirror()
    frames = torch.randint(0, 256, (2, 3, 96, 96, 3), dtype=torch.uint8)
    torch.testing.assert_close(mirror.frames(mirror.frames(frames)), frames)
    points = torch.tensor([[0.0, 512.0], [100.0, 30.0], [256.0, 256.0]])
    assert mirror.action(points).tolist() == [[0.0, 512.0], [482.0, 412.0], [256.0, 256.0]]
    pytest.importorskip("pymunk"), pytest.importorskip("shapely"), pytest.importorskip("cv2")
    from uva_lightning.envs.pusht import PushT as Game

    game, other = Game(), Game()
    # The body's angle is measured from +y; a mirror at the diagonal turns angle q into pi/2 - q.
    game.reset(options={"state": (150, 120, 300, 280, 0.3)})
    other.reset(options={"state": (512 - 120, 512 - 150, 512 - 280, 512 - 300, np.pi / 2 - 0.3)})
    for target in [(200, 190), (260, 250), (300, 330), (320, 350), (330, 360)] * 3:
        *_, info = game.step(np.float32(target))
        *_, there = other.step(mirror.action(torch.tensor(target, dtype=torch.float32)).numpy())
        x, y, angle = info["block"]
        np.testing.assert_allclose(there["block"], [512 - y, 512 - x, (np.pi / 2 - angle) % (2 * np.pi)], atol=1e-4)
        assert there["coverage"] == pytest.approx(info["coverage"], abs=1e-6)
    shown = mirror.frames(torch.from_numpy(game.render())).int() - torch.from_numpy(other.render()).int()
    assert shown.abs().float().mean() < 2


def test_symmetry_doubles_the_training_windows(folder):
    plain, doubled = ready(folder), ready(folder, symmetry=PushTMirror())
    one, two = plain.train_dataloader().dataset, doubled.train_dataloader().dataset
    assert len(two) == 2 * len(one)
    rows, mirror = torch.tensor([5, 70]), PushTMirror()
    original, mapped = two[rows], two[rows + len(one)]
    torch.testing.assert_close(original.video["top"], one[rows].video["top"])
    torch.testing.assert_close(mapped.video["top"], mirror.frames(original.video["top"]))
    torch.testing.assert_close(mapped.action, mirror.action(original.action))
    torch.testing.assert_close(mapped.state["agent"], mirror.state("agent", original.state["agent"]))
    assert len(plain.val_dataloader().dataset) == len(doubled.val_dataloader().dataset)


def test_cached_latents_equal_encoding_the_batch(folder, tmp_path):
    data = ready(folder, symmetry=PushTMirror(), batch_size=32, encoding=Encoding(tmp_path / "cache"))
    pictures = next(iter(data.train_dataloader()))
    data.cache(encode, key="abc")
    batch = next(iter(data.train_dataloader()))
    assert not batch.video
    assert batch.latents["top"].dtype == torch.float16
    expected = encode(pictures.video["top"].flatten(0, 1)).unflatten(0, (32, 8)).half()
    torch.testing.assert_close(batch.latents["top"], expected)
    torch.testing.assert_close(batch.action, pictures.action)
    assert batch.present["video"].all()

    def refuse(frames):
        raise AssertionError("encoded again")

    again = ready(folder, symmetry=PushTMirror(), encoding=Encoding(tmp_path / "cache"))
    again.cache(refuse, key="abc")
    torch.testing.assert_close(again.latents["top"].values, data.latents["top"].values)
    assert len(list((tmp_path / "cache").iterdir())) == 1
    other = ready(folder, encoding=Encoding(tmp_path / "cache"))
    with pytest.raises(AssertionError, match="encoded again"):  # other pictures or variants need latents of their own
        other.cache(refuse, key="abc")


def test_cache_stays_whole(folder, tmp_path, monkeypatch):
    data = ready(folder, encoding=Encoding(tmp_path))

    def full(tensors, path):
        Path(path).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(latent_cache, "save_file", full)
    with pytest.raises(OSError, match="expected room for .* MB; free some, or leave data.encoding.cache_dir out"):
        data.cache(encode)
    assert not list(tmp_path.iterdir())
    monkeypatch.undo()
    data.cache(encode)
    file = next(tmp_path.iterdir())
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(ValueError, match="is damaged"):
        data.cache(encode)
    with pytest.raises(ValueError, match="leave the range of half precision in episode 0, frames 0 to 39"):
        ready(folder).cache(lambda frames: encode(frames) * 1e6)


def test_cached_batches_come_fast(folder):
    data = ready(folder, batch_size=64, symmetry=PushTMirror())
    data.cache(lambda frames: torch.zeros(len(frames), 16, 64))
    loader = data.train_dataloader()
    begin, count = time.perf_counter(), 0
    while time.perf_counter() - begin < 0.5:
        count += sum(len(batch.action) for batch in loader)
    assert count / (time.perf_counter() - begin) > 5000


def test_errors_tell_the_fix(folder):
    with pytest.raises(ValueError, match="val_ratio is 1.5, expected a share between 0 and 1"):
        PushT(folder, val_ratio=1.5)
    with pytest.raises(ValueError, match="reading.episodes is 1, expected at least 2"):
        PushT(folder, reading=Reading(episodes=1))
    with pytest.raises(ValueError, match="fewer than batch_size=5000"):
        iter(ready(folder, batch_size=5000).train_dataloader())

    class Wide(PushT):
        def read(self):
            store = super().read()
            return EpisodeStore(store.video, np.zeros((store.steps, 7), np.float32), store.state, store.ends)

    wide = Wide(folder)
    with pytest.raises(ValueError, match="has action width 7, Wide expects 2; point data.path"):
        wide.setup("fit")


def test_top_level_import_is_refused(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parents[1]))
    with pytest.raises(ImportError, match=r"package uva_lightning.datamodules; import it by that name"):
        __import__("datamodules")
