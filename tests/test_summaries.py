"""What normalisers are chosen from, gathered in blocks."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from uva_lightning.summaries import Extremes, Moments, Ranks


def blocks(values, size):
    return [values[first : first + size] for first in range(0, len(values), size)]


def gathered(summary, values, size):
    for block in blocks(values, size):
        summary.add(block)
    return summary


def test_extremes_are_those_of_all_blocks():
    values = torch.randn(1000, 3)
    seen = gathered(Extremes(), values, 33)
    assert seen.low.equal(values.amin(dim=0))
    assert seen.high.equal(values.amax(dim=0))


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_moments_keep_their_digits_far_from_zero(size):
    """Squares of 1e6 summed in single precision would lose a deviation of 0.1 entirely."""
    values = (1e6 + 0.125 * torch.randn(1000, 2).round()).float()
    seen = gathered(Moments(), values, size)
    exact = values.double().numpy()
    np.testing.assert_allclose(seen.mean, exact.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(seen.std, exact.std(axis=0, ddof=1), rtol=1e-8)
    assert seen.count == 1000


class TestRanks:
    @pytest.mark.parametrize("size", [1, 10, 64, 1000])
    def test_are_exact_up_to_twice_the_capacity(self, size):
        values = torch.randn(127, 3)
        seen = gathered(Ranks(capacity=64), values, size)
        for share in (0.0, 0.01, 0.333, 0.5, 0.99, 1.0):
            np.testing.assert_allclose(seen.quantile(share), np.quantile(values.numpy(), share, axis=0), atol=1e-6)

    @pytest.mark.parametrize("order", ["random", "rising", "falling", "organ pipes"])
    def test_stay_within_the_bound_beyond(self, order):
        count, capacity = 100_000, 256
        ranks = torch.arange(count, dtype=torch.float32)
        pipes = torch.cat([ranks[::2], ranks[1::2].flip(0)])
        mixed = ranks[torch.randperm(count, generator=torch.Generator().manual_seed(0))]
        values = {"random": mixed, "rising": ranks, "falling": ranks.flip(0), "organ pipes": pipes}[order]
        seen = gathered(Ranks(capacity), values[:, None], 1000)
        bound = math.log2(count / capacity) / (2 * capacity)
        for share in (0.001, 0.01, 0.25, 0.5, 0.75, 0.99, 0.999):
            assert abs(seen.quantile(share).item() / (count - 1) - share) <= bound

    def test_memory_does_not_grow_with_the_data(self):
        seen = gathered(Ranks(capacity=128), torch.randn(200_000, 2), 4096)
        held = sum(len(buffer) for buffer in (*seen._levels.values(), seen._rest))
        assert held <= 128 * (math.ceil(math.log2(200_000 / 128)) + 2)
        assert seen._rest.untyped_storage().nbytes() == seen._rest.nbytes

    def test_are_the_same_in_every_run(self):
        values = torch.randn(10_000, 2)
        first, second = (gathered(Ranks(capacity=64), values, size) for size in (100, 999))
        assert first.quantile(0.01).equal(second.quantile(0.01)), "whatever the blocks"
