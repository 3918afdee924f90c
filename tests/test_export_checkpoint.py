"""``uva export-checkpoint``: a trained model goes back to the official code, or is refused in one sentence."""

from __future__ import annotations

import json
import resource
from functools import partial
from pathlib import Path

import pytest
import torch
import yaml

from uva_lightning.model.checkpoint import load_module
from uva_lightning.model.heads.aggregate import ConvFC
from uva_lightning.model.heads.base import ActionHead, VideoHead
from uva_lightning.model.heads.diffusion import GaussianDiffusion
from uva_lightning.model.tokenizers.kl16 import from_official
from uva_lightning.objectives.robot_policy import RobotPolicy
from uva_lightning.objectives.video_model import VideoModel
from uva_lightning.official.exportable import autoencoder_of, layout_of_ours
from uva_lightning.official.folder import write_vae
from uva_lightning.parity.naming import normal


@pytest.fixture
def trained(uva, official_file, tiny_vae, tmp_path):
    """A function that imports a tiny official file, and stores it as a training run does after a change."""

    def make(variant="pusht", vae=tiny_vae, change=None, base=True):
        folder = tmp_path / "imported"
        options = ("--to", folder, "--heads", 4, "--vae", vae)
        assert uva("import-checkpoint", official_file(variant), *options)[0] == 0
        config = yaml.safe_load((folder / "config.yaml").read_text())
        if not base:
            del config["model"]["start"]
        if change is not None:
            change(config)
            (folder / "config.yaml").write_text(yaml.safe_dump(config))
        module, _ = load_module(folder)
        weights = {name: value.clone() for name, value in module.state_dict().items()}
        raw = {name: value + 1 for name, value in weights.items()}
        checkpoint = {"config": yaml.safe_dump(config), "state_dict": weights, "current_model_state": raw}
        module.on_save_checkpoint(checkpoint)
        torch.save(checkpoint, tmp_path / "last.ckpt")
        return tmp_path / "last.ckpt"

    return make


@pytest.fixture(scope="module")
def kl16(tmp_path_factory):
    """The official autoencoder's folder, and its tensors by official name."""
    folder = tmp_path_factory.mktemp("kl16") / "vae"
    keys = json.loads((Path(__file__).parent / "fixtures" / "kl16_keys.json").read_text())
    state = {name: normal(name, shape) for name, shape in keys.items()}
    write_vae(folder, from_official(state))
    yield folder, state
    (folder / "diffusion_pytorch_model.safetensors").unlink()  # 266 MB


@pytest.mark.slow
class TestATrainedModel:
    @pytest.mark.parametrize("variant", ["pusht", "umi", "toolhang"])
    def test_goes_back_to_the_official_names(self, trained, uva, kl16, official_state, tmp_path, variant):
        folder, vae = kl16
        path = trained(variant, folder)
        assert uva("export-checkpoint", path, "--to", tmp_path / "official.ckpt")[0] == 0
        content = torch.load(tmp_path / "official.ckpt", weights_only=True)
        before, copies = official_state(variant), content["state_dicts"]
        assert set(copies["ema_model"]) == {*before, *(f"vae_model.{name}" for name in vae)}
        assert all(copies["ema_model"][name].equal(value) for name, value in before.items())
        assert all(copies["model"][f"vae_model.{name}"].equal(value) for name, value in vae.items())
        trained_names = [name for name in before if name.startswith("model.") and "proprioception_image" not in name]
        assert all(copies["model"][name].equal(before[name] + 1) for name in trained_names)

    def test_what_nothing_gives_is_made(self, trained, uva, kl16, tmp_path):
        path = trained("umi", kl16[0], base=False)
        assert uva("export-checkpoint", path, "--to", tmp_path / "official.ckpt")[0] == 0
        written = torch.load(tmp_path / "official.ckpt", weights_only=True)["state_dicts"]["ema_model"]
        assert written["_dummy_variable"].shape == (0,)
        assert not written["model.proprioception_image_proj_cond.weight"].any()
        assert not any(name.startswith("normalizer.") for name in written), "UMI normalises nothing"


def test_the_autoencoder_alone(uva, tmp_path):
    keys = json.loads((Path(__file__).parent / "fixtures" / "kl16_keys.json").read_text())
    state = {name: torch.full(shape, float(number)) for number, (name, shape) in enumerate(keys.items())}
    torch.save({"model": {**state, "loss.logvar": torch.ones(1)}}, tmp_path / "kl16.ckpt")
    assert uva("import-checkpoint", tmp_path / "kl16.ckpt", "--to", tmp_path / "vae")[0] == 0
    (tmp_path / "kl16.ckpt").unlink()
    assert json.loads((tmp_path / "vae" / "config.json").read_text())["latent_channels"] == 16
    assert uva("export-checkpoint", tmp_path / "vae", "--to", tmp_path / "back.ckpt")[0] == 0
    (tmp_path / "vae" / "diffusion_pytorch_model.safetensors").unlink()
    written = torch.load(tmp_path / "back.ckpt", weights_only=True, mmap=True)["model"]
    assert set(written) == set(keys)
    assert all(written[name].equal(value) for name, value in state.items())
    (tmp_path / "back.ckpt").unlink()


class TestRefused:
    @pytest.mark.parametrize(
        ("change", "part"),
        [
            (lambda model: model["transformer"]["init_args"].update(activation="torch.nn.ReLU"), "activation"),
            (lambda model: model["heads"]["video"]["init_args"].update(residual=True), "head video"),
        ],
    )
    def test_a_model_that_works_differently(self, trained, uva, tmp_path, change, part):
        path = trained(change=lambda config: change(config["model"]))
        status, _, complaint = uva("export-checkpoint", path, "--to", tmp_path / "x.ckpt")
        assert status == 2
        assert f"the {part} works differently from the official code's" in complaint
        assert not (tmp_path / "x.ckpt").exists()

    def test_a_model_with_another_tokenizer_or_other_modalities(self, tiny_data, tiny_module):
        spec = tiny_data().spec
        diffusion = {
            "video": lambda shape: VideoHead(shape, partial(GaussianDiffusion, width=8, depth=1)),
            "action": lambda shape: ActionHead(shape, partial(GaussianDiffusion, width=8, depth=1), ConvFC),
        }
        objectives = {"policy": RobotPolicy(), "video": VideoModel()}
        with pytest.raises(ValueError, match="the head video works differently"):
            autoencoder_of(tiny_module(spec), Path("run.ckpt"))
        with pytest.raises(ValueError, match="the tokenizer LinearPatches works differently"):
            autoencoder_of(tiny_module(spec, heads=diffusion, objectives=objectives), Path("run.ckpt"))
        with pytest.raises(ValueError, match=r"run\.ckpt: 'agent' has no counterpart in the official code"):
            layout_of_ours(tiny_module(spec), Path("run.ckpt"))

    def test_placeholders_that_were_trained_apart(self, trained, uva, tmp_path):
        def apart(config):
            del config["model"]["transformer"]["init_args"]["streams"]["past_video"]

        path = trained(change=apart)
        checkpoint = torch.load(path, weights_only=True)
        checkpoint["state_dict"]["transformer.streams.past_video.placeholder"] += 1
        torch.save(checkpoint, path)
        status, _, complaint = uva("export-checkpoint", path, "--to", tmp_path / "x.ckpt")
        assert status == 2
        assert "placeholder differ, expected equal numbers" in complaint
        assert complaint.count("\n") == 1

    def test_another_autoencoder(self, trained, uva, tmp_path):
        status, _, complaint = uva("export-checkpoint", trained(), "--to", tmp_path / "x.ckpt")
        assert status == 2
        assert "These are not the weights of KL-16" in complaint

    def test_a_file_that_exists(self, trained, uva, tmp_path):
        (tmp_path / "mine.ckpt").write_text("precious")
        status, _, complaint = uva("export-checkpoint", trained(), "--to", tmp_path / "mine.ckpt")
        assert status == 2
        assert "mine.ckpt exists, expected a new file" in complaint
        assert (tmp_path / "mine.ckpt").read_text() == "precious"

    def test_a_base_that_is_none(self, trained, uva, tmp_path):
        status, _, complaint = uva("export-checkpoint", trained(), "--to", tmp_path / "x.ckpt", "--base", tmp_path)
        assert status == 2
        assert "expected a folder of uva import-checkpoint" in complaint

    def test_a_missing_source(self, uva, tmp_path):
        status, _, complaint = uva("export-checkpoint", tmp_path / "lost", "--to", tmp_path / "x.ckpt")
        assert status == 2
        assert "There is no checkpoint" in complaint

    def test_a_full_disk_leaves_nothing(self, trained, uva, tmp_path):
        trained()
        before, limits = sorted(tmp_path.iterdir()), resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
        try:
            status, _, complaint = uva("export-checkpoint", tmp_path / "imported", "--to", tmp_path / "x.ckpt")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert status == 2
        assert "x.ckpt was not written" in complaint
        assert sorted(tmp_path.iterdir()) == before
