"""Linear probes tell what is there from what is not, and attention adds up to the layer's own."""

import numpy as np
import pytest
import torch

from uva_lightning.analysis.capture import AttentionSummary, fields, groups, layers, places
from uva_lightning.analysis.probe import CONTACT, POSE, Target, held_out, ridge, score, value
from uva_lightning.model.streams import Prefix, Shape
from uva_lightning.model.transformer import LatentTransformer
from uva_lightning.types import Tokens, Visible

EPISODES, LENGTH = 12, 20


def windows(width, seed=0):
    rng = np.random.default_rng(seed)
    return rng, rng.normal(size=(EPISODES * LENGTH, width)), np.repeat(np.arange(EPISODES), LENGTH)


def scored(features, target, episodes):
    (found,) = held_out(torch.from_numpy(features)[None], [target], episodes)
    result = score(target, found.predicted[0], found.mean, episodes)
    assert result["value"] == value(target, found.predicted[0], found.mean, episodes)
    return result


@pytest.mark.parametrize("width", [5, 400])
def test_a_linear_target_is_recovered(width):
    rng, x, episodes = windows(5)
    target = Target("pose", x @ rng.normal(size=(5, 2)) + 7.0, POSE)
    features = np.concatenate([x, np.zeros((len(x), width - 5))], axis=1)  # more features than windows: the other Gram
    found = scored(features, target, episodes)
    assert found["value"] > 1 - 1e-9
    assert found["interval"][0] > 1 - 1e-9


def test_noise_tells_nothing_of_other_episodes():
    rng, x, episodes = windows(60)
    number = scored(x, Target("noise", rng.normal(size=(len(x), 2)), POSE), episodes)
    assert abs(number["value"]) < 0.05
    flag = scored(x, Target("flag", rng.integers(0, 2, (len(x), 1)).astype(float), CONTACT), episodes)
    assert flag["interval"][0] < 0.5 < flag["interval"][1]


def test_what_is_known_of_an_episode_alone_counts_for_nothing():
    """Features that name the episode predict its windows perfectly, unless an episode is held out as a whole."""
    rng, _, episodes = windows(1)
    level = rng.normal(size=EPISODES)[episodes][:, None]
    assert scored(np.eye(EPISODES)[episodes], Target("level", level, POSE), episodes)["value"] < 0.05


def test_flags_are_scored_by_order():
    _, x, episodes = windows(3)
    found = scored(x, Target("touch", (x[:, :1] > 0.3).astype(float), CONTACT), episodes)
    assert found["measure"] == "auc"
    assert found["value"] > 0.97
    assert found["balanced"] > 0.85
    assert scored_none(x, np.ones((len(x), 1)), CONTACT, episodes) is None
    assert scored_none(x, np.full((len(x), 2), 3.0), POSE, episodes) is None


def scored_none(x, values, group, episodes):
    target = Target("constant", values, group)
    (found,) = held_out(torch.from_numpy(x)[None], [target], episodes)
    return score(target, found.predicted[0], found.mean, episodes)


def test_area_under_the_curve_is_that_of_all_pairs():
    rng, _, episodes = windows(1)
    there, guess = rng.integers(0, 2, (len(episodes), 1)).astype(float), rng.integers(0, 5, (len(episodes), 1)) / 1.0
    found = score(Target("t", there, CONTACT), guess, np.zeros_like(guess), episodes)
    pairs = [(a > b) + 0.5 * (a == b) for a in guess[there > 0] for b in guess[there < 1]]
    assert found["value"] == pytest.approx(np.mean(pairs))


@pytest.mark.parametrize(("rows", "width", "penalty"), [(3, 7, 0.1), (9, 4, 1e-3), (5, 5, 10.0)])
def test_ridge_solves_its_equations(rows, width, penalty):
    rng = np.random.default_rng(rows * 100 + width)
    x, y = torch.from_numpy(rng.normal(size=(1, rows, width))), torch.from_numpy(rng.normal(size=(rows, 2)))
    (w,) = ridge(x, y, [penalty])[:, 0]
    left = (x[0].T @ x[0] + penalty * rows * torch.eye(width).double()) @ w
    torch.testing.assert_close(left, x[0].T @ y)


def test_mistakes_are_told():
    _, x, episodes = windows(2)
    target = Target("pose", x, POSE)
    with pytest.raises(ValueError, match="There are 1 episodes to probe on, expected at least 8; set --probes"):
        held_out(torch.from_numpy(x)[None], [target], np.zeros_like(episodes))
    x[3, 0] = np.nan
    with pytest.raises(ValueError, match="not all finite"):
        held_out(torch.from_numpy(x)[None], [target], episodes)


# -- listening to a transformer -----------------------------------------------------------------------------------

SHAPES = {
    "past_video": Shape(2, (4, 4), 8, 2),
    "video": Shape(2, (4, 4), 8, 2),
    "text": Shape(2, (4, 4), 6, 1),
}


@pytest.fixture(scope="module")
def heard():
    """A transformer with a prefix, its tokens, all that came out of its layers, and the summary of its attention."""
    torch.manual_seed(0)
    model = LatentTransformer(
        SHAPES, 32, 2, 2, 1, {"text": lambda shape: Prefix(shape, tokens=3)}, activation=torch.nn.ReLU
    ).eval()
    values = {name: torch.randn(9, 2, 16, 8) for name in ("past_video", "video")} | {"text": torch.randn(9, 1, 6)}
    tokens = Tokens(values)
    seen, found, summary = Visible.only(tokens, "history"), {}, AttentionSummary(model)
    with torch.no_grad(), layers(model, found.__setitem__), summary.listening():
        latent = model(tokens, seen)
    with torch.no_grad():
        assert torch.equal(model(tokens, seen), latent)  # nobody listens any more
    return model, tokens, seen, latent, found, summary.result()


def test_every_layer_is_heard_in_its_order(heard):
    model, tokens, seen, latent, found, _ = heard
    assert list(found) == ["input", "encoder 1", "encoder 2", "decoder 1", "Z"]
    assert {x.shape for x in found.values()} == {(9, 2, 16, 32)}
    assert torch.equal(found["Z"], latent)
    shares = sum(stream(tokens[name], seen[name]) for name, stream in model.fused.items())
    fused = model.encoder_positions(shares + model.fuse_bias)
    torch.testing.assert_close(found["input"].flatten(1, 2), fused)


def test_weights_times_values_are_the_layers_own_output(heard):
    attention, x = heard[0].encoder[0].attn, torch.randn(2, 7, 32)
    q, k, v = attention.split(x)
    weights = attention.weights(q, k)
    torch.testing.assert_close(weights.sum(dim=-1), torch.ones(2, 2, 7))
    joined = (weights @ v).transpose(1, 2).flatten(2)
    torch.testing.assert_close(attention.proj(joined), attention(x), atol=1e-6, rtol=1e-5)


def test_shares_of_attention_sum_to_one_and_are_those_of_the_weights(heard):
    model, tokens, seen, _, _, found = heard
    assert found["groups"] == ["text", "frame 1", "frame 2"]
    assert list(found["layers"]) == ["encoder 1", "encoder 2", "decoder 1"]
    for layer in found["layers"].values():
        torch.testing.assert_close(torch.tensor(layer["shares"]).sum(dim=-1), torch.ones(2, 3))
        directions = torch.tensor([layer[name] for name in ("same", "earlier", "later", "prefix")])
        torch.testing.assert_close(directions.sum(dim=0), torch.ones(2))
        assert all(0 < value <= 1 for value in layer["entropy"])
    inputs = []
    handle = model.encoder[1].attn.register_forward_pre_hook(lambda module, given: inputs.append(given[0]))
    with torch.no_grad():
        model(tokens, seen)
        handle.remove()
        q, k, _ = model.encoder[1].attn.split(inputs[0])
        weights = model.encoder[1].attn.weights(q, k)
    _, group = groups(model)
    expected = weights[:, :, group == 2][..., group == 1].sum(dim=-1).mean(dim=(0, 2))
    torch.testing.assert_close(torch.tensor(found["layers"]["encoder 2"]["shares"])[:, 2, 1], expected)
    entropy = -(weights * weights.log()).sum(dim=-1).mean(dim=(0, 2)) / np.log(35)
    torch.testing.assert_close(torch.tensor(found["layers"]["encoder 2"]["entropy"]), entropy)


def test_places_are_means_of_equal_fields():
    assert [fields(grid) for grid in ((4, 4), (16, 16), (6, 5), (7, 2))] == [(4, 4), (4, 4), (3, 1), (1, 2)]
    x = torch.randn(2, 3, 64, 5)
    found = places(x, (8, 8))
    assert found.shape == (2, 3, 16, 5)
    torch.testing.assert_close(found[:, :, 1], x.view(2, 3, 8, 8, 5)[:, :, :2, 2:4].mean(dim=(2, 3)))
    torch.testing.assert_close(found.mean(dim=2), x.mean(dim=2))
