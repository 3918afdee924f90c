"""Weights that are all at work."""

from __future__ import annotations

import torch


def shake(module, seed=0, scale=0.3):
    """Give every weight a value that follows from the seed, also those that start at zero."""
    rng = torch.Generator().manual_seed(seed)
    for name, parameter in module.named_parameters():
        parameter.data = scale * torch.randn(parameter.shape, generator=rng) + float(name.endswith("norm.weight"))
    return module
