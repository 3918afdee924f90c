"""KL-16: names, shapes and numbers of the official autoencoder."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from einops import rearrange

from uva_lightning.model.tokenizers.kl16 import SCALE, build_kl16, from_official, official_shapes, to_official
from uva_lightning.model.tokenizers.kl_vae import KLVAE
from uva_lightning.parity.naming import fill, normal, relative_error, uniform

FIXTURES = Path(__file__).parent / "fixtures"
KEYS = {name: tuple(shape) for name, shape in json.loads((FIXTURES / "kl16_keys.json").read_text()).items()}
TOLERANCE = 1e-5


def official_file(scale=0.05):
    """All tensors of the official file, drawn by the rule of the reference numbers."""
    return {name: fill(f"vae/{name}", shape, scale, is_norm(name)) for name, shape in KEYS.items()}


def is_norm(name):
    *_, layer, kind = name.split(".")
    return layer.startswith("norm") and kind == "weight"


def without_memory():
    return {name: torch.empty(shape, device="meta") for name, shape in KEYS.items()}


def test_names_and_shapes_are_those_of_the_official_file():
    assert official_shapes() == KEYS
    assert len(KEYS) == 312
    assert sum(torch.Size(shape).numel() for shape in KEYS.values()) == 66_456_019


def test_the_round_trip_keeps_every_bit():
    official = {name: normal(name, shape) for name, shape in KEYS.items()}
    ours = from_official(official)
    assert ours["encoder.down_blocks.4.attentions.1.to_q.weight"].shape == (512, 512)
    again = to_official(ours)
    assert list(again) == list(official_shapes())
    assert all(again[name].equal(tensor) and again[name].dtype == tensor.dtype for name, tensor in official.items())
    assert all(from_official(again)[name].equal(tensor) for name, tensor in ours.items())


def test_the_loss_of_its_training_is_left_out():
    assert len(from_official({**without_memory(), "loss.discriminator.main.0.weight": torch.zeros(1)})) == 312


class TestAnotherAutoencoderIsRefused:
    def test_missing_tensors(self):
        state = without_memory()
        for name in ("encoder.down.4.attn.0.q.weight", "encoder.down.4.attn.0.q.bias"):
            del state[name]
        expected = r"of 312 tensors 2 are missing and 0 have another shape, and 0 are unknown, e\.g\. "
        with pytest.raises(ValueError, match=expected + r"'encoder\.down\.4\.attn\.0\.q\.\w+' is missing"):
            from_official(state)

    def test_unknown_tensors(self):
        with pytest.raises(ValueError, match=r"1 are unknown, e\.g\. 'ema\.decay' has shape \[2\], expected no such"):
            from_official({**without_memory(), "ema.decay": torch.zeros(2)})

    def test_other_shapes(self):
        state = without_memory()
        state["quant_conv.weight"] = torch.empty(8, 8, 1, 1)
        with pytest.raises(
            ValueError, match=r"'quant_conv\.weight' has shape \[8, 8, 1, 1\], expected \[32, 32, 1, 1\]"
        ):
            from_official(state)

    def test_official_names_where_ours_are_expected(self):
        with pytest.raises(ValueError, match="not the weights of KL-16 under diffusers' names"):
            to_official(without_memory())


@pytest.fixture(scope="module", params=[0.05, 0.02], ids=["s05", "s02"])
def filled(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("kl16")
    vae = build_kl16()
    vae.load_state_dict(from_official(official_file(request.param)))
    vae.save_pretrained(folder)
    reference = np.load(FIXTURES / "kl16.npz")
    scale = f"s{100 * request.param:02.0f}"
    yield KLVAE(folder, image_size=64), lambda name: torch.from_numpy(reference[f"{scale}/{name}"])
    (folder / "diffusion_pytorch_model.safetensors").unlink()  # 266 MB


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:TF32 acceleration")  # said when oneDNN is switched
class TestNumbers:
    """Reference: official code, float32, weights and inputs drawn by name; two scales of the weights."""

    @pytest.fixture(autouse=True)
    def _plain_convolutions(self):
        """oneDNN's convolutions round more: 8e-6 instead of 3e-6, too near the tolerance for other processors."""
        with torch.backends.mkldnn.flags(enabled=False):
            yield

    @pytest.mark.parametrize(("side", "count", "channels"), [(64, 2, 1), (256, 1, 4)])
    @torch.no_grad()
    def test_encoder(self, filled, side, count, channels):
        tokenizer, reference = filled
        images = 2 * uniform(f"input/vae/img{side}", (count, 3, side, side)) - 1
        posterior = tokenizer.vae.encode(images).latent_dist
        noise = normal(f"input/vae/img{side}/posterior_noise", posterior.mean.shape)
        as_tokens = "n c y x -> n (y x) c"
        latents = tokenizer.draw(rearrange(posterior.parameters, as_tokens), rearrange(noise, as_tokens))
        latents = rearrange(latents, "n (y x) c -> n c y x", y=side // 16)
        for name, value in (("mean", posterior.mean), ("log_variance", posterior.logvar), ("latents", latents)):
            assert relative_error(value[:, ::channels], reference(f"{side}/{name}")) <= TOLERANCE, name

    @pytest.mark.parametrize(("side", "count", "stride"), [(64, 2, 4), (256, 1, 10)])
    @torch.no_grad()
    def test_decoder(self, filled, side, count, stride):
        tokenizer, reference = filled
        z = normal(f"input/vae/img{side}/decode_z", (count, 16, side // 16, side // 16))
        images = tokenizer.vae.decode(z).sample
        assert relative_error(images[:, :, ::stride, ::stride], reference(f"{side}/decoded")) <= TOLERANCE
        size = images.abs()
        stats = torch.stack([images.mean(), images.std(), size.mean(), images.min(), images.max(), images.norm()])
        assert relative_error(stats, reference(f"{side}/decoded_stats")) <= TOLERANCE
        if side == tokenizer.image_size:
            pictures = tokenizer.decode(rearrange(SCALE * z, "n c y x -> n (y x) c"), side)
            expected = rearrange(((images + 1) * 127.5).clamp(0, 255), "n c y x -> n y x c")
            assert (pictures.float() - expected).abs().max() <= 0.501
