"""Action spaces and normalisers of a mixture: each set's own, and what is filled up counts for nothing."""

from __future__ import annotations

import copy
from dataclasses import replace

import mixtures
import pytest
import torch
from torch import nn

from uva_lightning.action_space import ActionSpace
from uva_lightning.model.fitted import fit_together
from uva_lightning.model.heads.aggregate import ConvFC
from uva_lightning.model.heads.base import ActionChunkHead, ActionHead
from uva_lightning.model.heads.diffusion import GaussianDiffusion
from uva_lightning.model.heads.flow import FlowMatching
from uva_lightning.model.streams import Shape
from uva_lightning.normalize import Columns, Identity, Limits, Standard
from uva_lightning.proprioception import Proprioception
from uva_lightning.set_actions import SetActions, actions_for
from uva_lightning.types import Tokens, Visible
from uva_lightning.union import by_set


@pytest.fixture(scope="module")
def data():
    made = mixtures.mixture(weights={"arm": 1, "plane": 1, "people": 1})
    made.setup("fit")
    return made


@pytest.fixture(scope="module")
def batch(data):
    return next(iter(data.train_dataloader()))


def fitted(data, given=None):
    actions, states = actions_for(data.spec, given), Proprioception().bind(data.spec)
    fit_together([actions, states], data.training_numbers())
    return actions, states


def test_each_set_s_normalisers_are_those_of_the_set_alone(data):
    actions, states = fitted(data)
    for name, part in data.sets.items():
        if not part.spec.action_dim:
            assert name not in actions.spaces
            continue
        alone, feeling = ActionSpace(Limits()), Proprioception().bind(part.spec)
        fit_together([alone, feeling], part.training_numbers())
        for key, value in alone.state().items():
            assert actions.state()[f"{name}/{key}"].equal(value)
        for key, value in feeling.state().items():
            assert states.state()[f"{name}/{key}"].equal(value)


def test_rows_are_encoded_by_their_own_set_and_filled_up_with_zeros(data, batch):
    actions, states = fitted(data)
    for rows in (torch.arange(12), torch.randperm(12)):  # in the order of the sets and in any
        mixed = replace(
            batch,
            action=batch.action[rows],
            source=batch.source[rows],
            state={name: values[rows] for name, values in batch.state.items()},
            future_state={},
        )
        encoded = actions.encode(mixed.action, mixed.state, mixed.source)
        valid, seen = actions.valid(mixed.source), states.encode(mixed, torch.device("cpu"))
        for name, number in (("arm", 0), ("plane", 1)):
            mine, width = mixed.source == number, data.spec.sets[name].spec.action_dim
            own = actions.spaces[name].encode(mixed.action[mine][..., :width], {})
            assert encoded[mine][..., :width].equal(own)
            assert valid[mine].sum(dim=1).eq(width).all()
            assert seen["eef"][mine].equal(states.normalizers[f"{name}/eef"].encode(mixed.state["eef"][mine]))
        assert not encoded[~valid[:, None].expand_as(encoded)].any()
        assert not seen["grip"][mixed.source != 0].any()
        decoded = actions.decode(encoded, mixed.state, mixed.source)
        there = valid[:, None].expand_as(decoded)
        torch.testing.assert_close(decoded[there], mixed.action[there])
        assert decoded[~there].isnan().all()


def test_a_set_may_have_an_action_space_of_its_own(data):
    columns = ActionSpace(Columns([3, 2], [Standard(), Identity()]))
    actions, _ = fitted(data, {"arm": columns})
    assert actions.spaces["arm"] is columns
    assert actions.spaces["arm"].normalizer._scale[3:].tolist() == [1, 1]
    shared = actions_for(data.spec, ActionSpace(Limits()))
    assert shared.spaces["arm"].normalizer is not shared.spaces["plane"].normalizer
    with pytest.raises(ValueError, match=r"names \['people'\], expected data sets with actions.*\['arm', 'plane'\]"):
        actions_for(data.spec, {"people": columns})
    with pytest.raises(ValueError, match="no mixture"):
        actions_for(data.sets["arm"].spec, {"arm": columns})


def test_actions_relative_to_an_entry_do_not_take_another_set_s_zeros_for_it(data):
    actions = actions_for(data.spec, ActionSpace(Limits(), relative_to="grip"))
    with pytest.raises(ValueError, match="cannot be relative to 'grip'"):
        fit_together([actions], data.training_numbers())


def test_the_state_is_saved_under_the_set_s_name_and_only_what_is_missing_is_fitted(data):
    actions, _ = fitted(data)
    other = actions_for(data.spec, None)
    other.load_state(actions.state())
    assert other.fitted
    assert {key.split("/")[0] for key in actions.state()} == {"arm", "plane"}
    other.spaces["plane"].normalizer._scale = torch.empty(0)
    arm = other.spaces["arm"].normalizer
    arm._scale = arm._scale * 3
    fit_together([other], data.training_numbers())
    assert other.state()["arm/normalizer.scale"].equal(actions.state()["arm/normalizer.scale"] * 3)
    assert other.state()["plane/normalizer.scale"].equal(actions.state()["plane/normalizer.scale"])


def test_rows_of_a_set_are_a_slice_where_they_stand_together():
    assert list(by_set(torch.tensor([2, 2, 0]))) == [(2, slice(0, 2)), (0, slice(2, 3))]
    apart = {number: rows.tolist() for number, rows in by_set(torch.tensor([1, 0, 1, 1]))}
    assert apart == {0: [1], 1: [0, 2, 3]}


def narrowed(net, wide, narrow, outputs):
    """The same network for fewer channels: the columns and rows of the others are cut out."""
    small = copy.deepcopy(net)
    first = next(layer for layer in small.modules() if isinstance(layer, nn.Linear) and layer.in_features == wide)
    first.weight = nn.Parameter(first.weight[:, :narrow])
    first.in_features = narrow
    *_, last = (layer for layer in small.modules() if isinstance(layer, nn.Linear))
    keep = torch.cat([torch.arange(narrow) + part * wide for part in range(outputs)])
    last.weight, last.bias = nn.Parameter(last.weight[keep]), nn.Parameter(last.bias[keep])
    return small


def shaken(denoiser):
    for weights in denoiser.parameters():
        weights.data += 0.1 * torch.randn(weights.shape)
    return denoiser


def test_the_loss_is_that_of_the_narrow_actions_alone():
    torch.manual_seed(0)
    wide, narrow = shaken(GaussianDiffusion(5, 7, width=16, depth=1)), GaussianDiffusion(2, 7, width=16, depth=1)
    narrow.net = narrowed(wide.net, 5, 2, 2)
    target, condition, noise = torch.randn(6, 2), torch.randn(6, 7), torch.randn(6, 5)
    time, valid = torch.tensor([0, 3, 50, 400, 900, 999]), (torch.arange(5) < 2).expand(6, 5)
    padded = torch.cat((target, torch.zeros(6, 3)), dim=1)
    projected = wide.net.condition(condition)
    masked = wide.terms_at(padded, projected, time, noise, valid)
    for one, other in zip(masked, narrow.terms_at(target, projected, time, noise[:, :2]), strict=True):
        torch.testing.assert_close(one, other)


def heads():
    shape = Shape(frames=2, grid=(2, 2), channels=5, steps=16, width=8)
    flow = lambda channels, condition: shaken(FlowMatching(channels, condition, width=16, depth=1))  # noqa: E731
    diffusion = lambda channels, condition: shaken(GaussianDiffusion(channels, condition, width=16, depth=1))  # noqa: E731
    return [
        pytest.param(kind(shape, denoiser, ConvFC, steps=3), id=f"{kind.__name__}-{name}")
        for kind in (ActionHead, ActionChunkHead)
        for name, denoiser in (("flow", flow), ("diffusion", diffusion))
    ]


@pytest.mark.parametrize("head", heads())
def test_what_is_filled_up_reaches_neither_loss_nor_sample(head):
    latent, action = torch.randn(3, 2, 4, 8), torch.randn(3, 16, 5)
    valid = torch.arange(5) < torch.tensor([[5], [2], [0]])
    kept = action * valid[:, None]

    def loss(values):
        torch.manual_seed(1)
        tokens = Tokens({"action": values}, {"action": valid})
        return head.loss(latent, tokens, Visible.only(tokens)).means

    result = loss(kept)
    assert result.isfinite().all()
    assert result[2] == 0
    everything = Tokens({"action": kept})
    torch.manual_seed(1)
    assert head.loss(latent, everything, Visible.only(everything)).means[1] != result[1]
    gradient = torch.autograd.grad(result.sum(), [p for p in head.parameters() if p.requires_grad], allow_unused=True)
    assert all(part is None or part.isfinite().all() for part in gradient)

    def sample(noise):
        torch.manual_seed(2)
        tokens = Tokens({"action": kept}, {"action": valid})
        return head.sample(latent, tokens, Visible.only(tokens), noise)

    noise = torch.randn(3, 16, 5)
    other = torch.where(valid[:, None], noise, 100.0)
    with torch.no_grad():
        assert sample(noise)[~valid[:, None].expand(-1, 16, -1)].eq(0).all()
        assert sample(noise)[:2].equal(sample(other)[:2])


def test_masks_go_along_with_rows_and_new_values():
    valid = torch.tensor([[True, True], [True, False], [False, False]])
    tokens = Tokens({"action": torch.zeros(3, 4, 2)}, {"action": valid})
    assert tokens.rows(torch.tensor([2, 0])).valid["action"].tolist() == [[False, False], [True, True]]
    other = tokens.rows(slice(1, 2)).replaced({"action": torch.ones(1, 4, 2)})
    assert other.valid["action"].tolist() == [[True, False]]


def test_a_model_of_one_set_masks_nothing(tiny_data, tiny_module):
    data = tiny_data()
    module = tiny_module(data.spec)
    assert isinstance(module.actions, ActionSpace)
    assert not isinstance(module.actions, SetActions)
    assert module.actions.valid(None) is None
