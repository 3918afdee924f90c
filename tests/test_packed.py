"""Packed linear layers give what torch's own give, within the rounding of bfloat16."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch
from torch import nn

from uva_lightning.policy.packed import PackedLinear, pack, packs

pytestmark = pytest.mark.skipif(
    not packs(torch.bfloat16, torch.device("cpu")), reason="needs a CPU that multiplies bfloat16"
)
ROUNDING = 2**-7
"""Of a bfloat16, relative."""


def close(made, expected):
    return (made.float() - expected.float()).abs().max() <= ROUNDING * expected.float().abs().max()


@pytest.mark.parametrize("activation", [nn.Identity, nn.GELU, nn.SiLU, nn.ReLU])
@pytest.mark.parametrize("lead", [(5,), (2, 3), (1, 1, 40), (0,)])
@pytest.mark.parametrize("bias", [True, False])
def test_a_packed_layer_is_the_layer(activation, lead, bias):
    plain = nn.Sequential(nn.Linear(32, 48, bias=bias), activation()).bfloat16()
    packed = deepcopy(plain)
    pack(packed)
    assert isinstance(packed[0], PackedLinear)
    assert isinstance(packed[1], nn.Identity)
    x = torch.randn(*lead, 32)
    with torch.no_grad():
        made, expected = packed(x), plain(x.bfloat16())
    assert (made.shape, made.dtype) == (expected.shape, torch.bfloat16)
    assert not len(made) or close(made, expected)


def test_what_cannot_be_fused_or_packed_stays():
    part = nn.Sequential(nn.Linear(32, 32), nn.GELU(approximate="tanh"), nn.Linear(32, 4), nn.SiLU()).bfloat16()
    packed = deepcopy(part)
    pack(packed)
    assert [type(layer) for layer in packed] == [PackedLinear, nn.GELU, nn.Linear, nn.SiLU]
    x = torch.randn(7, 32).bfloat16()
    with torch.no_grad():
        assert close(packed(x), part(x))


def test_gradients_pass_through_a_packed_layer():
    plain = nn.Sequential(nn.Linear(32, 32), nn.SiLU(), nn.Linear(32, 32)).bfloat16()
    packed = deepcopy(plain)
    pack(packed)
    given = torch.randn(6, 32)
    slopes = []
    for part in (plain, packed):
        x = given.clone().bfloat16().requires_grad_()
        slopes.append(torch.autograd.grad(part(x).float().square().sum(), x)[0])
    assert close(slopes[1], slopes[0])


@pytest.mark.parametrize(
    ("dtype", "device"), [(torch.float32, "cpu"), (torch.float16, "cpu"), (torch.bfloat16, "cuda")]
)
def test_other_types_and_devices_are_not_packed(dtype, device):
    assert not packs(dtype, torch.device(device))
