"""Starting from the weights of another model: what is taken, what may be new, and what is refused."""

from __future__ import annotations

import sys
from dataclasses import replace

import pytest
import torch
import yaml

from uva_lightning.cli import main
from uva_lightning.model.checkpoint import load_module
from uva_lightning.model.fitted import fit_together
from uva_lightning.model.start import StartFrom
from uva_lightning.types import Batch, Visible

FORCE = '''
"""Push-T with a force, written beside the user's config."""
from dataclasses import replace
import numpy as np
from uva_lightning.datamodules.layouts import read_episodes
from uva_lightning.datamodules.pusht import PushT

class PushTWithForce(PushT):
    """Push-T and the distance between target and agent, as a force would be."""

    facts = replace(PushT.facts, state_dims={"agent": 2, "force": 1})

    def read(self):
        store = read_episodes(self.path, self.fields, PushT.facts)
        force = np.linalg.norm(store.action - store.state["agent"], axis=1, keepdims=True)
        return replace(store, state={**store.state, "force": force.astype(np.float32)})
'''


@pytest.fixture
def source(tiny_data, tiny_module, tmp_path):
    """A fitted tiny model and the checkpoint it is stored in."""
    data = tiny_data()
    data.setup("fit")
    module = tiny_module(data.spec)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    module.tokenizer.fit(data.training_frames())
    fit_together([module.actions, module.proprioception], data.training_numbers())
    checkpoint = {"config": "model: {}", "state_dict": module.state_dict()}
    module.on_save_checkpoint(checkpoint)
    torch.save(checkpoint, tmp_path / "source.ckpt")
    return module, tmp_path / "source.ckpt"


@pytest.fixture
def force(tiny_data, tiny_module):
    """A function that makes the model of a robot with one more sensor."""

    def make(**options):
        spec = tiny_data().spec
        return tiny_module(replace(spec, state_dims={"agent": 2, "force": 6}), **options)

    return make


def batch(spec):
    rng = torch.Generator().manual_seed(1)
    return Batch(
        video={"top": torch.randint(0, 256, (4, 2 * spec.frames, 96, 96, 3), generator=rng, dtype=torch.uint8)},
        action=256 + 100 * torch.randn(4, spec.horizon, 2, generator=rng),
        state={
            name: 256 + 100 * torch.randn(4, spec.proprio_steps, width, generator=rng)
            for name, width in spec.state_dims.items()
        },
    )


def latent(module, values):
    tokens = module.tokens(values)
    return module.transformer(tokens, Visible.only(tokens, "history"))


def test_all_weights_and_fitted_parts_are_taken(source, tiny_module, capsys):
    module, path = source
    other = tiny_module(module.spec)
    StartFrom(path, fitted=True).apply(other, other._fitted())
    assert all(value.equal(module.state_dict()[name]) for name, value in other.state_dict().items())
    assert other.tokenizer.fingerprint() == module.tokenizer.fingerprint()
    assert other.actions.state()["normalizer.scale"].equal(module.actions.state()["normalizer.scale"])
    again = tiny_module(module.spec)
    StartFrom(path).apply(again, again._fitted())
    assert not again.tokenizer.fitted


def test_one_line_tells_how_much(source, tiny_module, caplog):
    module, path = source
    count = len(module.state_dict())
    with caplog.at_level("INFO"):
        other = tiny_module(module.spec)
        StartFrom(path).apply(other, other._fitted())
    assert f"{count} of {count} tensors taken, 0 new, 0 of the source unused." in caplog.text


class TestANewModality:
    def test_changes_nothing_at_first_and_then_learns(self, source, force):
        module, path = source
        other = force()
        StartFrom(path, fitted=True).apply(other, other._fitted())
        assert not other.proprioception.fitted, "force is still to be fitted to the data"
        values = batch(other.spec)
        for name, normalizer in other.proprioception.normalizers.items():
            if not normalizer.fitted:
                normalizer.fit(values.state[name].flatten(0, 1))
        known = replace(values, state={"agent": values.state["agent"]})
        expected = latent(module.eval(), known)
        found = latent(other.eval(), values)
        assert found.equal(expected)
        fuse = other.transformer.streams["force"].fuse.weight
        optimizer = torch.optim.SGD(other.parameters(), lr=0.1)
        for _ in range(2):
            optimizer.zero_grad()
            latent(other, values).square().mean().backward()
            optimizer.step()
        assert fuse.grad.abs().max() > 0
        assert other.transformer.streams["force"].project[1].weight.grad.abs().max() > 0, "from the second step on"
        assert not latent(other, values).equal(expected)

    def test_may_start_at_random_where_that_is_said(self, source, force):
        other = force()
        StartFrom(source[1], new=["transformer.streams.force.*"]).apply(other, other._fitted())
        assert other.transformer.streams["force"].fuse.weight.any()

    def test_is_added_by_configuration_alone(self, tiny_data, tmp_path, monkeypatch):
        """`uva fit` goes on from a trained model with a data class of the user's own."""
        (tmp_path / "my_robot.py").write_text(FORCE)
        monkeypatch.delitem(sys.modules, "my_robot", raising=False)  # of another test
        monkeypatch.syspath_prepend(tmp_path)
        first = fit(tmp_path / "first", {"class_path": "PushT", "init_args": data_options(tiny_data)})
        data = {"class_path": "my_robot.PushTWithForce", "init_args": data_options(tiny_data)}
        second = fit(tmp_path / "second", data, {"path": str(first), "fitted": True}, steps=1)
        before, after = load_module(first)[0], load_module(second)[0]
        assert set(after.transformer.streams) - set(before.transformer.streams) == {"force"}
        assert after.transformer.streams["force"].fuse.weight.abs().max() > 0, "one step has moved it from zero"
        moved = after.transformer.encoder[0].attn.qkv.weight - before.transformer.encoder[0].attn.qkv.weight
        assert 0 < moved.abs().max() < 0.01, "one step from where the first run ended"


def data_options(tiny_data):
    return {"path": str(tiny_data.path), "window": {"frames": 2}, "batch_size": 8, "val_ratio": 0.2}


def fit(folder, data, start=None, steps=2):
    """Train by command and give the checkpoint."""
    denoiser = {"class_path": "FlowMatching", "init_args": {"width": 16, "depth": 1}}
    transformer = {"width": 16, "heads": 2, "encoder_depth": 1, "decoder_depth": 1}
    video = {"class_path": "VideoHead", "init_args": {"denoiser": denoiser, "steps": 2}}
    config = {
        "model": {
            "tokenizer": {"class_path": "LinearPatches", "init_args": {"channels": 8}},
            "transformer": {"class_path": "LatentTransformer", "init_args": transformer},
            "objectives": {"video": "VideoModel"},
            "heads": {"video": video},
            "optimizer": {"class_path": "AdamWCosine", "init_args": {"lr": 1e-3, "warmup_steps": 0}},
            **({"start": start} if start else {}),
        },
        "data": data,
        "trainer": {
            "max_steps": steps,
            "accelerator": "cpu",
            "default_root_dir": str(folder),
            "logger": False,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "limit_val_batches": 0,
            "callbacks": [{"class_path": "ModelCheckpoint", "init_args": {"dirpath": str(folder), "save_last": True}}],
        },
    }
    folder.mkdir()
    (folder / "run.yaml").write_text(yaml.safe_dump(config))
    argv, sys.argv = sys.argv, ["uva"]
    try:
        assert main(["fit", "--config", str(folder / "run.yaml")]) == 0
    finally:
        sys.argv = argv
    return folder / "last.ckpt"


class TestRefused:
    def test_a_missing_path(self, tiny_module, source, tmp_path):
        with pytest.raises(ValueError, match=r"There is no checkpoint .*lost\.ckpt"):
            StartFrom(tmp_path / "lost.ckpt").apply(source[0], {})

    def test_other_shapes(self, source, tiny_module):
        from uva_lightning.model.transformer import LatentTransformer

        other = tiny_module(source[0].spec, transformer=lambda shapes: LatentTransformer(shapes, 64, 2, 1, 1))
        with pytest.raises(ValueError, match=r"\d+ tensors have another shape, e\.g\. '.*' is \[.*\], expected \["):
            StartFrom(source[1]).apply(other, {})

    def test_a_new_tensor_that_nobody_allowed(self, source, tiny_module):
        path = without(source[1], "heads.action.aggregate.")
        other = tiny_module(source[0].spec)
        with pytest.raises(
            ValueError, match=r"lacks 12 tensors of this model, e\.g\. 'heads\.action\.aggregate.*'heads\.action\.\*'"
        ):
            StartFrom(path).apply(other, {})
        StartFrom(path, new=["heads.action.*"]).apply(other, {})

    def test_too_little_in_common(self, source, tiny_module):
        stored = torch.load(source[1])
        stored["state_dict"] |= {f"heads.audio.{number}": torch.ones(1) for number in range(200)}
        torch.save(stored, source[1])
        other = tiny_module(source[0].spec)
        with pytest.raises(ValueError, match=r"\d+ of its \d+ tensors have a place .* at least 90%, e\.g\. 'heads\.a"):
            StartFrom(source[1]).apply(other, {})
        StartFrom(source[1], minimum=0.2).apply(other, {})

    def test_a_minimum_that_is_no_share(self):
        with pytest.raises(ValueError, match=r"start\.minimum is 90, expected a share"):
            StartFrom("x", minimum=90)

    def test_two_vectors_where_this_model_shares_one(self, source, tiny_module):
        from functools import partial

        from uva_lightning.model.streams import Stream
        from uva_lightning.model.transformer import LatentTransformer

        streams = {"past_video": partial(Stream, placeholder="video")}
        other = tiny_module(
            source[0].spec, transformer=lambda shapes: LatentTransformer(shapes, 32, 2, 1, 1, streams=streams)
        )
        with pytest.raises(ValueError, match=r"is shared with another stream in this model, but not in the source"):
            StartFrom(source[1]).apply(other, {})


def without(path, prefix):
    stored = torch.load(path)
    stored["state_dict"] = {n: v for n, v in stored["state_dict"].items() if not n.startswith(prefix)}
    torch.save(stored, path)
    return path


def test_a_resumed_run_does_not_start_again(tiny_data, tmp_path):
    data = {"class_path": "PushT", "init_args": data_options(tiny_data)}
    first = fit(tmp_path / "first", data)
    second = fit(tmp_path / "second", data, {"path": str(first)})
    first.unlink()  # starting again would complain
    config = tmp_path / "second" / "run.yaml"
    argv, sys.argv = sys.argv, ["uva"]
    try:
        options = ["--ckpt_path", str(second), "--trainer.max_steps", "3"]
        assert main(["fit", "--config", str(config), *options]) == 0
    finally:
        sys.argv = argv
