"""CLIP's text encoder: names, shapes and files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from uva_lightning.model.text_weights import fingerprint, from_hugging_face, load_text_weights, text_shapes
from uva_lightning.parity.naming import normal

KEYS = json.loads((Path(__file__).parent / "fixtures/clip_vit_b32_keys.json").read_text())
LAYER = "text_model.encoder.layers.3.self_attn"


def hugging_face(device="meta"):
    """The whole of openai/clip-vit-base-patch32, vision tower included, without memory or as zeros."""
    return {name: torch.zeros(shape, dtype=torch.float16, device=device) for name, shape in KEYS.items()}


def test_every_tensor_of_the_published_model_has_its_place():
    ours = from_hugging_face(hugging_face())
    assert {name: tuple(tensor.shape) for name, tensor in ours.items()} == text_shapes()
    assert len(ours) == 149
    assert sum(tensor.numel() for tensor in ours.values()) == 63_428_096


def test_queries_keys_and_values_are_joined_in_this_order_and_the_projection_is_turned():
    state = {name: tensor for name, tensor in hugging_face("cpu").items() if name.startswith("text")}
    for value, part in enumerate("qkv", start=1):
        state[f"{LAYER}.{part}_proj.weight"] += value
        state[f"{LAYER}.{part}_proj.bias"] += 10 * value
    state["text_projection.weight"] = normal("p", (512, 512))
    ours = from_hugging_face(state)
    assert ours["transformer.resblocks.3.attn.in_proj_weight"][::512, 0].tolist() == [1, 2, 3]
    assert ours["transformer.resblocks.3.attn.in_proj_bias"][::512].tolist() == [10, 20, 30]
    assert ours["text_projection"].equal(state["text_projection.weight"].T)


class TestAnotherModelIsRefused:
    def test_missing_tensors(self):
        state = hugging_face()
        del state[f"{LAYER}.q_proj.weight"], state["text_projection.weight"]
        with pytest.raises(ValueError, match=r"of 197 tensors 2 are missing .* is missing, .*clip-vit-base-patch32"):
            from_hugging_face(state)

    def test_unknown_tensors(self):
        state = {**hugging_face(), "text_model.adapter.weight": torch.zeros(3)}
        with pytest.raises(ValueError, match=r"1 are unknown, e\.g\. 'text_model\.adapter\.weight' has shape \[3\]"):
            from_hugging_face(state)

    def test_other_sizes(self):
        state = {**hugging_face(), "text_projection.weight": torch.zeros(768, 512)}
        with pytest.raises(ValueError, match=r"has shape \[768, 512\], expected \[512, 512\]"):
            from_hugging_face(state)


class TestFiles:
    def test_weights_of_something_else(self, tmp_path):
        save_file({"visual.proj": torch.zeros(2), "head.weight": torch.zeros(2)}, tmp_path / "model.safetensors")
        with pytest.raises(ValueError, match="of 149 tensors 149 are missing .* 1 are unknown"):
            load_text_weights(tmp_path)

    def test_a_file_that_is_no_tensors(self, tmp_path):
        for name in ("model.safetensors", "pytorch_model.bin"):
            (tmp_path / name).write_text("version https://git-lfs.github.com/spec/v1")
            with pytest.raises(ValueError, match=rf"{name} cannot be read as tensors"):
                load_text_weights(tmp_path / name)

    def test_pickled_code_is_not_run(self, tmp_path):
        torch.save({"text_model.x": pytest.raises}, tmp_path / "pytorch_model.bin")
        with pytest.raises(ValueError, match="cannot be read as tensors"):
            load_text_weights(tmp_path)

    def test_nothing_there(self, tmp_path):
        with pytest.raises(ValueError, match=r"nothing does not exist, expected CLIP's weights"):
            load_text_weights(tmp_path / "nothing")
        with pytest.raises(ValueError, match=r"has none of model\.safetensors, .* as file or folder"):
            load_text_weights(tmp_path)

    @pytest.mark.slow
    def test_the_same_numbers_are_the_same_encoder_whatever_file_they_are_in(self, tmp_path):
        state = hugging_face("cpu")
        state[f"{LAYER}.k_proj.weight"] += 1
        save_file(state, tmp_path / "model.safetensors")
        (tmp_path / "open_clip").mkdir()
        ours = {**from_hugging_face(state), "visual.proj": torch.zeros(3), "logit_scale": torch.zeros(())}
        save_file(ours, tmp_path / "open_clip/open_clip_model.safetensors")
        torch.save(state, tmp_path / "theirs.bin")
        first = load_text_weights(tmp_path)
        assert all(tensor.dtype == torch.float32 for tensor in first.values())
        for path in ("open_clip", "theirs.bin", "model.safetensors"):
            assert fingerprint(load_text_weights(tmp_path / path)) == fingerprint(first)
        first["ln_final.bias"][0] += 1e-3
        assert fingerprint(first) != fingerprint(load_text_weights(tmp_path))
