"""Blocks that are computed again in the backward pass change nothing but the memory."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch

from uva_lightning.model.streams import Shape
from uva_lightning.model.transformer import SCORE_BYTES, Attention, LatentTransformer
from uva_lightning.types import Tokens, Visible

SHAPES = {"past_video": Shape(2, (4, 4), 8, 2), "video": Shape(2, (4, 4), 8, 2), "action": Shape(2, (4, 4), 2, 16)}
DEPTH = 4


def backward(again):
    """Give the gradients, by name, and the bytes that the graph holds besides the weights."""
    torch.manual_seed(0)
    model = LatentTransformer(SHAPES, 32, 2, DEPTH, DEPTH, dropout=0.2, checkpoint_blocks=again)
    tokens = Tokens(
        {n: torch.randn(3, s.steps, *([16] if "video" in n else []), s.channels) for n, s in SHAPES.items()}
    )
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    held = {}

    def hold(value):
        if value.untyped_storage().data_ptr() not in weights:
            held[value.untyped_storage().data_ptr()] = value.untyped_storage().nbytes()
        return value

    with torch.autograd.graph.saved_tensors_hooks(hold, lambda value: value):
        latent = model(tokens, Visible.only(tokens, "history"))
        loss = (latent * torch.randn_like(latent)).sum()
    loss.backward()
    return {name: parameter.grad for name, parameter in model.named_parameters()}, sum(held.values())


def test_checkpointed_blocks_have_the_same_gradients_for_less_memory():
    (gradients, much), (same, little) = backward(False), backward(True)
    assert all(torch.equal(gradients[name], same[name]) for name in gradients)
    assert little < much / 4


@pytest.mark.parametrize("sharp", [1.0, 4.0])
@pytest.mark.parametrize(
    ("batch", "tokens", "heads", "width", "groups"),
    [(1, 5, 2, 16, 1), (3, 600, 4, 48, 3), (1, 1500, 3, 24, 3)],  # all heads at once, uneven groups, one by one
)
def test_attention_in_bfloat16_is_attention_but_for_rounding(batch, tokens, heads, width, groups, sharp):
    assert -(-batch * heads // max(1, SCORE_BYTES // (2 * tokens**2))) == groups
    torch.manual_seed(0)
    attention = Attention(width, heads, dropout=0.0).eval()
    with torch.no_grad():
        attention.qkv.weight[: 2 * width] *= sharp  # scores grow by its square
    attention = attention.bfloat16()
    x = torch.randn(batch, tokens, width).bfloat16()
    exact = deepcopy(attention).double()(x.double())
    for gradients in (False, True):
        with torch.set_grad_enabled(gradients):
            made = attention(x)
        assert (made.shape, made.dtype) == (x.shape, torch.bfloat16)
        assert (made - exact).norm() < 2**-5 * exact.norm()
