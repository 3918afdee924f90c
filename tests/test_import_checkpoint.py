"""``uva import-checkpoint`` and back: every bit of an official file, a folder that loads, and clear refusals."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from uva_lightning.cli import main
from uva_lightning.model.checkpoint import build, load_module, read
from uva_lightning.model.start import StartFrom
from uva_lightning.official.importing import expected_model, same_bits
from uva_lightning.official.variants import VARIANTS
from uva_lightning.parity.naming import normal

TINY = ("pusht", "libero10", "toolhang", "toolhang_hist", "umi", "umi_multi")


@pytest.mark.parametrize("variant", TINY)
def test_import_and_export_give_the_same_file(imported, uva, tmp_path, variant):
    folder, _ = imported(variant)
    assert uva("export-checkpoint", folder, "--to", tmp_path / "back.ckpt")[0] == 0
    before = torch.load(tmp_path / f"{variant}.ckpt", weights_only=True)["state_dicts"]
    content = torch.load(tmp_path / "back.ckpt", weights_only=True)
    assert content["cfg"] == content["pickles"] == {}
    for copy in ("model", "ema_model"):
        after = content["state_dicts"][copy]
        assert set(after) == set(before[copy])
        assert all(same_bits(after[name], value) for name, value in before[copy].items())
    assert not before["model"]["model.z_proj.bias"].equal(before["ema_model"]["model.z_proj.bias"])


@pytest.mark.parametrize("variant", TINY)
def test_the_folder_loads_with_the_official_numbers(imported, official_state, variant):
    folder, _ = imported(variant)
    module, data = load_module(str(folder))
    official, weights = official_state(variant), module.state_dict()
    assert data.spec == module.spec
    block = "encoder_blocks.1.mlp.fc2.weight"
    assert weights["transformer.encoder.1.mlp.3.weight"].equal(official[f"model.{block}"])
    shared = module.transformer.streams["video"].placeholder
    assert module.transformer.streams["past_video"].placeholder is shared
    assert shared.equal(official["model.fake_latent_x"])
    assert module.actions.fitted
    scale = official.get("normalizer.params_dict.action.scale", torch.ones(module.spec.action_dim))
    assert module.actions.state()["normalizer.scale"].equal(scale)
    if "proprio" in module.transformer.streams:
        assert module.transformer.streams["proprio"].placeholder is None
        assert module.proprioception.fitted
        first = next(iter(module.spec.state_dims))
        scale = official.get(f"normalizer.params_dict.robot0_{first}.scale", torch.ones(3))
        assert module.proprioception.state()[f"{first}.scale"].equal(scale)


def test_what_is_printed_and_recorded(imported):
    folder, out = imported("umi_multi")
    lines = [line.split() for line in out.splitlines()]
    assert ["shared", "1"] in lines
    assert ["split", "1"] in lines
    assert ["reshaped", "6"] in lines
    assert any(line[:2] == ["unused", "2"] and "proprioception_image_proj_cond.weight," in line for line in lines)
    assert "variant umi_multi at 19.98 Hz" in out
    contract = json.loads((folder / "contract.json").read_text())
    assert contract["source"]["file"] == "umi_multi.ckpt"
    assert len(contract["source"]["sha256"]) == 64
    assert "rotation-6d" in contract["conventions"]["rotation"]
    assert "one step after" in contract["conventions"]["chunk"]
    assert contract["conventions"]["orientation"]
    assert contract["spec"]["state_steps"] is None, "the frames"


ARM = ["eef_pos", "eef_quat", "gripper_qpos"]
UMI = ["eef_pos", "eef_rot", "gripper_width", "eef_rot_wrt_start"]


@pytest.mark.parametrize(
    ("variant", "data", "cameras", "seen", "window"),
    [
        ("pusht", "PushT", ["top"], None, {"past_action": False, "state_steps": None}),
        ("libero10", "Libero10", ["agentview"], None, {}),
        ("toolhang", "ToolHang", ["sideview", "wrist"], ARM, {"state_steps": 16}),
        ("toolhang_hist", "ToolHang", ["sideview", "wrist"], ARM, {"past_action": True}),
        ("umi", "UMI", ["camera0"], UMI, {"every": 3, "vary_history": None, "state_steps": 16}),
        ("umi_multi", "UMIMulti", ["camera0"], UMI, {"shift_action": False, "vary_history": "sample"}),
    ],
)
def test_the_configuration_names_data_as_the_model_takes_them(imported, variant, data, cameras, seen, window):
    folder, _ = imported(variant)
    config = yaml.safe_load((folder / "config.yaml").read_text())
    assert config["data"]["class_path"] == data
    options = config["data"]["init_args"]
    assert options["window"]["cameras"] == cameras
    assert {name: options["window"][name] for name in window} == window
    assert ("text" in options) == (variant in ("libero10", "umi_multi"))
    states = config["model"].get("proprioception", {"init_args": {}})["init_args"]
    assert states.get("streams", {}).get("proprio") == seen
    assert states.get("unused") == (["agent"] if variant == "pusht" else None)


def test_the_current_weights_on_demand(imported, official_state):
    folder, _ = imported("pusht", "--weights", "model")
    found = load_file(folder / "model.safetensors")["transformer.encoder_norm.bias"]
    assert found.equal(official_state("pusht", "model")["model.encoder_norm.bias"])
    assert not found.equal(official_state("pusht")["model.encoder_norm.bias"])


def test_the_files_own_configuration_tells_the_steps_of_proprioception(imported):
    def varied(content):
        content["cfg"] = {"model": {"policy": {"different_history_freq": True}}}

    folder, _ = imported("toolhang", change=varied)
    assert json.loads((folder / "contract.json").read_text())["spec"]["state_steps"] is None
    shutil.rmtree(folder)
    folder, _ = imported("toolhang")
    assert json.loads((folder / "contract.json").read_text())["spec"]["state_steps"] == 16


def test_code_in_the_file_is_named_and_not_run(imported, tmp_path):
    class Trap:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "sprung"),)

    _, out = imported("pusht", change=lambda content: content.update(pickles={"epoch": Trap()}))
    assert "skipped: posix.mkdir (1)" in out
    assert not (tmp_path / "sprung").exists()


def test_tensors_that_share_memory_and_strange_ones(imported, uva, tmp_path):
    """Some trainers store all parameters as views of one buffer."""

    def flat(content):
        for state in content["state_dicts"].values():
            buffer = torch.cat([state["model.z_proj.bias"], state["model.z_proj_cond.bias"]])
            state["model.z_proj.bias"], state["model.z_proj_cond.bias"] = buffer[:64], buffer[64:]
            state["metrics.seen"] = torch.ones(3)

    folder, out = imported(change=flat)
    assert ["unknown", "1", "metrics.seen"] in [line.split() for line in out.splitlines()]
    assert uva("export-checkpoint", folder, "--to", tmp_path / "back.ckpt")[0] == 0
    after = torch.load(tmp_path / "back.ckpt", weights_only=True)["state_dicts"]["ema_model"]
    before = torch.load(tmp_path / "pusht.ckpt", weights_only=True)["state_dicts"]["ema_model"]
    assert all(same_bits(after[name], value) for name, value in before.items())


def test_data_of_ones_own_need_a_name(imported, refused, official_file):
    def own(content):
        for state in content["state_dicts"].values():
            for name in [name for name in state if "agent_pos" in name]:
                state[name.replace("agent_pos", "tip")] = state.pop(name)

    text = refused(official_file("pusht", own))
    assert "normalises ['action', 'image', 'tip'], which is no data of the official code; give --variant" in text
    folder, _ = imported("pusht", "--variant", "pusht", change=own)
    assert json.loads((folder / "contract.json").read_text())["variant"] == "pusht"


def test_a_folder_that_was_moved_still_loads(imported, tiny_vae, tmp_path):
    folder, _ = imported()
    shutil.copytree(tiny_vae, folder / "vae")
    folder.rename(tmp_path / "elsewhere")
    module, _ = load_module(tmp_path / "elsewhere")
    assert module.tokenizer.path == tmp_path / "elsewhere" / "vae"


def test_safetensors_with_one_copy(uva, official_state, tiny_vae, tmp_path):
    save_file(official_state("pusht"), tmp_path / "policy.safetensors")
    options = ("--to", tmp_path / "out", "--heads", 4, "--vae", tiny_vae)
    assert uva("import-checkpoint", tmp_path / "policy.safetensors", *options)[0] == 0
    assert load_module(tmp_path / "out")[0].state_dict()["transformer.fuse_bias"].any()


class TestStartingFromMAR:
    @pytest.fixture
    def mar(self, official_keys, tmp_path):
        """MAR at tiny size: what UVA takes over, and what it leaves."""
        shapes = {n: s for n, s in official_keys["tiny/libero10"].items() if n in official_keys["mar_base"]}
        left = {"class_emb.weight": [10, 64], "mask_token": [1, 1, 64], "encoder_pos_embed_learned": [1, 320, 64]}
        shapes |= {**left, "decoder_pos_embed_learned": [1, 320, 64], "diffusion_pos_embed_learned": [1, 256, 64]}
        state = {name: normal(name, shape) for name, shape in shapes.items()}
        torch.save({"model": {}, "model_ema": state, "epoch": 799}, tmp_path / "mar.pth")
        return tmp_path / "mar.pth"

    def test_the_folder_holds_a_start(self, uva, mar, tiny_vae, tmp_path, official_keys):
        options = ("--to", tmp_path / "out", "--heads", 4, "--vae", tiny_vae, "--variant", "libero10")
        status, out, _ = uva("import-checkpoint", mar, *options)
        assert status == 0
        total = len(official_keys["tiny/libero10"].keys() & official_keys["mar_base"].keys())
        assert ["matched", str(total), "of", f"{total + 5},"] in [line.split()[:4] for line in out.splitlines()]
        config = yaml.safe_load((tmp_path / "out" / "config.yaml").read_text())
        assert list(config["model"]["heads"]) == ["video"]
        assert config["model"]["start"] == {"path": str(tmp_path / "out"), "fitted": False}
        with pytest.raises(ValueError, match="holds weights to start training from, not a whole model"):
            load_module(tmp_path / "out")
        assert uva("export-checkpoint", tmp_path / "out", "--to", tmp_path / "x.ckpt")[0] == 2

    def test_it_starts_any_stage(self, uva, mar, tiny_vae, imported, tmp_path):
        """Also a model with all heads and with proprioception, whose parts MAR has no weights for."""
        assert uva("import-checkpoint", mar, "--to", tmp_path / "out", "--heads", 4, "--vae", tiny_vae)[0] == 0
        folder, _ = imported("umi")
        module, _ = build((folder / "config.yaml").read_text())
        StartFrom(tmp_path / "out").apply(module, {})
        source = load_file(tmp_path / "out" / "model.safetensors")
        weights = module.state_dict()
        assert all(weights[name].equal(value) for name, value in source.items())
        assert weights["transformer.streams.proprio.fuse.weight"].any(), "nothing is to be kept, so it may matter"

    def test_too_little_of_another_model_is_refused(self, refused, mar):
        content = torch.load(mar)
        content["model_ema"] |= {f"other.{n}": torch.ones(1) for n in range(50)}
        torch.save(content, mar)
        text = refused(mar)
        assert "86 of 142 tensors match (60.6%), expected at least 90.0%, e.g. 'fake_latent' does not" in text


@pytest.mark.parametrize("damage", ["model.safetensors", "config.yaml", "contract.json"])
def test_an_incomplete_folder_is_refused(imported, damage):
    folder, _ = imported()
    if damage == "contract.json":
        (folder / damage).write_text('{"format": "other"}')
    else:
        (folder / damage).unlink()
    with pytest.raises(ValueError, match=r"cannot be read|is incomplete|has the format other"):
        read(folder)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["pusht_video", "umi_multi_joint"])
def test_full_size_round_trip(uva, official_keys, tmp_path, name):
    vae = json.loads((Path(__file__).parent / "fixtures" / "kl16_keys.json").read_text())
    clip = official_keys["clip"] if "umi" in name else {}
    shapes = official_keys[f"full/{name}"] | {f"vae_model.{key}": shape for key, shape in vae.items()}
    shapes |= {f"text_model.{key}": shape for key, shape in clip.items()}
    state = {
        key: torch.arange(shape[-1]).expand(shape).contiguous() if "position_ids" in key else normal(key, shape)
        for key, shape in shapes.items()
    }
    torch.save({"cfg": {}, "state_dicts": {"model": state, "ema_model": state}, "pickles": {}}, tmp_path / "a.ckpt")
    assert uva("import-checkpoint", tmp_path / "a.ckpt", "--to", tmp_path / "a")[0] == 0
    (tmp_path / "a.ckpt").unlink()
    assert uva("export-checkpoint", tmp_path / "a", "--to", tmp_path / "b.ckpt")[0] == 0
    shutil.rmtree(tmp_path / "a")
    after = torch.load(tmp_path / "b.ckpt", weights_only=True, mmap=True)["state_dicts"]
    for copy in ("model", "ema_model"):
        assert set(after[copy]) == set(state)
        assert all(after[copy][key].equal(value) for key, value in state.items())
    del after
    (tmp_path / "b.ckpt").unlink()


def test_the_expected_tensors_need_no_autoencoder(imported):
    folder, _ = imported()
    config = yaml.safe_load((folder / "config.yaml").read_text())
    spec, expected = expected_model(config, VARIANTS["pusht"])
    assert dict(spec.state_dims) == {"agent": 2}
    assert {name: value.shape for name, value in expected.items()} == {
        name: value.shape for name, value in load_module(folder)[0].state_dict().items()
    }


@pytest.mark.slow
def test_training_goes_on_from_the_folder(imported, tiny_data, tmp_path, monkeypatch):
    """The folder's own configuration, with other data put in: one step, from the imported numbers."""

    def small(content):
        for state in content["state_dicts"].values():
            state |= {name: 0.02 * value for name, value in state.items() if name.startswith("model.")}

    folder, _ = imported(change=small)
    config = yaml.safe_load((folder / "config.yaml").read_text())
    config["data"]["init_args"] |= {"path": str(tiny_data.path), "batch_size": 5, "val_ratio": 0.2}
    config["model"]["optimizer"]["init_args"] |= {"lr": 1e-4, "warmup_steps": 0}
    keep = {"class_path": "ModelCheckpoint", "init_args": {"dirpath": str(tmp_path / "run"), "save_last": True}}
    config["trainer"] = {"max_steps": 1, "accelerator": "cpu", "logger": False, "limit_val_batches": 0}
    config["trainer"] |= {"callbacks": [keep], "enable_progress_bar": False, "default_root_dir": str(tmp_path)}
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    monkeypatch.setattr("sys.argv", ["uva"])
    assert main(["fit", "--config", str(tmp_path / "run.yaml")]) == 0
    before, after = load_module(folder)[0], load_module(tmp_path / "run" / "last.ckpt")[0]
    moved = [(after.state_dict()[name] - value).abs().max() for name, value in before.state_dict().items()]
    assert 0 < max(moved) < 1e-3
    assert after.actions.state()["normalizer.scale"].equal(before.actions.state()["normalizer.scale"])


def test_the_second_stage_starts_as_the_first_ended(imported, uva, tiny_vae, tmp_path):
    """UMI's second stage adds proprioception: the official code draws the fusion layer anew, here it is kept."""

    def first_stage(content):
        later = ("model.diffactloss.", "model.diffproploss.", "model.proprioception_")
        for copy, state in content["state_dicts"].items():
            kept = {name: value for name, value in state.items() if not name.startswith(later)}
            kept["model.proj_cond_x_layer.weight"] = kept["model.proj_cond_x_layer.weight"][:, :192].clone()
            content["state_dicts"][copy] = kept

    first, _ = imported("umi_multi", change=first_stage)
    first = first.rename(tmp_path / "first")
    assert list(load_module(first)[0].heads) == ["video"]
    second, _ = imported("umi_multi")
    module, _ = build((second / "config.yaml").read_text())
    with pytest.raises(ValueError, match=r"lacks \d+ tensors of this model, e\.g\. 'heads\.action"):
        StartFrom(first).apply(module, {})
    StartFrom(first, new=["heads.action.*", "heads.future_proprio.*"]).apply(module, {})
    weights, source = module.state_dict(), load_file(first / "model.safetensors")
    assert not weights["transformer.streams.proprio.fuse.weight"].any()
    assert all(weights[name].equal(value) for name, value in source.items())
    assert module.transformer.streams["past_video"].placeholder is module.transformer.streams["video"].placeholder


def test_the_text_encoder_alone(uva, official_keys, tmp_path):
    tensors = {name: torch.full((2,), float(number)) for number, name in enumerate(official_keys["clip"])}
    torch.save(tensors, tmp_path / "clip.bin")
    assert uva("import-checkpoint", tmp_path / "clip.bin", "--to", tmp_path / "text")[0] == 0
    found = load_file(tmp_path / "text" / "model.safetensors")
    assert set(found) == {name for name in tensors if not name.endswith("position_ids")}
    assert all(found[name].equal(tensors[name]) for name in found)
    del tensors["vision_model.post_layernorm.bias"]
    torch.save(tensors, tmp_path / "less.bin")
    status, _, complaint = uva("import-checkpoint", tmp_path / "less.bin", "--to", tmp_path / "less")
    assert status == 2
    assert "The text encoder lacks 1 of 398 tensors, e.g. 'vision_model.post_layernorm.bias'" in complaint


@pytest.mark.parametrize(("official", "ours"), [("conv_ori", "ConvOri"), ("conv2", "TokenConv"), ("fc2", "TokenFC")])
def test_every_aggregator_is_built_and_filled(imported, official_keys, official, ours):
    def other(content):
        for state in content["state_dicts"].values():
            for name in [name for name in state if name.startswith("model.diffactloss.") and ".net." not in name]:
                del state[name]
            state |= {
                f"model.diffactloss.{n}": normal(n, shape) for n, shape in official_keys[f"head/{official}"].items()
            }

    folder, _ = imported(change=other)
    aggregate = load_module(folder)[0].heads["action"].aggregate
    assert type(aggregate).__name__ == ours
    assert all(value.equal(normal(name, value.shape)) for name, value in aggregate.state_dict().items())
