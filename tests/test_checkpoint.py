"""One file rebuilds the model; a file that is not ours is refused without running anything in it."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
import torch
import yaml

from uva_lightning.cli import main
from uva_lightning.model.checkpoint import load_module, read


def settings(path, folder):
    denoiser = {"class_path": "FlowMatching", "init_args": {"width": 16, "depth": 1}}
    transformer = {"width": 16, "heads": 2, "encoder_depth": 1, "decoder_depth": 1}
    return {
        "model": {
            "tokenizer": {"class_path": "LinearPatches", "init_args": {"channels": 8}},
            "transformer": {"class_path": "LatentTransformer", "init_args": transformer},
            "objectives": {"policy": "RobotPolicy", "video": "VideoModel"},
            "balancer": {"class_path": "LossScale"},
            "heads": {
                "video": {"class_path": "VideoHead", "init_args": {"denoiser": denoiser, "steps": 2}},
                "action": {
                    "class_path": "ActionHead",
                    "init_args": {"aggregator": "ConvFC", "denoiser": denoiser, "steps": 2},
                },
            },
        },
        "data": {"class_path": "PushT", "init_args": {"path": str(path), "window": {"frames": 2}, "batch_size": 8}},
        "trainer": {
            "max_steps": 4,
            "accelerator": "cpu",
            "default_root_dir": str(folder),
            "logger": False,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "limit_val_batches": 0,
            "callbacks": [
                "EMA",
                {"class_path": "ModelCheckpoint", "init_args": {"dirpath": str(folder), "save_last": True}},
            ],
        },
    }


@pytest.fixture(scope="module")
def written(tiny_data, tmp_path_factory):
    """A checkpoint of four steps, written by ``uva fit``."""
    folder = tmp_path_factory.mktemp("run")
    (folder / "run.yaml").write_text(yaml.safe_dump(settings(tiny_data.path, folder)))
    argv, sys.argv = sys.argv, ["uva"]
    try:
        assert main(["fit", "--config", str(folder / "run.yaml")]) == 0
    finally:
        sys.argv = argv
    return folder / "last.ckpt"


@pytest.fixture
def changed(written, tmp_path):
    """A function that writes the checkpoint anew after a change."""

    def write(change):
        checkpoint = torch.load(written, weights_only=True)
        change(checkpoint)
        torch.save(checkpoint, tmp_path / "changed.ckpt")
        return tmp_path / "changed.ckpt"

    return write


def test_the_file_alone_rebuilds_the_model(written):
    module, data = load_module(written)
    stored = torch.load(written, weights_only=True)
    assert not module.training
    assert data.spec == module.spec
    assert module.tokenizer.fitted
    assert module.actions.fitted
    for name, value in module.state_dict().items():
        assert (
            value.equal(stored["state_dict"][name]) if torch.is_tensor(value) else value == stored["state_dict"][name]
        )
    for name, part in module._fitted().items():
        assert all(value.equal(stored["fitted"][name][entry]) for entry, value in part.state().items())


def test_the_weights_are_the_averaged_ones(written):
    module, _ = load_module(written)
    current = torch.load(written, weights_only=True)["current_model_state"]
    weights = dict(module.named_parameters())
    assert any(not weights[name].equal(value) for name, value in current.items() if name in weights)


def test_the_data_may_be_gone(changed):
    def move(checkpoint):
        config = yaml.safe_load(checkpoint["config"])
        config["data"]["init_args"]["path"] = "/nowhere/to/be/found"
        checkpoint["config"] = yaml.safe_dump(config)

    _, data = load_module(changed(move))
    assert data.path == Path("/nowhere/to/be/found")


def test_a_missing_file_names_one_that_is_there(written):
    with pytest.raises(ValueError, match=r"There is no checkpoint .*lost\.ckpt; did you mean .*\.ckpt\?"):
        load_module(written.parent / "lost.ckpt")


def test_a_missing_file_in_an_empty_folder_says_what_writes_one(tmp_path):
    with pytest.raises(ValueError, match=r"There is no checkpoint .*; `uva fit` writes one"):
        load_module(tmp_path / "lost.ckpt")
    with pytest.raises(ValueError, match="is a folder without contract.json, expected a checkpoint"):
        load_module(tmp_path)


DAMAGED = "cannot be read as a checkpoint of tensors and plain values: it is damaged or cut off"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is no checkpoint: it is empty"),
        (b"\n\n", "is no checkpoint: it is empty"),
        (b"not a checkpoint at all", "is no checkpoint: it begins with b'not a checkpoint at all'"),
        (b"hello world" * 100, "is no checkpoint: it begins with b'hello worldhello worldhello worl'"),
        (b"\n<!DOCTYPE html>\n<html>", "is no checkpoint: it begins with b'<!DOCTYPE html>'"),
        (b"model:\n  heads: {}\n", "is no checkpoint: it begins with b'model:'"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "is no checkpoint: it is a git-lfs pointer"),
        (bytes(range(256)), "is no checkpoint: it begins with"),
        (b"PK\x03\x04 half a zip", DAMAGED),
        (b"\x80\x04", DAMAGED),
        (b"\x80\x02h\x65.", DAMAGED),
    ],
)
def test_a_file_that_is_no_checkpoint_is_refused_in_one_sentence(uva, tmp_path, content, words):
    (tmp_path / "odd.ckpt").write_bytes(content)
    with pytest.raises(ValueError, match=r"odd\.ckpt (is no|cannot)") as refused:
        read(tmp_path / "odd.ckpt")
    said = str(refused.value)
    assert said.startswith(f"{tmp_path / 'odd.ckpt'} {words}")
    assert ", expected a file that `uva fit` wrote or a folder of `uva import-checkpoint`; " in said
    assert "weights_only" not in said
    assert "\n" not in said
    status, _, complaint = uva("rollout", "--ckpt", tmp_path / "odd.ckpt")
    assert (status, complaint) == (2, f"uva: error: {said}\n")


def test_half_a_checkpoint_is_refused(written, tmp_path):
    whole = written.read_bytes()
    (tmp_path / "half.ckpt").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"half\.ckpt cannot be read as a checkpoint"):
        read(tmp_path / "half.ckpt")


@pytest.mark.parametrize("value", [{"state_dict": {}}, torch.zeros(3), [1, 2], 7, None])
def test_a_foreign_file_says_what_it_lacks(tmp_path, value):
    torch.save(value, tmp_path / "foreign.ckpt")
    with pytest.raises(ValueError, match=r"foreign\.ckpt lacks .*'config'.*expected a checkpoint written by `uva fit`"):
        read(tmp_path / "foreign.ckpt")


def test_missing_and_unknown_tensors_are_counted(changed):
    def damage(checkpoint):
        weights = checkpoint["state_dict"]
        gone = [name for name in weights if name.startswith("transformer.streams.agent")]
        for name in gone:
            del weights[name]
        weights["heads.force.bias"] = torch.zeros(1)
        damage.count = len(gone)

    path = changed(damage)
    assert damage.count > 2
    with pytest.raises(
        ValueError, match=rf"{damage.count} tensors are missing and 1 are unknown, e\.g\. 'transformer\.streams\.agent"
    ):
        load_module(path)


def test_tensors_of_another_shape_are_refused(changed):
    def widen(checkpoint):
        checkpoint["state_dict"]["transformer.fuse_bias"] = torch.zeros(99)

    with pytest.raises((ValueError, RuntimeError), match=r"fuse_bias"):
        load_module(changed(widen))


def test_a_contract_that_differs_from_the_code_is_named(changed):
    def other(checkpoint):
        checkpoint["contract"]["action_dim"] = 7

    with pytest.raises(ValueError, match="action_dim = 2, the checkpoint was trained with 7"):
        load_module(changed(other))


def test_nothing_in_a_checkpoint_is_run(tmp_path):
    class Trap:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "sprung"),))

    torch.save({"config": "", "contract": {}, "fitted": {}, "state_dict": Trap()}, tmp_path / "evil.ckpt")
    with pytest.raises(
        ValueError, match=r"evil\.ckpt cannot be read as a .* plain values: it holds \w+\.mkdir"
    ) as refused:
        load_module(tmp_path / "evil.ckpt")
    assert "weights_only" not in str(refused.value)
    assert not (tmp_path / "sprung").exists()
    torch.load(tmp_path / "evil.ckpt", weights_only=False)
    assert (tmp_path / "sprung").exists(), "the trap works"


def test_a_configuration_runs_no_yaml_tags(changed, tmp_path):
    def trap(checkpoint):
        checkpoint["config"] = f"!!python/object/apply:os.mkdir ['{tmp_path / 'sprung'}']"

    with pytest.raises(yaml.YAMLError):
        load_module(changed(trap))
    assert not (tmp_path / "sprung").exists()
