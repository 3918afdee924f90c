"""Intervals hold what they promise."""

from __future__ import annotations

import numpy as np
import pytest

from uva_lightning.metrics.intervals import (
    bootstrap_columns,
    bootstrap_mean,
    bootstrap_ratio,
    student_mean,
    student_quantile,
    wilson,
)


def test_bootstrap_is_seeded_and_near_the_normal_interval():
    values = np.random.default_rng(0).normal(0.5, 0.2, 200)
    low, high = bootstrap_mean(values)
    assert bootstrap_mean(values) == (low, high) != bootstrap_mean(values, seed=1)
    reach = 1.96 * values.std() / np.sqrt(200)
    assert low == pytest.approx(values.mean() - reach, abs=0.003)
    assert high == pytest.approx(values.mean() + reach, abs=0.003)


def test_one_value_has_no_spread():
    assert bootstrap_mean([0.25]) == (0.25, 0.25)


@pytest.mark.parametrize("values", [[], [0.1, float("nan")], np.zeros((2, 2))])
def test_bootstrap_refuses_what_has_no_mean(values):
    with pytest.raises(ValueError, match="expected a list of at least one finite number"):
        bootstrap_mean(values)


def test_columns_have_the_intervals_that_each_has_alone():
    values = np.random.default_rng(1).normal(size=(30, 3))
    for column, interval in zip(values.T, bootstrap_columns(values), strict=True):
        assert interval == pytest.approx(bootstrap_mean(column), abs=1e-12)


def test_a_ratio_is_bounded_only_where_its_denominator_is_positive():
    other = np.random.default_rng(1).normal(1.0, 0.5, 100)
    low, high = bootstrap_ratio(0.5 * other, other)
    assert (low, high) == pytest.approx((0.5, 0.5))
    low, high = bootstrap_ratio(np.random.default_rng(2).normal(0.5, 0.5, 100), other)
    assert 0.3 < low < 0.5 < high < 0.7
    assert bootstrap_ratio(other, other - 1.0) is None


@pytest.mark.parametrize(
    ("freedom", "quantile"), [(1, 12.7062), (2, 4.3027), (3, 3.1824), (4, 2.7764), (9, 2.2622), (30, 2.0423)]
)
def test_student_equals_published_numbers(freedom, quantile):
    assert student_quantile(freedom) == pytest.approx(quantile, abs=1e-4)


def test_student_interval_by_hand():
    assert student_mean([1.0, 2.0, 3.0]) == pytest.approx((2 - 4.30265 / 3**0.5, 2 + 4.30265 / 3**0.5), abs=1e-4)
    assert student_mean([2.0, 2.0]) == (2.0, 2.0)
    assert student_mean([2.0]) is None
    with pytest.raises(ValueError, match=r"values are \[1.0, inf\], expected"):
        student_mean([1.0, float("inf")])


@pytest.mark.parametrize(
    ("successes", "total", "low", "high"),
    [(8, 10, 0.4902, 0.9433), (0, 10, 0.0, 0.2775), (10, 10, 0.7225, 1.0), (27, 50, 0.4040, 0.6703)],
)
def test_wilson_equals_published_numbers(successes, total, low, high):
    assert wilson(successes, total) == pytest.approx((low, high), abs=1e-4)


@pytest.mark.parametrize(("successes", "total"), [(0, 0), (3, 2), (-1, 2)])
def test_wilson_refuses_impossible_counts(successes, total):
    with pytest.raises(ValueError, match=f"{successes} of {total} were successful"):
        wilson(successes, total)
