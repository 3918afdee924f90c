"""Linear layers as the CPU multiplies them fastest: weights laid out once, bias and activation in the same pass."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

SMALLEST = 16
"""Narrower layers are left as they are: packing is made for tiles of 16 rows."""
NONE = "none"


class PackedLinear(nn.Module):
    """A linear layer in bfloat16 whose weights lie as oneDNN's kernels read them.

    torch's own layer has oneDNN find that out in each call, and its activation reads all numbers again. Where gradients
    are wanted (actions that continue others) the layer is computed the usual way.

    Args:
        layer: The layer, with weights in bfloat16.
        activation: What follows it: none, gelu, swish or relu.
    """

    def __init__(self, layer: nn.Linear, activation: str = NONE) -> None:
        super().__init__()
        self.activation = activation
        weight = layer.weight.detach()
        self._packed = torch.ops.mkldnn._reorder_linear_weight(weight, None)
        self._weight: Tensor | None = None  # made where gradients are wanted
        self._bias = None if layer.bias is None else layer.bias.detach()

    def forward(self, x: Tensor) -> Tensor:
        """Map [..., k] of any dtype to bfloat16 [..., n]."""
        x = x.to(torch.bfloat16)
        if not torch.is_grad_enabled():
            made: Tensor = torch.ops.mkldnn._linear_pointwise(
                x,
                self._packed,
                self._bias,
                self.activation,
                [],
                NONE,  # exact gelu
            )
            return made
        if self._weight is None:
            with torch.inference_mode(False):
                self._weight = self._packed.to_dense()
        return _USUAL[self.activation](F.linear(x, self._weight, self._bias))


_USUAL = {NONE: lambda x: x, "gelu": F.gelu, "swish": F.silu, "relu": F.relu}


def packs(dtype: torch.dtype, device: torch.device) -> bool:
    """Tell whether layers of this type can be packed here."""
    native: bool = torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return dtype == torch.bfloat16 and device.type == "cpu" and native


def pack(part: nn.Module) -> None:
    """Replace, in a part that is used for inference alone, its linear layers and the activations that follow them."""
    for parent in list(part.modules()):
        children = list(parent.named_children())
        follows = dict(pairwise(name for name, _ in children)) if isinstance(parent, nn.Sequential) else {}
        for name, child in children:
            if not isinstance(child, nn.Linear) or min(child.weight.shape) < SMALLEST:
                continue
            after = follows.get(name, "")
            activation = _fused(parent.get_submodule(after)) if after else NONE
            setattr(parent, name, PackedLinear(child, activation))
            if activation != NONE:
                setattr(parent, after, nn.Identity())


def _fused(layer: nn.Module) -> str:
    """Name the activation as oneDNN does; ``none`` is one that it does not compute, or that is no activation."""
    if isinstance(layer, nn.GELU) and layer.approximate == NONE:
        return "gelu"
    return "swish" if isinstance(layer, nn.SiLU) else "relu" if isinstance(layer, nn.ReLU) else NONE
