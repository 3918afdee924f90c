"""The map between official names and ours: complete, reversible, and as the model is really built."""

from __future__ import annotations

import math

import pytest
import torch

from uva_lightning.official.detect import layout_of, starting_layout, under, variant_of
from uva_lightning.official.names import pairs
from uva_lightning.official.text import clip_names
from uva_lightning.official.translate import translate, translate_back
from uva_lightning.parity.naming import normal

TINY = ("pusht", "libero10", "toolhang", "toolhang_hist", "umi", "umi_multi")
MILLIONS = {  # parameters of the models without autoencoder and text encoder
    "pusht_video": 208.85,
    "pusht_joint": 261.08,
    "libero10_video": 209.35,
    "libero10_joint": 261.60,
    "toolhang_joint_plain": 261.11,
    "toolhang_joint_proprio": 262.31,
    "toolhang_joint_full": 350.91,
    "umi_multi_video": 209.35,
    "umi_multi_joint": 314.46,
}


def without_memory(shapes):
    return {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}


@pytest.mark.parametrize("variant", TINY)
def test_a_round_trip_keeps_every_bit(official_keys, variant):
    model = {name: normal(name, shape) for name, shape in official_keys[f"tiny/{variant}"].items()}
    layout = layout_of(model, variant)
    found = translate(model, layout)
    unused = {name for name in model if name.startswith("proprioception_image")} if "umi" in variant else set()
    assert set(found.unused) == unused
    assert not found.new
    assert found.matched == len(model) - len(unused)
    again = translate_back(found.state, layout)
    assert set(again) == set(model) - unused
    assert all(again[name].equal(model[name]) for name in again)


@pytest.mark.parametrize("name", sorted(MILLIONS))
def test_full_size_files_are_understood(official_keys, name):
    state = without_memory(official_keys[f"full/{name}"])
    model = under(state, "model.")
    assert round(sum(math.prod(tensor.shape) for tensor in model.values()) / 1e6, 2) == MILLIONS[name]
    layout = layout_of(model, name)
    found = translate(model, layout)
    assert not found.new
    assert all(tensor.startswith("proprioception_image_proj_cond") for tensor in found.unused)
    assert (layout.width, layout.encoder_depth, layout.decoder_depth) == (768, 12, 12)
    assert set(layout.heads.values()) == {(6, 1024)}
    fields = {key.split(".")[2] for key in state if key.startswith("normalizer.")}
    assert variant_of(fields, layout) == name.removesuffix("_plain").rsplit("_joint")[0].removesuffix("_video")


def test_the_parts_of_each_variant(official_keys):
    def layout(name):
        return layout_of(without_memory(official_keys[f"tiny/{name}"]), name)

    assert layout("pusht").fused == ("video", "past_video", "action")
    assert layout("libero10").text
    assert layout("toolhang").fused == ("video", "wrist", "past_video", "action", "past_wrist", "proprio")
    assert layout("toolhang_hist").fused == ("video", "past_video", "past_action", "action", "past_wrist", "proprio")
    assert layout("umi").fused == ("video", "past_video", "action", "proprio")
    assert set(layout("toolhang").heads) == {"video", "wrist", "action", "future_proprio"}


def test_column_blocks_are_in_the_official_order(official_keys):
    model = {name: normal(name, shape) for name, shape in official_keys["tiny/toolhang"].items()}
    state = translate(model, layout_of(model, "toolhang")).state
    fusion = model["proj_cond_x_layer.weight"]
    for number, modality in enumerate(("video", "wrist", "past_video", "action", "past_wrist", "proprio")):
        block = fusion[:, 64 * number : 64 * (number + 1)]
        assert state[f"transformer.streams.{modality}.fuse.weight"].equal(block)


@pytest.mark.parametrize(("text", "matched", "left"), [(False, 358, 6), (True, 359, 5)])
def test_what_mar_gives(official_keys, text, matched, left):
    mar = without_memory(official_keys["mar_base"])
    found = translate(mar, starting_layout(mar, text, "mar"))
    assert found.matched == matched
    unused = {"encoder_pos_embed_learned", "decoder_pos_embed_learned", "diffusion_pos_embed_learned"}
    unused |= {"class_emb.weight", "mask_token"} | (set() if text else {"fake_latent"})
    assert set(found.unused) == unused
    assert len(found.unused) == left


@pytest.mark.parametrize(
    ("official", "ours"), [("conv_fc", "ConvFC"), ("conv_ori", "ConvOri"), ("conv2", "TokenConv"), ("fc2", "TokenFC")]
)
def test_every_aggregator_is_known(official_keys, official, ours):
    model = without_memory(official_keys["tiny/pusht"])
    others = {name: tensor for name, tensor in model.items() if not name.startswith("diffactloss.")}
    head = without_memory(official_keys[f"head/{official}"])
    network = {name: model[name] for name in model if name.startswith("diffactloss.net.")}
    model = {**others, **network, **{f"diffactloss.{name}": tensor for name, tensor in head.items()}}
    layout = layout_of(model, "file")
    assert layout.aggregators == {"action": ours}
    known = (pair for pair in pairs(layout) if pair.official.startswith("diffactloss."))
    names = {pair.ours[0] for pair in known if ".net." not in pair.official}
    assert names == {f"heads.action.aggregate.{name}" for name in head}


def test_placeholders_that_differ_cannot_be_exported(official_keys):
    model = {name: normal(name, shape) for name, shape in official_keys["tiny/pusht"].items()}
    layout = layout_of(model, "file")
    state = translate(model, layout).state
    state["transformer.streams.past_video.placeholder"] += 1
    with pytest.raises(ValueError, match=r"video\.placeholder.* differ.*'fake_latent_x'\. Train with .*: video\."):
        translate_back(state, layout)


def test_a_stream_without_counterpart_cannot_be_exported(official_keys):
    model = {name: normal(name, shape) for name, shape in official_keys["tiny/pusht"].items()}
    layout = layout_of(model, "file")
    state = translate(model, layout).state
    with pytest.raises(ValueError, match=r"1 tensors have no counterpart .*'transformer\.streams\.force"):
        translate_back({**state, "transformer.streams.force.fuse.weight": torch.ones(1)}, layout)
    del state["transformer.fuse_bias"]
    with pytest.raises(ValueError, match=r"1 tensors of the official layout are missing, e\.g\. 'transformer\.fuse_b"):
        translate_back(state, layout)


class TestTensorsOfNoModelAreRefused:
    def test_a_part_is_missing(self, official_keys):
        model = without_memory(official_keys["tiny/pusht"])
        del model["z_proj.weight"]
        with pytest.raises(ValueError, match=r"file lacks 'z_proj\.weight', which every UVA model has"):
            layout_of(model, "file")

    def test_a_fusion_layer_of_another_width(self, official_keys):
        model = without_memory(official_keys["tiny/pusht"])
        model["proj_cond_x_layer.weight"] = torch.empty(64, 65, device="meta")
        with pytest.raises(ValueError, match=r"is 65 wide, expected 192, 64 for each of video, past_video, action"):
            layout_of(model, "file")

    def test_an_unknown_aggregator(self, official_keys):
        model = without_memory(official_keys["tiny/pusht"])
        del model["diffactloss.fc.0.weight"], model["diffactloss.fc.0.bias"]
        with pytest.raises(ValueError, match=r"diffactloss has the layers .*expected one of: ConvFC"):
            layout_of(model, "file")


def test_clips_names_are_those_of_its_file(official_keys):
    made = {name for name in official_keys["clip"] if name.endswith("position_ids")}
    assert set(clip_names()) == set(official_keys["clip"]) - made
    assert len(made) == 2
