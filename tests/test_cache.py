"""``uva cache``: the same bytes whatever happens on the way, and the same training from them."""

from __future__ import annotations

import os
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import webdataset
from lightning.pytorch import Trainer

from uva_lightning.commands.cache import places
from uva_lightning.commands.errors import UserError
from uva_lightning.datamodules import latent_cache
from uva_lightning.datamodules.augment import Augmentation
from uva_lightning.datamodules.picture_changes import ColourJitter
from uva_lightning.datamodules.pusht import PushTMirror
from uva_lightning.datamodules.reading import Encoding
from uva_lightning.datamodules.shards.samplers import cache_latents
from uva_lightning.model.tokenizers.kl_vae import KLVAE
from uva_lightning.model.tokenizers.linear_patches import LinearPatches

CONFIG = """
model: {{tokenizer: {{class_path: LinearPatches, init_args: {{channels: 8}}}}}}
data: {{class_path: PushT, init_args: {{path: {path}, window: {{frames: 2}}, val_ratio: 0.2, symmetry: PushTMirror}}}}
"""


@pytest.fixture
def config(tmp_path, tiny_data):
    path = tmp_path / "cache.yaml"
    path.write_text(CONFIG.format(path=tiny_data.path))
    return path


def files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != ".lock"}


def differing(one, other):
    """Names of the files that only one folder has, or that differ."""
    ours, theirs = files(one), files(other)
    return sorted(name for name in {**ours, **theirs} if ours.get(name) != theirs.get(name))


def make(tiny_data, out, tokenizer=None, devices=("cpu",), shard_mb=0.06, **options):
    data = tiny_data(**options)
    return cache_latents(data, tokenizer or LinearPatches(channels=8), out, devices, shard_mb)


def from_shards(tiny_data, folder, **options):
    data = tiny_data(**options)
    return type(data)(folder, **{"window": data.window, "val_ratio": data.val_ratio, **options})


def test_the_command_writes_shards_and_says_so(uva, config, tmp_path):
    out = tmp_path / "shards"
    status, said, _ = uva("cache", "--config", config, "--out", out, "--workers", 1, "--shard_mb", 0.06)
    assert status == 0
    assert f"{out}: 6 shards, 6 episodes, 360 steps in 2 variants" in said
    assert "6 shards, 0 done; 0." in said
    assert sorted(files(out)) == [
        "index.json",
        "numbers.safetensors",
        *(f"shard-00000{number}.tar" for number in range(6)),
        "tokenizer.safetensors",
    ]
    before = files(out)
    assert uva("cache", "--config", config, "--out", out, "--workers", 1, "--shard_mb", 0.06)[0] == 0
    assert files(out) == before
    status, _, complaint = uva("cache", "--config", config, "--out", out, "--workers", 1, "--shard_mb", 5)
    assert status == 2
    assert "holds shards with shard_mb = 0.06, but this is 5.0" in complaint


def test_mistakes_are_named(uva, config, tmp_path, tiny_data):
    out = tmp_path / "out"
    assert "shard_mb is 0" in uva("cache", "--config", config, "--out", out, "--shard_mb", 0)[2]
    bare = tmp_path / "bare.yaml"
    bare.write_text(config.read_text().partition("data:")[2].join(["data:", ""]))
    assert "has no 'model.tokenizer:'" in uva("cache", "--config", bare, "--out", out)[2]
    with pytest.raises(UserError, match="devices is 3, but torch sees 0 GPUs"):
        places(None, 3)
    with pytest.raises(UserError, match="workers is 0"):
        places(0, None)
    assert places(3, None) == ("cpu",) * 3
    assert not out.exists()
    out.mkdir()
    (out / "mine.txt").write_text("kept")
    with pytest.raises(ValueError, match="holds mine.txt, expected an empty folder"):
        make(tiny_data, out)


def test_plain_webdataset_reads_the_shards(tiny_data, tmp_path):
    make(tiny_data, tmp_path, shard_mb=1)
    shard = webdataset.WebDataset(str(tmp_path / "shard-000000.tar"), shardshuffle=False).decode()
    store = tiny_data().store
    for number, sample in enumerate(shard):
        assert sample["__key__"] == f"episode-{number:08d}"
        assert sample["latents.top.npy"].shape == (1, 60, 16, 8)
        assert sample["latents.top.npy"].dtype == np.float16
        np.testing.assert_array_equal(sample["action.npy"], store.action[60 * number : 60 * number + 60])
        np.testing.assert_array_equal(sample["state.agent.npy"], store.state["agent"][60 * number : 60 * number + 60])
        assert sample["json"] == {"instruction": None, "name": sample["json"]["name"]}
    assert number > 0


@pytest.mark.slow
def test_the_bytes_do_not_depend_on_the_number_of_processes(tiny_data, tmp_path, tiny_vae):
    for name, tokenizer in {"linear": LinearPatches(channels=8), "vae": KLVAE(tiny_vae, image_size=96)}.items():
        for count in (1, 2, 3):
            out = tmp_path / f"{name}{count}"
            make(tiny_data, out, tokenizer, ("cpu",) * count, symmetry=PushTMirror())
            assert differing(out, tmp_path / f"{name}1") == []


KILLS = """
import os, random, signal, sys, time
from uva_lightning.cli import main
import uva_lightning.commands.training, uva_lightning.commands.cache, uva_lightning.datamodules.pusht
import uva_lightning.model.tokenizers.kl_vae

def start(out):
    child = os.fork()  # before anything is computed, and all is imported
    if not child:
        os._exit(main([*sys.argv[3:], "--out", out]))
    return child

folder, kills, number, rng, begin = sys.argv[1], int(sys.argv[2]), 0, random.Random(0), time.monotonic()
assert os.waitpid(start(f"{folder}/whole"), 0)[1] == 0
whole, out = time.monotonic() - begin, f"{folder}/killed0"
while kills:
    child, end = start(out), time.monotonic() + rng.uniform(0.2, 0.9) * whole
    while (done := os.waitpid(child, os.WNOHANG)[0]) == 0 and time.monotonic() < end:
        time.sleep(0.001)
    if done:
        number += 1
        out = f"{folder}/killed{number}"
        continue
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    kills -= 1
assert os.waitpid(start(out), 0)[1] == 0
"""


@pytest.mark.slow
@pytest.mark.parametrize(("kills", "workers"), [(10, 1), (3, 2)])
def test_kills_at_random_moments_leave_the_same_bytes(config, tmp_path, tiny_vae, kills, workers):
    """SIGKILL to the command; its processes must end too, and nothing half written may stay."""
    vae = f"{{class_path: KLVAE, init_args: {{path: {tiny_vae}, image_size: 96}}}}"
    config.write_text(config.read_text().replace("{class_path: LinearPatches, init_args: {channels: 8}}", vae))
    command = ["cache", "--config", str(config), "--workers", str(workers), "--shard_mb", "0.06"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-c", KILLS, tmp_path, str(kills), *command], check=True, env=environment)
    folders = sorted(tmp_path.glob("killed*"))
    assert folders
    for folder in folders:
        assert differing(folder, tmp_path / "whole") == []


def test_a_kill_between_the_index_and_tidying_up_is_made_good(tiny_data, tmp_path):
    make(tiny_data, tmp_path)
    before = files(tmp_path)
    for left in ("plan.json", "shard-000003.tar.json", ".shard-000003.tar.7.part"):
        (tmp_path / left).write_text("left")
    make(tiny_data, tmp_path)
    assert files(tmp_path) == before


def test_a_second_writer_is_refused(tiny_data, tmp_path):
    code = (
        "import sys, time; from pathlib import Path; from uva_lightning.datamodules.shards.files import only_writer\n"
        "with only_writer(Path(sys.argv[1])): print('held', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code, tmp_path], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(ValueError, match=f"is being written by process {holder.pid} on .*, expected no other wri"):
            make(tiny_data, tmp_path)
        holder.kill()
    make(tiny_data, tmp_path)


@pytest.mark.parametrize("limit", [100_000, 40_000])
def test_a_full_disk_leaves_no_half_shard(config, tmp_path, limit):
    """A limit on the size of files stands for it: the first writes within a shard succeed, a later one fails."""
    out = tmp_path / "out"
    code = (
        "import resource, sys; from uva_lightning.cli import main; from uva_lightning.commands import cache\n"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit})); sys.exit(main(sys.argv[1:]))"
    )
    command = ["cache", "--config", str(config), "--workers", "1", "--shard_mb", "0.2", "--out", str(out)]
    result = subprocess.run([sys.executable, "-c", code, *command], capture_output=True, text=True, check=False)
    assert result.returncode == 2, result.stderr
    assert "shard-000000.tar cannot be written (File too large), expected room for it; free some" in result.stderr
    assert sorted(path.name for path in out.iterdir()) == [".lock", "plan.json"]


def test_too_little_room_is_refused_before_anything_is_encoded(tiny_data, tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=1000))
    with pytest.raises(OSError, match=r"6 shards, 0 done; 0\.\d+ MB to write to .*, where 0.00 MB are free, expected"):
        make(tiny_data, tmp_path)
    assert not list(tmp_path.glob("*.tar"))


def train(tiny_module, data, folder, steps=4, tokenizer=None, **options):
    module = tiny_module(data.spec, tokenizer=tokenizer or LinearPatches(channels=8))
    losses = []
    compute = module.training_step

    def step(batch, batch_idx):
        losses.append(compute(batch, batch_idx))
        return losses[-1]

    module.training_step = step
    trainer = Trainer(
        max_steps=steps,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        limit_val_batches=0,
        default_root_dir=folder,
        **options,
    )
    trainer.fit(module, data)
    return torch.stack(losses).detach()


@pytest.mark.parametrize("kind", ["linear", "vae"])
def test_training_from_a_cache_equals_training_from_pictures(tiny_data, tiny_module, tiny_vae, tmp_path, kind):
    """Noise of the posterior included: the KLVAE draws its latents."""

    def tokenizer():
        return LinearPatches(channels=8) if kind == "linear" else KLVAE(tiny_vae, image_size=64)

    options = {"symmetry": PushTMirror(), "batch_size": 8}
    make(tiny_data, tmp_path / "shards", tokenizer(), **options)
    in_memory = train(tiny_module, tiny_data(**options), tmp_path, tokenizer=tokenizer())
    online = train(tiny_module, tiny_data(encoding=Encoding(online=True), **options), tmp_path, tokenizer=tokenizer())
    cached = from_shards(tiny_data, tmp_path / "shards", **options)
    losses = train(tiny_module, cached, tmp_path, tokenizer=tokenizer())
    assert len(losses) == 4
    torch.testing.assert_close(
        losses, in_memory, rtol=1e-4, atol=0
    )  # the cache is encoded by one thread, memory by all
    torch.testing.assert_close(losses, online, rtol=2e-4, atol=0)  # another size of the encoded batches


def test_online_encoding_ignores_autocast(tiny_data, tiny_module, tmp_path):
    data = tiny_data(encoding=Encoding(online=True))
    data.setup("fit")
    module = tiny_module(data.spec)
    module.tokenizer.fit(data.training_frames())
    batch = next(iter(data.train_dataloader()))
    with torch.autocast("cpu", torch.bfloat16):
        moments = module.encode_frames(batch.video["top"])
    assert moments.dtype == torch.float16
    torch.testing.assert_close(moments, module.tokenizer.encode(batch.video["top"]).half(), rtol=0, atol=0)


def test_augmented_variants_are_those_of_a_cache_in_memory(tiny_data, tmp_path):
    options = {"symmetry": PushTMirror(), "augment": Augmentation([ColourJitter(brightness=0.5)]), "batch_size": 32}
    index = make(tiny_data, tmp_path, **options, encoding=Encoding(variants=2))
    assert index.origin.count == 6
    tokenizer = LinearPatches(channels=8)
    for drawn, symmetry in ((2, True), (2, False), (0, True), (0, False)):
        wanted = {**options, "encoding": Encoding(variants=drawn)}
        if not drawn:
            del wanted["augment"], wanted["encoding"]
        if not symmetry:
            wanted["symmetry"] = None
        here, there = from_shards(tiny_data, tmp_path, **wanted), tiny_data(**wanted)
        here.setup("fit")
        here.fit_tokenizer(tokenizer)
        here.cache(lambda frames: pytest.fail("encoded"), tokenizer.fingerprint())
        there.setup("fit")
        there.cache(tokenizer.encode)
        for loader in ("train_dataloader", "val_dataloader"):
            ours, theirs = (next(iter(getattr(data, loader)())) for data in (here, there))
            assert ours.latents["top"].equal(theirs.latents["top"])
            assert ours.action.equal(theirs.action)


def test_latents_that_do_not_fit_into_memory_name_the_ways_out(tiny_data, monkeypatch):
    monkeypatch.setattr(latent_cache, "available_memory", lambda: 10_000)
    data = tiny_data()
    data.setup("fit")
    tokenizer = LinearPatches(channels=8)
    data.fit_tokenizer(tokenizer)
    with pytest.raises(ValueError, match=r"take 0.09 MB, but 0.01 MB of memory are free; .*uva cache.*online=tr"):
        data.cache(tokenizer.encode)
    assert latent_cache.available_memory() == 10_000
    monkeypatch.undo()
    assert latent_cache.available_memory() > 1e8
