"""From physical units to the model's numbers and back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from uva_lightning.normalize import Columns, Identity, Limits, Quantiles, Standard

VALUES = torch.tensor([[0.0, 5.0, -1.0], [10.0, 5.0, 1.0], [4.0, 5.0, 3.0]])


def fitted(normalizer, values=VALUES):
    normalizer.fit(values)
    return normalizer


@pytest.mark.parametrize("kind", [Limits, Quantiles, Standard])
class TestBoth:
    def test_decode_undoes_encode(self, kind):
        normalizer, values = fitted(kind()), torch.randn(2, 7, 3) * 10
        assert torch.allclose(normalizer.decode(normalizer.encode(values)), values, atol=1e-5)

    def test_a_constant_dimension_becomes_zero_and_comes_back(self, kind):
        normalizer = fitted(kind())
        assert normalizer.encode(VALUES)[:, 1].tolist() == [0.0, 0.0, 0.0]
        assert normalizer.decode(normalizer.encode(VALUES))[:, 1].tolist() == [5.0, 5.0, 5.0]
        assert normalizer.encode(VALUES + 0.1)[:, 1] == pytest.approx(0.1, abs=1e-5), "kept in its own unit"

    def test_another_width_is_refused(self, kind):
        normalizer = fitted(kind())
        for verb in (normalizer.encode, normalizer.decode):
            with pytest.raises(ValueError, match="The values are 2 wide, expected 3 as fitted"):
                verb(torch.zeros(4, 2))

    def test_the_state_makes_an_equal_one(self, kind):
        normalizer, other = fitted(kind()), kind()
        assert not other.fitted
        other.load_state(normalizer.state())
        assert other.fitted
        assert other.encode(VALUES).equal(normalizer.encode(VALUES))


def test_limits_map_the_range_to_minus_one_and_one():
    encoded = fitted(Limits()).encode(VALUES)
    assert encoded[:, 0] == pytest.approx(torch.tensor([-1.0, 1.0, -0.2]).numpy())
    assert encoded[:, 2] == pytest.approx(torch.tensor([-1.0, 0.0, 1.0]).numpy())


def test_a_range_just_above_the_smallest_is_no_constant():
    values = torch.tensor([[0.0], [2e-4]])
    assert fitted(Limits(), values).encode(values).flatten().tolist() == pytest.approx([-1.0, 1.0])


def test_standard_gives_mean_zero_and_deviation_one():
    values = torch.randn(1000, 3) * torch.tensor([1.0, 20.0, 300.0]) + 7
    encoded = fitted(Standard(), values).encode(values)
    assert encoded.mean(dim=0) == pytest.approx(0.0, abs=1e-4)
    assert encoded.std(dim=0) == pytest.approx(1.0, abs=1e-4)


OFFICIAL = np.load(Path(__file__).parent / "fixtures/official/normalizers.npz")
"""Scale and offset of the official code for given numbers."""


@pytest.mark.parametrize(
    ("name", "data", "normalizer"),
    [
        ("limits_offset1", "data", Limits()),
        ("limits_offset0", "data", Limits(offset=False)),
        ("gaussian_offset1", "data", Standard()),
        ("gaussian_offset0", "data", Standard(offset=False)),
        ("abs_action10", "act10", Columns([3, 7], [Limits(smallest_range=1e-7), Identity()])),
    ],
)
def test_scale_and_offset_are_those_of_the_official_code(name, data, normalizer):
    values = torch.from_numpy(OFFICIAL[data])
    normalizer.fit(values)
    for part, number in normalizer.state().items():
        np.testing.assert_allclose(number, OFFICIAL[f"{name}/{part}"], rtol=1e-5, atol=1e-6)
    if f"{name}/normalized" in OFFICIAL:
        np.testing.assert_allclose(normalizer.encode(values), OFFICIAL[f"{name}/normalized"], rtol=1e-5, atol=2e-6)


def test_identity_changes_nothing():
    values = torch.randn(5, 3)
    assert fitted(Identity(), values).encode(values).equal(values)
    assert fitted(Identity(), values).decode(values).equal(values)


def test_mistakes_in_normalizers_are_told():
    with pytest.raises(ValueError, match=r"widths \[3\] for 2 parts, expected one positive width per part"):
        Columns([3], [Limits(), Identity()])
    with pytest.raises(ValueError, match=r"widths \[3, 7\], together 10, but the values are 3 wide"):
        fitted(Columns([3, 7], [Limits(), Identity()]))
    with pytest.raises(ValueError, match="smallest_range is 0"):
        Limits(smallest_range=0)


class TestQuantiles:
    def test_map_the_two_to_minus_one_and_one_and_outliers_beyond(self):
        values = torch.arange(1001.0)[:, None] * torch.tensor([1.0, -3.0])
        values[0] = torch.tensor([-1e6, 1e6])  # one outlier of a thousand values
        encoded = fitted(Quantiles(), values).encode(values)
        assert encoded[10] == pytest.approx(torch.tensor([-1.0, 1.0]), abs=1e-5)
        assert encoded[990] == pytest.approx(torch.tensor([1.0, -1.0]), abs=1e-5)
        assert encoded[0].abs().min() > 600

    def test_of_zero_and_one_are_the_limits(self):
        values = torch.randn(500, 3)
        assert torch.allclose(fitted(Quantiles(0, 1), values).encode(values), fitted(Limits(), values).encode(values))

    @pytest.mark.parametrize("shares", [(0.5, 0.5), (-0.1, 0.9), (0.1, 1.1), (0.9, 0.1)])
    def test_must_be_two_shares(self, shares):
        with pytest.raises(ValueError, match=f"The quantiles are {shares[0]} and {shares[1]}, expected 0 <= low < hi"):
            Quantiles(*shares)


@pytest.mark.parametrize(
    "make",
    [
        Identity,
        Limits,
        lambda: Limits(offset=False),
        Standard,
        Quantiles,
        lambda: Columns([1, 2], [Standard(), Limits()]),
    ],
)
def test_blocks_give_what_the_whole_gives(make):
    values = torch.randn(1000, 3) * torch.tensor([1e-3, 1.0, 50.0]) + torch.tensor([0.0, 1e3, -7.0])
    blocks = (values[first : first + 77] for first in range(0, 1000, 77))
    whole = fitted(make(), values).state()
    for name, value in fitted(make(), blocks).state().items():
        assert torch.allclose(value, whole[name], rtol=1e-6, atol=0), name
        assert value.dtype == torch.float32


def test_nothing_changes_before_the_last_block():
    normalizer = fitted(Limits())
    before = normalizer.encode(VALUES)
    normalizer.begin()
    normalizer.update(VALUES * 10)
    assert normalizer.encode(VALUES).equal(before)
    normalizer.finish()
    assert not normalizer.encode(VALUES).equal(before)


@pytest.mark.parametrize("make", [Identity, Limits, Standard, Quantiles, lambda: Columns([3], [Limits()])])
class TestBadValues:
    def test_none_at_all(self, make):
        for nothing in ([], [torch.zeros(0, 3)], torch.zeros(0, 3)):
            with pytest.raises(ValueError, match="given 0 values, expected at least one"):
                make().fit(nothing)

    @pytest.mark.parametrize("number", [float("nan"), float("inf")])
    def test_not_finite(self, make, number):
        normalizer, values = make(), VALUES.clone()
        values[1, 2] = number
        normalizer.begin()
        with pytest.raises(ValueError, match="'gripper' has NaN or infinity 1 times, most in dimension 2"):
            normalizer.update(values, "gripper")
        assert not normalizer.fitted

    def test_of_two_widths(self, make):
        with pytest.raises(ValueError, match="A block of 'values' is 2 wide, expected 3 as the blocks before it"):
            make().fit([VALUES, VALUES[:, :2]])


def test_a_single_value_is_a_constant():
    for make in (Limits, Standard, Quantiles):
        assert fitted(make(), VALUES[:1]).encode(VALUES[:1]).tolist() == [[0.0, 0.0, 0.0]]
