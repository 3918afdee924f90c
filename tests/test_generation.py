"""Generation in rounds: what is known stays, every place is generated once, guidance and noise come from where told."""

from __future__ import annotations

import pytest
import torch

from uva_lightning.policy.generation import MaskedGenerator, Noise, rounds
from uva_lightning.types import Tokens, Visible


@pytest.fixture
def setting(tiny_data, tiny_module):
    module = tiny_module(tiny_data().spec).eval()
    rng = torch.Generator().manual_seed(0)
    for parameter in module.parameters():
        parameter.data = 0.2 * torch.randn(parameter.shape, generator=rng)
    places, frames = 16, 2
    tokens = Tokens(
        {
            "past_video": torch.randn(3, frames, places, 8, generator=rng),
            "video": torch.full((3, frames, places, 8), float("nan")),
            "action": torch.randn(3, 16, 2, generator=rng),
            "agent": torch.randn(3, frames, 2, generator=rng),
        }
    )
    order = torch.rand(3, places, generator=rng).argsort(dim=1)
    return module, tokens, order


def zero(number, modality, hidden, channels):
    return torch.zeros(int(hidden.sum()), channels)


def test_the_rounds_are_maskgits():
    assert rounds(256, 1) == [256, 0]
    assert rounds(256, 4) == [256, 236, 181, 97, 0]
    assert rounds(256, 8)[:3] == [256, 251, 236]


@pytest.mark.parametrize(("places", "iterations"), [(4, 4), (16, 15), (256, 256)])
def test_every_round_reveals_something(places, iterations):
    hidden = rounds(places, iterations)
    assert all(now > after for now, after in zip(hidden, hidden[1:], strict=False))
    assert (hidden[0], hidden[-1], len(hidden)) == (places, 0, iterations + 1)


@pytest.mark.parametrize("iterations", [0, 17])
def test_impossible_rounds_are_refused(iterations):
    with pytest.raises(ValueError, match=rf"iterations is {iterations}, expected 1 to 16, the tokens of a frame"):
        rounds(16, iterations)


@pytest.mark.parametrize("iterations", [1, 4])
def test_every_place_is_generated_once_and_then_stays(setting, iterations):
    module, tokens, order = setting
    known, drawn = [], []

    def start(number, modality, hidden, channels):
        drawn.append(hidden[:, 0])
        return torch.randn(int(hidden.sum()), channels)

    def watch(number, latent, made):
        known.append(made["video"])

    seen = Visible.only(tokens, "history")
    made = MaskedGenerator(module, iterations)(tokens, seen, ("video",), order, Noise(start), watch)
    assert torch.stack(drawn).sum(dim=0).eq(1).all()
    assert made["video"].isfinite().all()
    for number, chosen in enumerate(drawn):
        for later in known[number:]:
            assert later.transpose(1, 2)[chosen].equal(known[number].transpose(1, 2)[chosen])
    assert not seen.video.any(), "the caller's mask is left alone"


def test_later_rounds_see_what_earlier_ones_made(setting):
    module, tokens, order = setting
    seen = Visible.only(tokens, "history")
    at_once = MaskedGenerator(module, 1)(tokens, seen, ("video",), order, Noise(zero))["video"]
    in_rounds = MaskedGenerator(module, 4)(tokens, seen, ("video",), order, Noise(zero))["video"]
    first = torch.zeros_like(order, dtype=torch.bool).scatter_(1, order[:, rounds(16, 4)[1] :], True)
    assert torch.allclose(at_once.transpose(1, 2)[first], in_rounds.transpose(1, 2)[first], atol=1e-5)
    assert not torch.allclose(at_once.transpose(1, 2)[~first], in_rounds.transpose(1, 2)[~first], atol=1e-3)


def test_actions_come_with_the_video(setting):
    module, tokens, order = setting
    made = MaskedGenerator(module, 2)(tokens, Visible.only(tokens, "history"), ("video", "action"), order)
    assert made["action"].shape == (3, 16, 2)
    given = MaskedGenerator(module)(tokens, Visible.only(tokens, "history", "action"), ("action",), order)
    assert given["action"].equal(tokens.action), "a visible action is kept"


def test_guidance_leaves_a_modality_out(setting):
    module, tokens, order = setting
    seen = Visible.only(tokens, "history")

    def make(scale):
        generator = MaskedGenerator(module, guidance=scale, unconditional="agent")
        return generator(tokens, seen, ("video",), order, Noise(zero))["video"]

    blind = Visible({**seen, "agent": torch.zeros_like(seen.agent)})
    without = MaskedGenerator(module)(tokens, blind, ("video",), order, Noise(zero))["video"]
    assert torch.allclose(make(0.0), without, atol=1e-5)
    assert not torch.allclose(make(2.0), make(1.0), atol=1e-3)


def test_guidance_without_an_instruction_is_refused(setting):
    with pytest.raises(
        ValueError, match=r"guidance is 2\.0, but the model has no text to leave out; expected 1, or one"
    ):
        MaskedGenerator(setting[0], guidance=2.0)
