"""`uva bench data`: rates, memory and the calculated wait of a GPU."""

from __future__ import annotations

import json
import mmap
import time
from dataclasses import replace

import pytest
import torch
from made_data import Cut

from uva_lightning.benchmarks.loading import Loading, Stall, measure, size_of, stall
from uva_lightning.benchmarks.machine import MIB, free_bytes, machine, peak_bytes, reset_peak
from uva_lightning.commands import bench_data
from uva_lightning.commands.bench_data import measured, videos
from uva_lightning.datamodules.pictures import Resized
from uva_lightning.datamodules.reading import Reading
from uva_lightning.datamodules.shards.speed import Generated, write_shards
from uva_lightning.datamodules.video_frames import Clip, VideoFrames
from uva_lightning.types import Batch


@pytest.fixture(autouse=True)
def few_shards(monkeypatch):
    monkeypatch.setattr(bench_data, "SHARDS", 400)


def ready(make, **options):
    data = make(**options)
    data.setup("fit")
    return data


def test_size_counts_every_tensor_once():
    batch = Batch(
        video={"a": torch.zeros(2, 8, 4, 4, 3, dtype=torch.uint8)},
        latents={"b": torch.zeros(2, 8, 5, 6, dtype=torch.float16)},
        action=torch.zeros(2, 16, 3),
        state={"c": torch.zeros(2, 4, 7)},
        present={"a": torch.ones(2, dtype=torch.bool)},
    )
    assert size_of(batch) == 2 * (8 * 48 + 8 * 5 * 6 * 2 + 16 * 3 * 4 + 4 * 7 * 4)


def test_rates_agree_with_one_another(tiny_data):
    data = ready(tiny_data)
    loading = measure(data.train_dataloader(), "pictures", 0.3)
    batch = next(iter(data.train_dataloader()))
    assert loading.batch == 8
    assert loading.mb_per_s == pytest.approx(loading.windows_per_s * size_of(batch) / 8 / 1e6)
    assert 0 < loading.p50_ms <= loading.p95_ms
    assert loading.windows_per_cpu_s > 0
    assert loading.windows_per_s < 8 / (loading.p50_ms / 1000) * 2
    assert 0 <= loading.read_share < 1
    assert loading.windows % 8 == 0


class Slow(Cut):
    """Pictures that take 10 ms."""

    def _read(self, steps):
        time.sleep(0.01)
        return super()._read(steps)


def test_slow_pictures_are_the_time_of_reading(tiny_data):
    data = ready(tiny_data)
    loader, frames = data.train_dataloader(), data.store.video["top"]
    loader.dataset.store = replace(data.store, video={"top": Slow(frames, len(frames))})
    loading = measure(loader, "slow", 0.2)
    assert loading.p50_ms > 10
    assert loading.read_share > 0.8


def test_worker_processes_are_refused(tiny_data):
    data = ready(tiny_data, reading=Reading(workers=1))
    with pytest.raises(ValueError, match=r"has 1 workers, expected 0 to measure.*data\.reading\.workers=0"):
        measure(data.train_dataloader(), "pictures", 0.1)


def test_threads_are_given_back(tiny_data):
    before = torch.get_num_threads()
    measure(ready(tiny_data).train_dataloader(), "pictures", 0.01)
    assert torch.get_num_threads() == before


@pytest.mark.parametrize(
    ("load", "step", "shares", "workers"),
    [
        (100, 50, (2 / 3, 0.5, 0.0), 2),
        (1, 150, (1 / 151, 0.0, 0.0), 0),
        (50, 150, (0.25, 0.0, 0.0), 1),
        (101, 50, (101 / 151, 1 - 50 / 101, 1 - 100 / 101), 2),  # 1 % is bearable
    ],
)
def test_wait_of_a_gpu(load, step, shares, workers):
    waits = Stall(load, step)
    assert [waits.share(number) for number in range(3)] == pytest.approx(shares)
    assert waits.workers() == workers
    assert waits.share(workers) < 0.02
    assert f"a GPU waits {shares[0]:.1%} of the time without workers" in waits.sentence()


def test_wait_follows_from_the_slower_rate():
    loading = Loading("x", 10, 4000, 2000, 1, 1, 1, None, 64, 1)
    assert stall(loading, 256, 64).load_ms == pytest.approx(128)
    assert stall(replace(loading, windows_per_cpu_s=8000), 256, 64).load_ms == pytest.approx(64)
    with pytest.raises(ValueError, match="step_ms is 0, expected the time of a training step"):
        stall(loading, 256, 0)


def test_pictures_on_demand_are_measured_from_memory_too(tiny_data):
    data = ready(tiny_data)
    frames = data.store.video["top"]
    data._store = replace(data.store, video={"top": Cut(frames, len(frames))})
    loadings = list(measured(data, 0.05))
    assert [loading.what for loading in loadings] == [
        "pictures, read on demand",
        "pictures in memory",
        "latents in memory",
        "latents in shards",
    ]
    assert data.latents is None
    window = 8 * 2 * 256 * 32 * 4 // 8  # four frames of base-size latents in half precision
    assert loadings[3].mb_per_s / loadings[3].windows_per_s * 1e6 > window
    numbers = loadings[2].mb_per_s / loadings[2].windows_per_s * 1e6 - window
    pictures = loadings[1].mb_per_s / loadings[1].windows_per_s * 1e6 - 4 * 96 * 96 * 3
    assert numbers == pytest.approx(pictures, abs=1)


def test_what_does_not_fit_is_left_out(tiny_data, monkeypatch, capsys):
    monkeypatch.setattr(bench_data, "free_bytes", lambda: MIB)
    assert [loading.what for loading in measured(ready(tiny_data), 0.01)] == [
        "pictures in memory",
        "latents in shards",
    ]
    assert "latents in memory:           left out, 6 MiB of 1 MiB free" in capsys.readouterr().out


def test_machine_and_memory():
    facts = machine()
    assert facts["cores"] >= 1
    assert facts["torch"] == torch.__version__
    if free_bytes():
        reset_peak()
        before = peak_bytes()
        with mmap.mmap(-1, 64 * MIB) as held:  # new to the process; an allocator may hand out memory it has kept
            held.write(bytes(64 * MIB))
            assert peak_bytes() - before > 32 * MIB


def test_videos_are_compared_with_plain_decoding(tiny_data, tmp_path):
    pytest.importorskip("av")
    from films import SIDE, numbered, write_film

    data = ready(tiny_data)
    assert list(videos(data)) == []
    write_film(tmp_path / "all.mp4", numbered(data.store.steps))
    clips = [
        Clip(tmp_path / "all.mp4", int(length), int(begin) / 10)
        for length, begin in zip(data.store.lengths, data.store.begins, strict=True)
    ]
    data._store = replace(data.store, video={"top": Resized(VideoFrames(clips, 10.0, SIDE), 96)})
    ((camera, speed),) = videos(data)
    assert camera == "top"
    assert min(speed.seeking, speed.whole, speed.lean, speed.opening) > 0


def test_command_writes_its_numbers(uva, tiny_data, tmp_path):
    options = ["--data", "PushT", "--data.path", tiny_data.path, "--data.batch_size", 8, "--data.reading.workers", 2]
    file = tmp_path / "new" / "bench.json"
    status, out, _ = uva("bench", "data", *options, "--seconds", 0.05, "--step_ms", 150, "--json", file)
    assert status == 0
    said = json.loads(file.read_text())
    assert [entry["what"] for entry in said["loading"]] == [
        "pictures in memory",
        "latents in memory",
        "latents in shards",
    ]
    assert all(entry["what"] in out for entry in said["loading"])
    assert said["loading"][0]["stall"]["step_ms"] == 150
    assert said["machine"]["cores"] >= 1
    assert out.count("a GPU waits") == 3


def test_a_cache_is_measured_as_it_is(tmp_path):
    write_shards(tmp_path / "shards", episodes=3, steps=60, tokens=4, numbers=8)
    data = ready(lambda: Generated(tmp_path / "shards", batch_size=8))
    own, base = measured(data, 0.05)
    assert (own.what, base.what) == ("its own latents, in shards", "latents in shards")
    assert own.mb_per_s / own.windows_per_s < base.mb_per_s / base.windows_per_s / 20


def test_wrong_options(uva, tiny_data):
    options = ["--data", "PushT", "--data.path", tiny_data.path]
    status, _, complaint = uva("bench", "data", *options, "--seconds", 0)
    assert (status, complaint) == (2, "uva: error: seconds is 0.0, expected more than 0; set --seconds=20.\n")
    status, _, complaint = uva("bench", "data", *options, "--data.batch_size", 5000, "--seconds", 1)
    assert status == 2
    assert "fewer than batch_size=5000" in complaint
