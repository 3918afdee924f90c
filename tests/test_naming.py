"""Numbers that follow from names."""

from __future__ import annotations

import pytest
import torch

from uva_lightning.parity.naming import fill, normal, relative_error, seed_of, uniform


def test_the_seed_is_the_crc():
    assert seed_of("123456789") == 0xCBF43926  # the check value of CRC-32


def test_numbers_follow_from_the_name_alone():
    torch.manual_seed(0)
    first = normal("a", (4, 8))
    torch.manual_seed(1)
    assert first.equal(normal("a", [4, 8]))
    assert not first.equal(normal("b", (4, 8)))
    assert first.dtype == torch.float32
    assert uniform("a", (1000,)).min() >= 0
    assert uniform("a", (1000,)).max() < 1


def test_the_official_code_filled_by_this_rule_has_these_weights():
    plain, factors = fill("fake_latent_x", [1, 64], 0.05, False), fill("z_proj_ln.weight", [64], 0.1, True)
    assert plain.flatten()[:3].tolist() == pytest.approx([0.018227842, 0.02852351, 0.030110124], abs=1e-7)
    assert factors[:3].tolist() == pytest.approx([1.108283281, 1.046604395, 0.850193739], abs=1e-7)


def test_factors_of_a_normalisation_are_around_one():
    around_zero, around_one = fill("w", (64,), 0.1, False), fill("w", (64,), 0.1, True)
    assert around_one.equal(around_zero + 1)
    assert around_zero.equal(0.1 * normal("w", (64,)))


def test_the_error_is_relative_to_the_largest_number_but_never_blown_up():
    assert relative_error(torch.tensor([10.0, -99.0]), torch.tensor([10.0, -100.0])) == pytest.approx(0.01)
    assert relative_error(torch.tensor([0.1]), torch.tensor([0.001])) == pytest.approx(0.099)
    assert relative_error(torch.empty(0), torch.empty(0)) == 0
    assert not relative_error(torch.tensor([float("nan")]), torch.tensor([1.0])) <= 1e9


def test_other_shapes_are_no_comparison():
    with pytest.raises(ValueError, match=r"shape \[2\], the reference has \[1, 2\]"):
        relative_error(torch.zeros(2), torch.zeros(1, 2))
