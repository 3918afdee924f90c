"""Shards of a remote place: fetched as needed, within a budget, and a run on them resumes exactly."""

from __future__ import annotations

import functools
import http.server
import json
import os
import pickle
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import fsspec
import pytest
import torch
from lightning.pytorch import LightningModule, Trainer, seed_everything

from uva_lightning.datamodules.faults import Broken
from uva_lightning.datamodules.pusht import PushT
from uva_lightning.datamodules.reading import Reading, Streaming
from uva_lightning.datamodules.shards.samplers import cache_latents
from uva_lightning.datamodules.windows import Window
from uva_lightning.model.tokenizers.linear_patches import LinearPatches


@pytest.fixture(scope="module")
def made(tiny_data, tmp_path_factory):
    """A cache of six shards, and the fingerprint of its tokenizer."""
    folder, tokenizer = tmp_path_factory.mktemp("made") / "shards", LinearPatches(channels=8)
    cache_latents(tiny_data(), tokenizer, folder, ("cpu",), 0.03)
    return folder, tokenizer.fingerprint()


@pytest.fixture
def server(made):
    """Serve the cache over HTTP; gives the URL and a log of what was asked for, with numbers of failures to come."""
    log, failures = [], []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def do_GET(self):
            log.append(self.path.rpartition("/")[2])
            if failures and self.path.endswith(".tar"):
                failures.pop()
                self.send_error(503)
            else:
                super().do_GET()

        def log_message(self, *arguments):
            pass

    handler = functools.partial(Handler, directory=str(made[0]))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as serving:
        threading.Thread(target=serving.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{serving.server_port}", log, failures
        serving.shutdown()


def ready(location, key, folder, workers=0, on_error="stop", **streaming):
    streaming = Streaming(**{"lanes": 4, "buffer": 16, "folder": folder, "pause": 0.01, "retries": 2, **streaming})
    reading = Reading(workers=workers, streaming=streaming, on_error=on_error)
    data = PushT(location, window=Window(2), batch_size=8, val_ratio=0.2, reading=reading)
    data.setup("fit")
    data.cache(lambda frames: pytest.fail("encoded"), key)
    return data


def staged(folder, expected):
    """Count what was fetched, after a while if need be."""
    end = time.monotonic() + 20
    while (count := len(list(folder.glob("*/*.tar")))) != expected and time.monotonic() < end:
        time.sleep(0.01)
    return count


def batches(data):
    return [batch.latents["top"] for batch in data.train_dataloader()]


@pytest.mark.parametrize("kind", ["http", "file", "memory"])
def test_a_remote_place_gives_what_a_folder_does(made, server, tmp_path, kind):
    folder, key = made
    location = {"http": server[0], "file": f"file://{folder}", "memory": "memory://shards"}[kind]
    if kind == "memory":
        fsspec.filesystem("memory").put(f"{folder}/", "/shards/", recursive=True)
    here, there = ready(str(folder), key, tmp_path), ready(location, key, tmp_path / "staged")
    assert all(ours.equal(theirs) for ours, theirs in zip(batches(there), batches(here), strict=True))
    staged = sorted(path.name for path in (tmp_path / "staged").glob("*/*.tar"))
    assert len(staged) >= 5
    assert not list((tmp_path / "staged").glob("*/.*.part"))


def test_each_shard_comes_once_also_with_workers(made, server, tmp_path):
    url, log, _ = server
    alone = batches(ready(str(made[0]), made[1], tmp_path))
    workers = batches(ready(url, made[1], tmp_path / "staged", workers=2))
    assert all(ours.equal(theirs) for ours, theirs in zip(workers, alone, strict=True))
    tars = [name for name in log if name.endswith(".tar")]
    assert len(tars) == len(set(tars)) >= 5
    again = ready(url, made[1], tmp_path / "staged")
    del log[:]
    assert len(batches(again)) == len(alone)
    assert not [name for name in log if name.endswith(".tar")]


def test_failures_are_tried_again_and_a_shard_that_is_gone_is_named(made, server, tmp_path):
    url, log, failures = server
    failures += [1, 1]
    data = ready(url, made[1], tmp_path)
    place = data._shards.place
    place.open("shard-000001.tar").close()
    assert log.count("shard-000001.tar") == 3
    failures += [1] * 3
    with pytest.raises(Broken, match=r"/shard-000002.tar cannot be fetched after 3 attempts \(.*503.*\); check that"):
        place.open("shard-000002.tar")
    del failures[:]
    place.open("shard-000002.tar").close()
    with pytest.raises(Broken, match=r"http://127.0.0.1:1/index.json cannot be fetched after 3 attempts"):
        ready("http://127.0.0.1:1", made[1], tmp_path)
    with pytest.raises(ValueError, match=r"data.path is nothing://x, which cannot be opened .*expected a folder or"):
        ready("nothing://x", made[1], tmp_path)


def test_a_remote_shard_that_is_cut_off_or_changed_never_gets_its_name(made, tmp_path):
    remote = shutil.copytree(made[0], tmp_path / "remote")
    tar = remote / "shard-000003.tar"
    whole = tar.read_bytes()
    for content in (whole[:5000], whole[:-1] + b"x"):
        tar.write_bytes(content)
        data = ready(f"file://{remote}", made[1], tmp_path / "staged")
        with pytest.raises(Broken, match="shard-000003.tar cannot be fetched .* bytes came of .*, or others than the"):
            data._shards.place.open(tar.name)
        assert not list((tmp_path / "staged").glob("*/shard-000003.tar"))
    (remote / "numbers.safetensors").write_bytes(b"x")
    with pytest.raises(Broken, match="numbers.safetensors is not what the index says"):
        ready(f"file://{remote}", made[1], tmp_path / "staged")


@pytest.mark.filterwarnings("ignore:.*faults so far")
def test_windows_of_a_shard_that_is_gone_are_replaced_where_the_user_says_so(made, tmp_path):
    remote = shutil.copytree(made[0], tmp_path / "remote")
    (remote / "shard-000003.tar").unlink()
    options = {"retries": 0, "pause": 0}
    with pytest.raises(Broken, match="shard-000003.tar cannot be fetched"):
        batches(ready(f"file://{remote}", made[1], tmp_path / "staged", **options))
    data = ready(f"file://{remote}", made[1], tmp_path / "staged", on_error="skip", **options)
    assert sum(map(len, batches(data))) == len(data.train_dataloader()) * 8


def test_the_least_recently_used_shards_go_when_the_budget_is_spent(made, tmp_path):
    size = (made[0] / "shard-000000.tar").stat().st_size
    data = ready(f"file://{made[0]}", made[1], tmp_path, budget_gb=2.5 * size / 1e9)
    place = data._shards.place
    for number in (0, 1, 0, 2):
        place.open(f"shard-00000{number}.tar").close()
        time.sleep(0.02)
    assert sorted(path.name for path in tmp_path.glob("*/*.tar")) == ["shard-000000.tar", "shard-000002.tar"]
    alone = batches(ready(str(made[0]), made[1], tmp_path))
    assert all(ours.equal(theirs) for ours, theirs in zip(batches(data), alone, strict=True))
    assert staged(tmp_path, 2) == 2
    with pytest.raises(ValueError, match=r"budget_gb is .*, but a shard of .* has 0.03 MB, expected room for two"):
        ready(f"file://{made[0]}", made[1], tmp_path, budget_gb=1.5 * size / 1e9)


def test_the_next_shards_are_fetched_in_the_background(made, tmp_path):
    data = ready(f"file://{made[0]}", made[1], tmp_path)
    place = pickle.loads(pickle.dumps(data._shards.place))
    place.soon(["shard-000004.tar", "shard-000001.tar", "shard-000000.tar"])
    assert staged(tmp_path, 3) == 3


class Model(LightningModule):
    def __init__(self, key):
        super().__init__()
        self.layer, self.seen, self.key = torch.nn.Linear(1, 1), [], key

    def on_fit_start(self):
        self.trainer.datamodule.cache(None, self.key)

    def training_step(self, batch, index):
        self.seen.append((batch.action.sum().item(), batch.latents["top"].float().sum().item()))
        return self.layer(batch.action.mean(1)[:, :1] / 100).square().mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.01)


def fit(location, key, folder, steps, workers=0, resume=None, callbacks=(), **options):
    seed_everything(0, verbose=False)
    streaming = Streaming(lanes=4, buffer=16, folder=Path(folder) / "staged", pause=0.01)
    data = PushT(
        location,
        window=Window(2),
        batch_size=8,
        val_ratio=0.2,
        reading=Reading(workers=workers, streaming=streaming),
    )
    model = Model(key)
    trainer = Trainer(
        max_steps=steps,
        max_epochs=-1,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
        callbacks=list(callbacks),
        limit_val_batches=0,
        enable_checkpointing=bool(callbacks),
        **options,
    )
    trainer.fit(model, data, ckpt_path=resume)
    return model, trainer


# 5 training episodes of 60 steps: 5 * 37 = 185 windows, 23 batches of 8 in an epoch.
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("first", [9, 23, 31])
def test_a_streamed_run_resumes_exactly(made, tmp_path, first, workers):
    """Within an epoch, at its end and within the next; from a folder that has nothing staged yet."""
    location = f"file://{made[0]}"
    whole, _ = fit(location, made[1], tmp_path / "whole", 50, workers)
    begin, trainer = fit(location, made[1], tmp_path / "part", first, workers)
    trainer.save_checkpoint(tmp_path / "part.ckpt")
    rest, _ = fit(location, made[1], tmp_path / "new", 50, workers, resume=tmp_path / "part.ckpt")
    assert begin.seen + rest.seen == whole.seen
    assert len(whole.seen) == 50
    torch.testing.assert_close(rest.state_dict(), whole.state_dict(), rtol=0, atol=0)


def test_another_number_of_lanes_is_noticed_at_a_resume(made, tmp_path):
    _, trainer = fit(str(made[0]), made[1], tmp_path, 5)
    trainer.save_checkpoint(tmp_path / "part.ckpt")
    checkpoint = torch.load(tmp_path / "part.ckpt", weights_only=True)
    assert "lanes" in json.dumps(checkpoint["loops"]["fit_loop"]["state_dict"])


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_two_processes_share_the_batches_of_one_and_resume_exactly(made, tmp_path, workers):
    script = tmp_path / "two.py"
    script.write_text(
        f"import importlib.util, sys\n"
        f"spec = importlib.util.spec_from_file_location('streaming_test', {__file__!r})\n"
        "module = importlib.util.module_from_spec(spec)\n"
        "sys.modules['streaming_test'] = module\n"
        "spec.loader.exec_module(module)\n"
        f"module.two_processes({f'file://{made[0]}'!r}, {made[1]!r}, {str(tmp_path)!r}, {workers})\n"
    )
    subprocess.run([sys.executable, script], check=True, timeout=300, env={**os.environ, "OMP_NUM_THREADS": "1"})
    alone, _ = fit(f"file://{made[0]}", made[1], tmp_path / "alone", 30)
    parts = [json.loads((tmp_path / f"rank{rank}.json").read_text()) for rank in range(2)]
    assert [len(part["seen"]) for part in parts] == [30, 30]
    assert parts[0]["seen"] == parts[0]["whole"]
    assert parts[1]["seen"] == parts[1]["whole"]
    for step, expected in enumerate(alone.seen):
        sums = [parts[0]["seen"][step][number] + parts[1]["seen"][step][number] for number in range(2)]
        assert sums == pytest.approx(expected, rel=1e-5, abs=1e-2)


def two_processes(location, key, folder, workers):
    """Train 30 steps, and 11 and then to 30 again, in each of two processes (Lightning starts the second)."""
    options = {"strategy": "ddp", "devices": 2}
    whole, _ = fit(location, key, folder, 30, workers, **options)
    begin, trainer = fit(location, key, folder, 11, workers, **options)
    trainer.save_checkpoint(Path(folder) / "two.ckpt")
    rest, trainer = fit(location, key, folder, 30, workers, resume=Path(folder) / "two.ckpt", **options)
    for ours, theirs in zip(rest.parameters(), whole.parameters(), strict=True):
        assert ours.equal(theirs)
    content = {"seen": begin.seen + rest.seen, "whole": whole.seen}
    (Path(folder) / f"rank{trainer.global_rank}.json").write_text(json.dumps(content))
    trainer.strategy.barrier()


@pytest.mark.slow
def test_threads_and_processes_that_fetch_at_once_do_not_get_in_each_others_way(made, server, tmp_path):
    """Locks that know processes only would report deadlocks here."""
    url, log, _ = server
    place = ready(url, made[1], tmp_path / "0", retries=0)._shards.place
    code = (
        "import pickle, sys; place, names = pickle.loads(bytes.fromhex(sys.argv[1])); place.soon(names)\n"
        "for name in reversed(names): place.open(name).close()"
    )
    names = [f"shard-00000{number}.tar" for number in range(6)]
    for attempt in range(3):
        place.folder = place.cache = tmp_path / str(attempt)
        place.folder.mkdir(exist_ok=True)
        del log[:]
        command = [sys.executable, "-c", code, pickle.dumps((place, names)).hex()]
        running = [subprocess.Popen(command) for _ in range(4)]
        assert [process.wait(120) for process in running] == [0] * 4
        assert sorted(log) == names
