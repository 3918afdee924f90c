"""How a modality enters the sequence."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from uva_lightning.model.streams import Fourier, Shape, Stream
from uva_lightning.model.transformer import LatentTransformer
from uva_lightning.proprioception import Proprioception
from uva_lightning.types import DataSpec, Tokens, Visible


def shape(channels, steps):
    return Shape(frames=2, grid=(2, 2), width=8, channels=channels, steps=steps)


def transformer(shapes, **streams):
    torch.manual_seed(0)
    model = LatentTransformer(shapes, width=8, heads=2, encoder_depth=1, decoder_depth=1, streams=streams)
    return model.eval()


def test_a_step_covers_consecutive_tokens():
    """A chunk of 16 actions covers 4 frames of 256 tokens, 64 tokens each."""
    stream = Stream(Shape(frames=4, grid=(16, 16), width=3, channels=2, steps=16))
    spread = stream.spread(torch.arange(16.0)[None, :, None].expand(1, 16, 3))
    assert spread[0, :, 0].tolist() == [token // 64 for token in range(1024)]


def test_the_sum_of_streams_is_uvas_concatenation_and_one_linear_layer():
    torch.manual_seed(0)
    video = Stream(Shape(frames=2, grid=(2, 2), width=6, channels=3, steps=2))
    action = Stream(Shape(frames=2, grid=(2, 2), width=6, channels=2, steps=4))
    frames, chunk = torch.randn(2, 2, 4, 3), torch.randn(2, 4, 2)
    seen, known = torch.rand(2, 2, 4) < 0.5, torch.rand(2, 4) < 0.5
    features = [
        torch.where(seen.flatten(1)[..., None], video.project(frames.flatten(1, 2)), video.placeholder),
        torch.where(known[..., None], action.project(chunk), action.placeholder).repeat_interleave(2, dim=1),
    ]
    fused = torch.cat(features, dim=-1) @ torch.cat((video.fuse.weight, action.fuse.weight), dim=1).T
    assert torch.allclose(video(frames, seen) + action(chunk, known), fused, atol=1e-6)


def test_a_stream_that_starts_at_zero_changes_nothing_until_it_is_trained():
    model = transformer({"action": shape(2, 4)})
    tokens = Tokens({"action": torch.randn(3, 4, 2)})
    before = model(tokens, Visible.only(tokens, "action"))
    model.streams["force"] = Stream(shape(3, 2), zero_init=True)
    more = Tokens({**tokens, "force": torch.randn(3, 2, 3)})
    after = model(more, Visible.only(more, "action", "force"))
    assert after.equal(before)
    (after * torch.randn_like(after)).sum().backward()
    assert model.streams["force"].fuse.weight.grad.abs().sum() > 0


def test_starting_at_zero_survives_the_initialisation_of_the_transformer():
    model = transformer({"action": shape(2, 4), "force": shape(3, 2)}, force=partial(Stream, zero_init=True))
    assert not model.streams["force"].fuse.weight.any()
    assert model.streams["action"].fuse.weight.any()


def test_steps_that_do_not_divide_the_tokens_are_refused():
    with pytest.raises(ValueError, match="5 steps cannot be spread evenly over 8 tokens"):
        Stream(shape(2, 5))(torch.zeros(1, 5, 2), torch.ones(1, 5, dtype=torch.bool))


def test_fourier_features_are_the_input_and_its_waves():
    features = Fourier(channels=1, octaves=2)(torch.tensor([[0.25]]))[0]
    root = 0.5**0.5
    assert features.tolist() == pytest.approx([0.25, root, 1.0, root, 0.0], abs=1e-6)
    assert Fourier(3, 4).width == 3 * 9


@pytest.mark.parametrize("options", [{"octaves": 3}, {"hidden": 16}, {"octaves": 2, "hidden": 4}])
def test_a_richer_projection_keeps_shape_and_hides_as_well(options):
    stream, seen = Stream(shape(2, 4), **options), torch.tensor([[True, False, True, False]])
    values = torch.randn(1, 4, 2)
    broken = values.where(seen[..., None], torch.nan)
    assert stream(values, seen).shape == (1, 8, 8)
    assert stream(values, seen).equal(stream(broken, seen))


@pytest.mark.parametrize("name", ["action", "past_video", "text"])
def test_proprioception_may_not_take_the_name_of_another_modality(name):
    spec = DataSpec(("top",), 16, 2, {"agent": 2}, 10)
    with pytest.raises(ValueError, match=rf"Proprioception is called \['{name}'\], as another modality is"):
        Proprioception({name: ["agent"]}).bind(spec)


def test_a_stream_of_an_unknown_modality_is_named(tiny_data, tiny_module):
    with pytest.raises(ValueError, match=r"streams names \['force'\], but the data has \[.*'video'\]"):
        tiny_module(
            tiny_data().spec, transformer=lambda shapes: LatentTransformer(shapes, 32, 2, 1, 1, {"force": None})
        )


def test_heads_that_do_not_divide_the_width_are_refused(tiny_data, tiny_module):
    with pytest.raises(ValueError, match="width is 32 with 3 heads"):
        tiny_module(tiny_data().spec, transformer=lambda shapes: LatentTransformer(shapes, 32, 3, 1, 1))
