"""Heads: against numbers of the official code, and what counts in a loss."""

from __future__ import annotations

import zlib
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from uva_lightning.draws import Draws
from uva_lightning.model.heads.aggregate import ConvFC, ConvOri, TokenConv, TokenFC, TokenMLP
from uva_lightning.model.heads.base import ActionChunkHead, ActionHead, Sampling, VideoHead
from uva_lightning.model.heads.denoiser import Noising
from uva_lightning.model.heads.diffusion import GaussianDiffusion
from uva_lightning.model.heads.flow import FlowMatching
from uva_lightning.model.streams import Shape
from uva_lightning.types import Tokens, Visible

FIXTURES = Path(__file__).parent / "fixtures" / "official"


@pytest.fixture(scope="module")
def official_head():
    return {name: torch.from_numpy(value) for name, value in np.load(FIXTURES / "action_heads.npz").items()}


def flow(channels, condition):
    return FlowMatching(channels, condition, width=8, depth=1)


def shake(module, seed=0, scale=0.3):
    """Give every weight a value that follows from the seed, also those that start at zero."""
    rng = torch.Generator().manual_seed(seed)
    for name, parameter in module.named_parameters():
        parameter.data = scale * torch.randn(parameter.shape, generator=rng) + float(name.endswith("norm.weight"))
    return module


def official_weights(head, name_of_head, scale):
    """Fill our action head by the rule of the reference numbers, whose names are MAR's."""
    renamed = {
        "denoiser.net.time.": "net.time_embed.",
        "denoiser.net.condition.": "net.cond_embed.",
        "denoiser.net.input.": "net.input_proj.",
        "denoiser.net.output.": "net.final_layer.linear.",
        "denoiser.net.final_modulation.": "net.final_layer.adaLN_modulation.1.",
        "denoiser.net.blocks.": "net.res_blocks.",
        ".modulation.": ".adaLN_modulation.1.",
        ".norm.": ".in_ln.",
        "aggregate.": "",
    }
    for ours, parameter in head.named_parameters():
        name = ours
        for old, new in renamed.items():
            name = name.replace(old, new)
        parameter.data = scale * named_normal(f"acthead/{name_of_head}/{name}", parameter.shape)
        if name.endswith("in_ln.weight"):
            parameter.data += 1.0
    return head


def named_normal(name, shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(zlib.crc32(name.encode())))


OFFICIAL = {"conv_fc": (ConvFC, 0.1), "conv_ori": (ConvOri, 0.1), "conv2": (TokenConv, 0.02), "fc2": (TokenFC, 0.05)}


@pytest.fixture(scope="module", params=OFFICIAL)
def official(request):
    """Name of an official action head, and ours with its weights."""
    aggregator, scale = OFFICIAL[request.param]
    shape = Shape(frames=4, grid=(16, 16), width=64, channels=10, steps=16)
    head = ActionHead(shape, lambda c, k: GaussianDiffusion(c, k, width=64, depth=2, clip=1.0), aggregator, steps=16)
    return request.param, official_weights(head, request.param, scale)


def latent_and_tokens(official_head):
    latent = named_normal("input/acthead/Z", (2, 1024, 64))
    assert latent[:, ::13, ::3].equal(official_head["Z"])
    tokens = Tokens({"action": official_head["target"]})
    return latent.view(2, 4, 256, 64), tokens, Visible.only(tokens)


def test_the_loss_of_every_action_head_is_uvas(official, official_head):
    name, head = official
    latent, tokens, seen = latent_and_tokens(official_head)
    at = Noising(official_head["t"].long().view(2, 16, 1), official_head["noise"].view(2, 16, 1, 10))
    with torch.no_grad():
        loss = head.loss(latent, tokens, seen, at).means.mean()
    assert float(loss) == pytest.approx(float(official_head[f"{name}/loss"]), rel=1e-5)


def test_the_actions_of_every_action_head_are_uvas(official, official_head):
    name, head = official
    latent, tokens, seen = latent_and_tokens(official_head)
    noise = f"acthead/{name}/0/action/"
    with torch.no_grad():
        start = named_normal(f"{noise}init", (32, 10)).view(2, 16, 10)

        def step_noise(step, x):
            return named_normal(f"{noise}step{step}", x.shape)

        actions = head.sample(latent, tokens, seen, start, Sampling(0.95, step_noise=step_noise))
    off = (actions - official_head[f"{name}/sample16_T0.95"]).abs()
    assert off.max() < 2e-3, "an x0 near a zero crossing of the first step moves"
    assert (off < 1e-5).float().mean() > 0.99


SHAPE = Shape(frames=2, grid=(2, 3), width=8, channels=3, steps=4)


def video_tokens():
    torch.manual_seed(0)
    tokens = Tokens({"past_video": torch.randn(3, 2, 6, 3), "video": torch.randn(3, 2, 6, 3)})
    seen = Visible.only(tokens, "history")
    seen.video[:, :, :2] = True
    return torch.randn(3, 2, 6, 8), tokens, seen


def test_visible_places_neither_count_nor_cost():
    head, (latent, tokens, seen) = shake(VideoHead(SHAPE, flow)), video_tokens()
    rows = []
    head.denoiser.net.register_forward_hook(lambda _, inputs, __: rows.append(len(inputs[0])))
    normal = Draws(0, 0, torch.arange(3)).normal
    loss = head.loss(latent, tokens, seen, partial(normal, "noise"))
    other = Tokens({**tokens, "video": tokens.video.where(~seen.video[..., None], 99.0)})
    assert loss.sums.equal(head.loss(latent, other, seen, partial(normal, "noise")).sums)
    assert loss.counts.tolist() == [8, 8, 8]
    assert rows == [3 * 2 * 4] * 2


def test_the_video_loss_is_the_mean_over_each_samples_own_hidden_tokens():
    head, (latent, tokens, seen) = shake(VideoHead(SHAPE, flow)), video_tokens()
    seen.video[0] = True
    seen.video[1, :, :5] = True
    hidden, at = ~seen.video, head.denoiser.noising(torch.randn(3, 12, 1, 4))
    errors = head.loss(latent, tokens, seen, at)
    chosen = Noising(*(values[hidden.flatten(1)] for values in at))
    rows = head.denoiser.loss(tokens.video[hidden], latent[hidden], chosen).detach()
    assert errors.counts.tolist() == [0, 2, 8]
    assert errors.sums.tolist() == pytest.approx([0.0, float(rows[:2].sum()), float(rows[2:].sum())])
    assert errors.means.tolist() == pytest.approx([0.0, float(rows[:2].mean()), float(rows[2:].mean())])


def test_a_residual_head_predicts_the_difference_to_the_last_frame():
    head, (latent, tokens, seen) = shake(VideoHead(SHAPE, flow, residual=True, steps=3)), video_tokens()
    plain = shake(VideoHead(SHAPE, flow, steps=3))
    last = tokens.past_video[:, -1:]
    difference = Tokens({**tokens, "video": tokens.video - last})
    at = head.denoiser.noising(torch.randn(3, 12, 1, 4))
    assert torch.allclose(head.loss(latent, tokens, seen, at).sums, plain.loss(latent, difference, seen, at).sums)
    noise, hidden = torch.randn(3, 2, 6, 3), ~seen.video
    made, moved = (h.sample(latent, tokens, seen, noise) for h in (head, plain))
    assert torch.allclose(made[hidden], (moved + last)[hidden], atol=1e-6)


def test_a_residual_head_does_not_read_a_hidden_past():
    head, (latent, tokens, seen) = shake(VideoHead(SHAPE, flow, residual=True, steps=3)), video_tokens()
    seen.past_video.fill_(False)
    noise = torch.randn(3, 2, 6, 3)
    other = Tokens({**tokens, "past_video": tokens.past_video * torch.nan})
    assert head.sample(latent, tokens, seen, noise).equal(head.sample(latent, other, seen, noise))


@pytest.mark.parametrize("kind", [ActionHead, ActionChunkHead])
def test_visible_actions_do_not_count_and_come_back(kind):
    head = shake(kind(SHAPE, flow, lambda shape: ConvFC(shape, pooled=2), steps=2))
    tokens = Tokens({"action": torch.randn(2, 4, 3)})
    seen, latent = Visible.only(tokens), torch.randn(2, 2, 6, 8)
    seen.action[0] = True
    seen.action[1, :3] = True
    count = 4 if kind is ActionHead else 1
    at = head.denoiser.noising(torch.randn(2, count, 1, 1 + 12 // count))
    loss = head.loss(latent, tokens, seen, at)
    assert loss.counts.tolist() == [0, 1]
    assert loss.sums[0] == 0
    assert loss.sums[1] > 0
    if kind is ActionHead:
        every = Noising(*(values.flatten(0, 1) for values in at))
        rows = head.denoiser.loss(tokens.action.flatten(0, 1), head.aggregate(latent).flatten(0, 1), every)
        assert float(loss.sums[1]) == pytest.approx(float(rows[7]))
    made = head.sample(latent, tokens, seen, torch.randn(2, 4, 3))
    assert made[seen.action].equal(tokens.action[seen.action])
    assert not made[~seen.action].equal(tokens.action[~seen.action])


@pytest.mark.parametrize("aggregator", [ConvFC, ConvOri, TokenConv, TokenFC, TokenMLP])
@pytest.mark.parametrize("denoiser", [flow, lambda c, k: GaussianDiffusion(c, k, width=8, depth=1)])
def test_heads_without_samples_know_all_their_parameters(aggregator, denoiser):
    """Other processes may have samples in the same step."""
    kind = ActionChunkHead if aggregator is TokenMLP else ActionHead
    action, video = kind(SHAPE, denoiser, aggregator), VideoHead(SHAPE, denoiser, residual=True)
    latent, tokens, seen = video_tokens()
    tokens = Tokens({**tokens, "action": torch.randn(3, 4, 3)}, {"action": torch.ones(3, 3, dtype=torch.bool)})
    seen = Visible({**seen, "action": torch.zeros(3, 4, dtype=torch.bool)})
    none = slice(0, 0)
    for head in (action, video):
        errors = head.loss(latent[none], tokens.rows(none), seen.rows(none))
        assert errors.sums.shape == errors.counts.shape == (0,)
        errors.sums.sum().backward()
        assert all(p.grad is not None and not p.grad.any() for p in head.parameters())


def test_a_chunk_is_one_row_and_its_actions_can_agree():
    head = ActionChunkHead(SHAPE, flow, lambda shape: TokenMLP(shape, squeeze=2, width=5))
    assert head.conditions == 1
    assert head.denoiser.net.input.in_features == 4 * 3
    assert head.denoiser.net.condition.in_features == 2 * 5


def test_an_aggregator_with_too_few_conditions_is_refused():
    with pytest.raises(ValueError, match="TokenMLP gives 2 conditions for a chunk of 4 actions.*use ConvFC"):
        ActionHead(SHAPE, flow, TokenMLP)


def test_no_steps_are_refused():
    with pytest.raises(
        ValueError, match="steps is '0' for FlowMatching, expected a whole number from 1 on; give a number such as 10"
    ):
        VideoHead(SHAPE, flow, steps=0)


def test_the_temperature_of_a_call_replaces_that_of_the_head():
    head, (latent, tokens, seen) = shake(VideoHead(SHAPE, flow, temperature=0.0, steps=2)), video_tokens()
    noise = torch.randn(3, 2, 6, 3)
    assert head.sample(latent, tokens, seen, noise).equal(head.sample(latent, tokens, seen, -noise))
    hot = Sampling(temperature=1.0)
    assert not head.sample(latent, tokens, seen, noise, hot).equal(head.sample(latent, tokens, seen, -noise, hot))


def test_a_predicted_modality_without_a_head_is_named(tiny_data, tiny_module):
    with pytest.raises(ValueError, match=r"Objective 'policy' predicts \['action'\].*add model\.heads\.action"):
        tiny_module(tiny_data().spec, heads={})


def test_a_head_of_an_unknown_modality_is_named(tiny_data, tiny_module):
    with pytest.raises(ValueError, match=r"model\.heads names \['force'\], but the data has \[.*'video'\]"):
        tiny_module(tiny_data().spec, heads={"force": None})


def test_the_main_view_has_a_head_by_the_name_of_its_modality(tiny_data, tiny_module):
    with pytest.raises(ValueError, match=r"model\.heads names \['top'\], but the data has \[.*'video'\]"):
        tiny_module(tiny_data().spec, heads={"top": None})
