"""Random numbers that follow from a name alone, so that reference numbers need no stored weights.

Two programs that know the rule fill two models of different layout with the same weights: each tensor is drawn from a
generator of its own, seeded with the CRC-32 of the tensor's official name.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import torch
from torch import Generator, Tensor


def seed_of(name: str) -> int:
    """Give the seed of a name: the CRC-32 of its UTF-8 bytes, in [0, 2**32)."""
    return zlib.crc32(name.encode())


def normal(name: str, shape: Sequence[int]) -> Tensor:
    """Draw the standard normal numbers of a name, f32[shape] on the CPU.

    torch draws fewer than 16 numbers differently from 16 and more: ask for the whole shape at once.
    """
    return torch.randn(tuple(shape), generator=_generator(name), dtype=torch.float32)


def uniform(name: str, shape: Sequence[int]) -> Tensor:
    """Draw the uniform numbers in [0, 1) of a name, f32[shape] on the CPU."""
    return torch.rand(tuple(shape), generator=_generator(name), dtype=torch.float32)


def fill(name: str, shape: Sequence[int], scale: float, is_norm: bool) -> Tensor:
    """Make the weights of one tensor.

    Args:
        name: Official name of the tensor, with the prefix of its set.
        shape: Official shape.
        scale: Standard deviation.
        is_norm: Whether it is the factor of a normalisation layer, which is drawn around 1 instead of 0.

    Returns:
        f32[shape] on the CPU.
    """
    drawn = scale * normal(name, shape)
    return 1 + drawn if is_norm else drawn


def relative_error(value: Tensor, reference: Tensor) -> float:
    """Compare two tensors: the largest difference, relative to the largest reference number or to 1 if that is less.

    Args:
        value: Number of any shape and dtype.
        reference: The same shape.

    Returns:
        A number from 0; NaN if either has one.

    Raises:
        ValueError: The shapes differ.
    """
    if value.shape != reference.shape:
        raise ValueError(f"Got numbers of shape {list(value.shape)}, the reference has {list(reference.shape)}.")
    if reference.numel() == 0:
        return 0.0
    expected = reference.detach().double().cpu()
    difference = (value.detach().double().cpu() - expected).abs().max()
    return float(difference / expected.abs().max().clamp(min=1.0))


def _generator(name: str) -> Generator:
    return Generator().manual_seed(seed_of(name))
