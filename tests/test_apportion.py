"""Shares that hold in every stretch."""

import numpy as np
import pytest

from uva_lightning.apportion import apportioned, owners

SHARES = [[0.5, 0.5], [0.7, 0.2, 0.1], [1, 2, 3, 4], [0.97, 0.03], [1, 0, 1], [5]]


@pytest.mark.parametrize("shares", SHARES)
def test_every_stretch_has_every_share_to_within_two(shares):
    owner, before = owners(shares, 0, 3000)
    counts = np.cumsum(owner[:, None] == np.arange(len(shares)), axis=0)
    counts = np.concatenate([np.zeros((1, len(shares)), int), counts])
    wanted = np.array(shares) / sum(shares)
    for length in (1, 7, 64, 1000):
        found = counts[length:] - counts[:-length]
        assert np.abs(found - length * wanted).max() <= 2
    assert before.tolist() == [int((owner[:place] == owner[place]).sum()) for place in range(len(owner))]


@pytest.mark.parametrize("shares", SHARES)
def test_counts_add_up_and_never_fall(shares):
    counts = apportioned(shares, np.arange(500))
    assert (counts.sum(axis=0) == np.arange(500)).all()
    assert (np.diff(counts, axis=1) >= 0).all()


def test_a_run_may_begin_anywhere():
    whole, first = owners([3, 1, 2], 0, 200)
    part, later = owners([3, 1, 2], 137, 40)
    assert part.tolist() == whole[137:177].tolist()
    assert later.tolist() == first[137:177].tolist()
