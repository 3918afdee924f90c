"""``uva bench policy`` on a tiny model: every stage is timed, and the plain path beside it."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn

from uva_lightning.benchmarks.decisions import flops
from uva_lightning.policy.packed import PackedLinear, packs


@pytest.fixture
def config(tiny_run, tmp_path):
    return tiny_run(tmp_path / "run", 1)


@pytest.mark.parametrize(("options", "stages"), [([], ("action head",)), (["--video=2"], ("video head", "decode"))])
def test_every_stage_is_timed_and_the_plain_path_beside_it(uva, config, tmp_path, options, stages):
    file = tmp_path / "out" / "policy.json"
    command = [
        "bench",
        "policy",
        "--experiment",
        config,
        "--repeats=2",
        f"--json={file}",
        "--steps=4",
    ]
    status, out, complaint = uva(*command, "--baseline", "--batch=2", *options)
    assert status == 0, complaint
    said = json.loads(file.read_text())
    assert set(said["fast"]["warm_ms"]) >= {"encode", "trunk", "other", "total", *stages}
    assert (said["fast"]["calls"], said["plain"]["calls"], said["batch"], said["weights"]) == (2, 2, 2, "random")
    total, plain = said["fast"]["warm_ms"]["total"], said["plain"]["warm_ms"]["total"]
    assert 0 < total["p50"] <= total["p95"] <= total["p99"]
    assert said["speedup"] == pytest.approx(plain["p50"] / total["p50"])
    assert said["fast"]["cold_ms"]["total"] > 0
    assert said["fast"]["flops"] > 1e6
    assert 0 < said["fast"]["share_of_peak"] < 1
    assert said["peak_memory_mib"]["process"] > 100
    assert said["paper_ms"]["device"] == "NVIDIA L40"
    assert f"{said['speedup']:.2f} times faster" in out
    assert "95 (policy, 16 steps)" in out


def test_without_a_baseline_there_is_no_ratio(uva, config):
    status, out, _ = uva("bench", "policy", "--experiment", config, "--repeats=1")
    assert status == 0
    assert "times faster" not in out


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("--device=cuda:9x", "device is cuda:9x, expected auto"),
        ("--json=/proc/none/x.json", "/proc/none/x.json cannot be written (No such file or directory);"),
    ],
)
def test_what_cannot_work_is_refused_before_the_work(uva, monkeypatch, option, said):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    status, out, complaint = uva("bench", "policy", option)
    assert (status, out) == (2, "")
    assert said in complaint


@pytest.mark.parametrize(("name", "least"), [("batch", 1), ("repeats", 1), ("execute", 1), ("video", 0)])
def test_impossible_numbers_are_refused(uva, name, least):
    status, _, complaint = uva("bench", "policy", f"--{name}={least - 1}")
    assert status == 2
    assert f"{name} is {least - 1}, expected at least {least}" in complaint


def test_more_steps_between_decisions_than_a_chunk_has_are_refused(uva, config):
    status, out, complaint = uva("bench", "policy", "--experiment", config, "--execute=17")
    assert (status, out) == (2, "")
    assert "execute is 17, expected 1 to 16, the actions in a chunk; set --execute" in complaint


def test_a_checkpoint_beside_an_experiment_is_refused(uva, config, tmp_path):
    status, out, complaint = uva("bench", "policy", "--ckpt", tmp_path / "a.ckpt", "--experiment", config)
    assert (status, out) == (2, "")
    assert f"a.ckpt and experiment is {config}, expected one model; leave one of them out" in complaint
    assert "There is no checkpoint" in uva("bench", "policy", "--ckpt", tmp_path / "a.ckpt")[2]


def test_attention_counts_too():
    query = torch.randn(1, 2, 8, 4)
    assert flops(lambda: nn.functional.scaled_dot_product_attention(query, query, query)) == 4 * 2 * 8 * 8 * 4
    assert flops(lambda: nn.functional.linear(torch.randn(3, 5), torch.randn(7, 5))) == 2 * 3 * 5 * 7


@pytest.mark.skipif(not packs(torch.bfloat16, torch.device("cpu")), reason="needs a CPU that multiplies bfloat16")
def test_packed_layers_count_as_others():
    layer = nn.Linear(64, 32).bfloat16()
    x = torch.randn(3, 64).bfloat16()
    with torch.no_grad():
        assert flops(lambda: PackedLinear(layer)(x)) == flops(lambda: layer(x)) == 2 * 3 * 64 * 32
