"""Orders show every sample once, in the same global batches for any number of processes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from uva_lightning.datamodules.order import Sharded, Shuffled
from uva_lightning.datamodules.step_sampler import StepBatchSampler

COUNTS = (31, 5, 40, 17, 22, 9, 33, 28)


def shards():
    """Number of the shard of each of 185 samples, of 8 shards; not sorted, as mirrored samples come last."""
    half = np.repeat(np.arange(len(COUNTS)), COUNTS)
    return np.concatenate([half, half[::-1]])


def make(batch_size=16, lanes=4, buffer=10, seed=3):
    return Sharded(shards(), batch_size, seed, lanes, buffer)


def epoch(order, number, first=0, count=None):
    count = order.batch_size if count is None else count
    return [order.batch(number * len(order) + batch, first, count) for batch in range(len(order))]


@pytest.mark.parametrize("buffer", [1, 10, 1000])
@pytest.mark.parametrize(("batch_size", "lanes"), [(16, 4), (16, 16), (8, 32), (6, 3), (4, 64), (16, 1)])
def test_an_epoch_shows_every_sample_once_up_to_a_part_of_a_batch(batch_size, lanes, buffer):
    order = make(batch_size, lanes, buffer)
    for number in range(2):
        seen = torch.cat(epoch(order, number))
        assert len(seen) == len(seen.unique()) == len(shards()) // batch_size * batch_size
        assert 0 <= seen.min() <= seen.max() < len(shards())
    assert not torch.cat(epoch(order, 0)).equal(torch.cat(epoch(order, 1)))
    assert not torch.cat(epoch(order, 0)).equal(torch.cat(epoch(make(batch_size, lanes, buffer, seed=4), 0)))


def test_any_batch_can_be_asked_for_at_any_time():
    order = make()
    forward = [order.batch(number, 0, 16) for number in range(60)]
    for number in reversed(range(60)):
        assert make().batch(number, 0, 16).equal(forward[number])
        assert order.batch(number, 0, 16).equal(forward[number])


@pytest.mark.parametrize("world", [2, 4])
@pytest.mark.parametrize(("batch_size", "lanes"), [(16, 4), (8, 32)])
def test_the_batches_do_not_depend_on_the_processes(batch_size, lanes, world):
    alone = list(StepBatchSampler(make(batch_size, lanes), lambda: 5))
    ranks = [list(StepBatchSampler(make(batch_size, lanes), lambda: 5, rank, world)) for rank in range(world)]
    for whole, *parts in zip(alone, *ranks, strict=True):
        assert torch.cat([part.windows for part in parts]).equal(whole.windows)


def test_a_process_touches_its_own_part_of_the_shards_and_names_it_before():
    counts = [20] * 64
    order = Sharded(np.repeat(np.arange(64), counts), 16, 0, 8, 10)
    touched = []
    for rank in range(4):
        ahead = set()
        mine = set()
        for number in range(len(order)):
            ahead |= set(order.needed(number, rank * 4, 4, ahead=1))
            now = {int(sample) // 20 for sample in order.batch(number, rank * 4, 4)}
            assert now <= set(order.needed(number, rank * 4, 4, ahead=0))
            mine |= now
        assert mine <= ahead
        touched.append(mine)
    assert all(16 <= len(mine) <= 18 for mine in touched)
    assert set.union(*touched) == set(range(64))


def test_a_lane_needs_few_shards_at_a_time():
    order = Sharded(np.repeat(np.arange(100), 50), 8, 0, 8, 25)
    for number in range(0, len(order), 7):
        assert len(list(order.needed(number, 0, 8, ahead=0))) <= 8 * 2


def test_what_comes_soon_reaches_into_the_next_epoch():
    order = Sharded(np.repeat(np.arange(10), 8), 8, 0, 4, 5)
    last = len(order) - 1
    soon = set(order.needed(last, 0, 8, ahead=4))
    following = {int(sample) // 8 for sample in order.batch(last + 1, 0, 8)}
    assert following <= soon


def test_samples_of_different_shards_meet_in_a_batch():
    order = Sharded(np.repeat(np.arange(32), 40), 16, 0, 16, 40)
    met = [len({int(sample) // 40 for sample in order.batch(number, 0, 16)}) for number in range(len(order))]
    assert np.mean(met) > 12


def test_errors_tell_the_fix():
    with pytest.raises(ValueError, match="There are 5 lanes for batch_size=16, expected a divisor or a multiple"):
        make(lanes=5)
    with pytest.raises(ValueError, match="buffer is 0, expected at least 1"):
        make(buffer=0)
    with pytest.raises(ValueError, match="There are 370 training windows, fewer than batch_size=400"):
        make(batch_size=400, lanes=4)
    assert Shuffled(10, 2, 0).facts() == {"samples": 10, "batch_size": 2, "seed": 0}
    assert make().facts() == {"samples": 370, "batch_size": 16, "seed": 3, "lanes": 4, "buffer": 10, "shards": 8}
