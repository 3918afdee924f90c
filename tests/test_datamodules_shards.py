"""Shards that are damaged, or not those that a run expects, are refused; whole ones are read in any process."""

from __future__ import annotations

import json
import pickle
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from uva_lightning.commands.data_source import data_from
from uva_lightning.datamodules.augment import Augmentation
from uva_lightning.datamodules.base import RobotDataModule
from uva_lightning.datamodules.faults import Broken
from uva_lightning.datamodules.instructions import RandomInstructions
from uva_lightning.datamodules.picture_changes import Grey
from uva_lightning.datamodules.pusht import PushT, PushTMirror
from uva_lightning.datamodules.reading import Encoding, Reading
from uva_lightning.datamodules.shards.reader import matches
from uva_lightning.datamodules.shards.samplers import cache_latents, pack_pictures
from uva_lightning.datamodules.shards.speed import windows_per_second, write_shards
from uva_lightning.datamodules.store import EpisodeStore
from uva_lightning.datamodules.windows import Window
from uva_lightning.model.tokenizers.linear_patches import LinearPatches
from uva_lightning.types import DataSpec

OPTIONS = {"window": Window(2), "batch_size": 8, "val_ratio": 0.2}


@pytest.fixture(scope="module")
def made(tiny_data, tmp_path_factory):
    """A cache of six shards, and the tokenizer that encoded it."""
    folder, tokenizer = tmp_path_factory.mktemp("made") / "shards", LinearPatches(channels=8)
    cache_latents(tiny_data(), tokenizer, folder, ("cpu",), 0.03)
    assert len(list(folder.glob("*.tar"))) == 6
    return folder, tokenizer


@pytest.fixture
def shards(made, tmp_path):
    """A copy that a test may damage."""
    return shutil.copytree(made[0], tmp_path / "shards")


def ready(path, key=None, **options):
    data = PushT(path, **{**OPTIONS, **options})
    data.setup("fit")
    if key is not None:
        data.cache(lambda frames: pytest.fail("encoded"), key)
    return data


def batches(data):
    return [batch.latents["top"] for batch in data.train_dataloader()]


class Arm(RobotDataModule):
    """Two cameras, instructions, and pictures from noise."""

    facts = DataSpec(cameras=("front", "wrist"), image_size=16, action_dim=3, state_dims={"joints": 2}, rate_hz=10)

    def read(self):
        rng, ends = np.random.default_rng(0), np.array([40, 75, 130])
        return EpisodeStore(
            {name: rng.integers(0, 256, (130, 16, 16, 3), dtype=np.uint8) for name in ("front", "wrist")},
            rng.normal(size=(130, 3)).astype(np.float32),
            {"joints": rng.normal(size=(130, 2)).astype(np.float32)},
            ends,
            ["wave", "point", "wave"],
            ["a.bin", "b.bin", "c.bin"],
        )


def test_numbers_words_and_latents_are_those_of_the_source(tmp_path):
    source, tokenizer = Arm(tmp_path / "none", 8, text=RandomInstructions()), LinearPatches(4, channels=8)
    cache_latents(source, tokenizer, tmp_path / "shards", ("cpu",), 0.02)
    data = Arm(tmp_path / "shards", batch_size=8, text=RandomInstructions())
    data.setup("fit")
    for name, numbers in source.store.numbers().items():
        np.testing.assert_array_equal(data.store.numbers()[name], numbers)
    assert (data.store.instructions, data.store.names) == (source.store.instructions, source.store.names)
    assert data.vectors.equal(source.vectors)
    assert data.val_episodes() == source.val_episodes()
    data.cache(lambda frames: pytest.fail("encoded"), tokenizer.fingerprint())
    source.cache(tokenizer.encode)
    for ours, theirs in zip(data.train_dataloader(), source.train_dataloader(), strict=True):
        assert list(ours.latents) == ["front", "wrist"]
        for camera, latents in ours.latents.items():
            assert latents.equal(theirs.latents[camera])
        assert ours.text.equal(theirs.text)
        assert ours.action.equal(theirs.action)
    one = Arm(tmp_path / "shards", batch_size=8, window=Window(cameras=("wrist",)))
    one.setup("fit")
    one.cache(lambda frames: pytest.fail("encoded"), tokenizer.fingerprint())
    assert list(next(iter(one.train_dataloader())).latents) == ["wrist"]
    other = type("Vectors", (RandomInstructions,), {})()
    with pytest.raises(ValueError, match="instructions by RandomInstructions, width 512, but data.text is Vectors"):
        Arm(tmp_path / "shards", text=other).setup("fit")


def test_a_few_episodes_can_be_taken(made):
    data = ready(made[0], made[1].fingerprint(), reading=Reading(episodes=[4, 1, 2]))
    whole = ready(made[0], made[1].fingerprint())
    np.testing.assert_array_equal(data.store.action[:60], whole.store.action[240:300])
    zero = torch.zeros(1, 1, dtype=torch.int64)
    for ours, theirs in ((0, 240), (60, 60), (179, 179)):
        assert data.latents["top"].read(zero, zero + ours).equal(whole.latents["top"].read(zero, zero + theirs))
    with pytest.raises(ValueError, match="There is no episode 9 in .*, expected 0 to 5; choose others"):
        ready(made[0], reading=Reading(episodes=[1, 9]))


def test_data_that_move_are_read_where_they_are_then(made, tiny_data):
    data = ready(made[0])
    assert not data.has_pictures
    data.move_to(tiny_data.path)
    data.setup("validate")
    assert data.has_pictures, "the shards of the place before are still open"
    assert data.held_out().with_frames()[torch.arange(2)].video["top"].dtype == torch.uint8


def test_windows_may_ask_for_steps_in_any_order(made):
    latents = ready(made[0], made[1].fingerprint()).latents["top"]
    steps = torch.tensor([[0, 359, 60, 59], [1, 1, 2, 0]])
    variant = torch.zeros(2, 1, dtype=torch.int64)
    whole = latents.read(torch.zeros(360, 1, dtype=torch.int64), torch.arange(360)[:, None])[:, 0]
    assert latents.read(variant, steps).equal(whole[steps])


def test_worker_processes_read_the_same(made):
    alone = batches(ready(made[0], made[1].fingerprint()))
    workers = batches(ready(made[0], made[1].fingerprint(), reading=Reading(workers=2)))
    assert all(ours.equal(theirs) for ours, theirs in zip(alone, workers, strict=True))
    data = ready(made[0], made[1].fingerprint())
    batches(data)
    copy = pickle.loads(pickle.dumps(data.latents["top"]))
    assert len(pickle.dumps(copy)) < 100_000, "maps and their content stay at home"
    zero = torch.zeros(1, 1, dtype=torch.int64)
    assert copy.read(zero, zero).equal(data.latents["top"].read(zero, zero))


def test_a_cut_off_shard_is_refused_or_left_out(shards):
    tar = shards / "shard-000002.tar"
    tar.write_bytes(tar.read_bytes()[:9000])
    with pytest.raises(Broken, match=r"shard-000002.tar has 9,000 bytes, expected \d+,\d+: it is cut off, so that"):
        ready(shards)
    with pytest.warns(UserWarning, match="1 broken episodes were left out, 5 are whole. .*episode 2 "):
        data = ready(shards, reading=Reading(on_error="skip"))
    assert data.store.episodes == 5
    tar.unlink()
    with pytest.raises(Broken, match="shard-000002.tar is missing, so that episode 2"):
        ready(shards)


def test_a_damaged_member_is_refused_or_replaced(shards, made):
    index = json.loads((shards / "index.json").read_text())
    offset, size, _ = index["shards"][1]["episodes"][0]["members"]["latents.top.npy"]
    tar = shards / "shard-000001.tar"
    content = bytearray(tar.read_bytes())
    content[offset + size // 2] ^= 1
    tar.write_bytes(content)
    key = made[1].fingerprint()
    with pytest.raises(Broken, match=r"shard-000001.tar is damaged in episode 1: its checksum is .*, expected"):
        batches(ready(shards, key))
    with pytest.warns(UserWarning, match="windows with broken pictures are replaced by others"):
        replaced = batches(ready(shards, key, reading=Reading(on_error="skip")))
    assert [len(latents) for latents in replaced] == [len(latents) for latents in batches(ready(made[0], key))]


def test_shards_of_another_tokenizer_or_other_data_are_refused(made, tmp_path):
    path, tokenizer = made
    with pytest.raises(ValueError, match=f"with the fingerprint {tokenizer.fingerprint()}, this run has other; set mo"):
        ready(path, "other")
    with pytest.raises(ValueError, match="holds shards of PushT with the cameras.*, Arm expects front too"):
        Arm(path).setup("fit")
    facts = SimpleNamespace(**{name: getattr(PushT, name) for name in ("facts",)})
    from dataclasses import replace

    fast = type("Fast", (PushT,), {"facts": replace(facts.facts, rate_hz=20)})
    with pytest.raises(ValueError, match="shards of PushT with rate_hz = 10, Fast expects 20; point data.path"):
        fast(path, **OPTIONS).setup("fit")
    with pytest.raises(ValueError, match="shards of PushT with reading.fit = crop, PushT expects pad; point data.path"):
        ready(path, tokenizer.fingerprint(), reading=Reading(fit="pad"))
    with pytest.raises(ValueError, match="with symmetry = None of their variants, this run has PushTMirror"):
        ready(path, tokenizer.fingerprint(), symmetry=PushTMirror())
    grey = {"augment": Augmentation([Grey(0.5)])}
    with pytest.raises(ValueError, match="with augment = None of their variants, this run has Grey"):
        ready(path, tokenizer.fingerprint(), **grey, encoding=Encoding(variants=1))
    with pytest.raises(ValueError, match="holds latents only, but this run encodes pictures in every step"):
        ready(path, tokenizer.fingerprint(), **grey)


def test_a_shard_in_the_place_of_another_is_noticed(shards, made):
    shutil.copy(shards / "shard-000001.tar", shards / "shard-000002.tar")
    with pytest.raises(Broken, match="shard-000002.tar is damaged in episode 2"):
        batches(ready(shards, made[1].fingerprint()))


def test_a_folder_whose_index_is_missing_or_damaged_says_so(shards, tmp_path):
    index = (shards / "index.json").read_text()
    (shards / "index.json").write_text(index[:500])
    with pytest.raises(ValueError, match="index.json is damaged .*, expected the index of shards"):
        ready(shards)
    (shards / "index.json").write_text(index.replace("shard-000001.tar", "../shard-000001.tar"))
    with pytest.raises(ValueError, match="index.json is damaged .*'../shard-000001.tar' is no plain file name"):
        ready(shards)
    (shards / "index.json").write_text(index.replace("shards 1", "shards 9"))
    with pytest.raises(ValueError, match="has the format 'uva_lightning shards 9', expected 'uva_lightning shards 1'"):
        ready(shards)
    (shards / "index.json").unlink()
    assert not matches(str(shards))
    (shards / "plan.json").write_text("{}")
    (shards / "shard-000000.tar.json").write_text("{}")
    with pytest.raises(ValueError, match="holds 1 shards but no index.json, .*: writing was interrupted; run the same"):
        ready(shards)


def test_pictures_that_are_not_there_are_named(made):
    data = ready(made[0], made[1].fingerprint())
    assert not data.has_pictures
    with pytest.raises(ValueError, match="holds latents and no pictures, but pictures were asked for; point data.path"):
        data.val_dataloader().dataset.with_frames()[torch.arange(2)]


def test_pictures_are_packed_without_loss_and_read_as_any_data(tiny_data, tmp_path):
    source = tiny_data()
    index = pack_pictures(source, tmp_path / "pictures", shard_mb=1)
    assert index.origin.kind == "pictures"
    data = ready(tmp_path / "pictures")
    np.testing.assert_array_equal(data.store.video["top"][np.arange(360)], source.store.video["top"])
    np.testing.assert_array_equal(data.store.video["top"][[200, 3, 3]], source.store.video["top"][[200, 3, 3]])
    source.setup("fit")
    for ours, theirs in zip(data.train_dataloader(), source.train_dataloader(), strict=True):
        assert ours.video["top"].equal(theirs.video["top"])
    pickle.loads(pickle.dumps(data.store.video["top"]))
    data.cache(lambda frames: frames[:, ::32, 0].float(), "any")
    assert data.latents["top"].shape == (1, 360, 3, 3)


def test_other_data_are_read_from_shards_and_from_folders_alike(tiny_data, tmp_path):
    """A command's --data may name either, whatever the training read."""
    pack_pictures(tiny_data(), tmp_path / "pictures", shard_mb=1)
    source = tiny_data()
    folder, expected = source.path, np.asarray(source.store.action)
    source.move_to(tmp_path / "pictures")
    np.testing.assert_array_equal(source.store.action, expected)
    shutil.rmtree(tmp_path / "pictures")
    source.move_to(folder)
    np.testing.assert_array_equal(source.store.action, expected)


def test_packing_twice_gives_the_same_bytes_with_any_number_of_processes(tiny_data, tmp_path):
    for workers in (1, 2):
        pack_pictures(tiny_data(), tmp_path / str(workers), workers, 1)
    for path in (tmp_path / "1").glob("[!.]*"):
        assert path.read_bytes() == (tmp_path / "2" / path.name).read_bytes()


def test_what_is_read_back_differently_is_not_called_written(tiny_data, tmp_path):
    from uva_lightning.datamodules.shards.samplers import compare

    store = tiny_data().store
    other = tiny_data().store
    other.video["top"][70, 0, 0, 0] ^= 1
    with pytest.raises(ValueError, match="'top' of episode 1.* was read back differently within its steps 0 to 59"):
        compare(store, other, list(range(6)))


def test_windows_come_fast(tmp_path):
    write_shards(tmp_path, episodes=8, steps=100)
    measured = windows_per_second(tmp_path, seconds=0.5)
    assert measured["bytes"] == 8 * 256 * 32 * 2
    assert measured["rate"] > 3000


def test_a_url_on_the_command_line_stays_one(made):
    path, _ = made
    data = data_from(["--data", "PushT", "--data.path", f"file://{path}", "--data.generate", "ScriptedDemos"])
    data.prepare_data()
    assert data.location == f"file://{path}"
    assert data.store.episodes == PushT(path).store.episodes


def test_episodes_are_counted_before_broken_ones_are_left_out(shards, made):
    first = (shards / "shard-000000.tar").read_bytes()
    (shards / "shard-000000.tar").write_bytes(first[: len(first) // 2])
    store = PushT(made[0]).store
    data = PushT(shards, reading=Reading(on_error="skip", episodes=[0, store.episodes - 1]))
    with pytest.warns(UserWarning, match="broken episodes were left out"):
        np.testing.assert_array_equal(data.store.action, store.select([store.episodes - 1]).action)
    whole = PushT(shards, reading=Reading(episodes=[store.episodes - 2, store.episodes - 1]))
    assert whole.store.episodes == 2  # nobody asked for the broken one
    with pytest.raises(ValueError, match="each episode once"):
        Reading(episodes=[1, 1])
