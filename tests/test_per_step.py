"""Errors by step: by hand, in parts, and over two processes."""

import datetime

import pytest
import torch
from torch import distributed, multiprocessing

from uva_lightning.metrics.fvd import FrechetVideoDistance, RandomVideoFeatures
from uva_lightning.metrics.intervals import bootstrap_mean
from uva_lightning.metrics.outcomes import Score, SuccessRate
from uva_lightning.metrics.per_step import ActionError
from uva_lightning.metrics.planning_gain import PlanningGain
from uva_lightning.metrics.pose_error import PositionError, RotationError
from uva_lightning.metrics.video_quality import PSNR, SSIM

REAL = torch.zeros(2, 3, 2)
PREDICTED = torch.tensor([[[3.0, -4.0], [0.0, 1.0], [0.0, 0.0]], [[6.0, 8.0], [1.0, 1.0], [0.0, 2.0]]])


def test_action_error_by_hand():
    metric = ActionError()
    for row in (slice(0, 1), slice(1, 2)):
        metric.update(PREDICTED[row], REAL[row])
    found = metric.compute()
    assert found["n"] == 2
    assert found["per_step"] == pytest.approx([7.5, (1 + 2**0.5) / 2, 1.0])
    assert found["mean"] == pytest.approx((5 + 1 + 10 + 2**0.5 + 2) / 6)
    assert found["interval"] == pytest.approx(bootstrap_mean([2.0, (12 + 2**0.5) / 3]))
    assert found["per_step_intervals"][2] == pytest.approx(bootstrap_mean([0.0, 2.0]))
    sums = ActionError(order=1)
    sums.update(PREDICTED, REAL)
    assert sums.compute()["per_step"] == pytest.approx([10.5, 1.5, 1.0])


def test_what_cannot_be_compared_is_refused():
    metric = ActionError()
    with pytest.raises(ValueError, match=r"shape \(2, 3, 2\), what is real \(2, 2, 2\)"):
        metric.update(PREDICTED, REAL[:, :2])
    metric.update(PREDICTED, REAL)
    with pytest.raises(ValueError, match="have 2 steps, expected 3"):
        metric.update(PREDICTED[:, :2], REAL[:, :2])
    with pytest.raises(ValueError, match="order is 3"):
        ActionError(order=3)
    metric.update(PREDICTED * float("nan"), REAL)
    with pytest.raises(ValueError, match="2 of 4 samples are finite"):
        metric.compute()


def cases():
    """Every metric of this package that gathers over processes, with seven samples for each."""
    rng = torch.Generator().manual_seed(0)
    actions, other = torch.randn(2, 7, 4, 10, generator=rng)
    frames, others = torch.randint(0, 256, (2, 7, 2, 16, 16, 3), generator=rng, dtype=torch.uint8)
    scores = torch.rand(3, 7, generator=rng)
    return {
        "action": (ActionError(), (actions, other)),
        "position": (PositionError(), (actions, other)),
        "rotation": (RotationError(), (actions, other)),
        "psnr": (PSNR(), (frames, others)),
        "ssim": (SSIM(), (frames, others)),
        "fvd": (FrechetVideoDistance(RandomVideoFeatures(4)), (frames[:4], others[:4])),
        "planning": (PlanningGain(), tuple(scores)),
        "success": (SuccessRate(), (scores[0] > 0.5,)),
        "score": (Score(), (scores[0],)),
    }


def plain(found):
    return {"value": float(found)} if isinstance(found, torch.Tensor) else found


def same(found, expected):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        if name == "per_step_intervals":
            assert found[name] == [pytest.approx(interval) for interval in value]
        else:
            assert found[name] == pytest.approx(value), name


@pytest.mark.parametrize("name", cases())
def test_halves_merge_to_the_whole(name):
    (whole, tensors), (one, _), (other, _) = (cases()[name] for _ in range(3))
    whole.update(*tensors)
    one.update(*(values[:3] for values in tensors))
    other.update(*(values[3:] for values in tensors))
    other.merge_state(one)  # what is merged comes first
    same(plain(other.compute()), plain(whole.compute()))


def process(rank, place, found):
    """Measure the samples of one of two processes; for ``last`` the second one has none."""
    wait = datetime.timedelta(seconds=60)
    distributed.init_process_group("gloo", f"file://{place}", rank=rank, world_size=2, timeout=wait)
    rows = {False: (slice(0, 3), slice(3, 7)), True: (slice(0, 7), slice(0, 0))}
    for empty, parts in rows.items():
        for name, (metric, tensors) in cases().items():
            if not (empty and rank):
                metric.update(*(values[parts[rank]] for values in tensors))
            found.put((rank, empty, name, plain(metric.compute())))
    distributed.destroy_process_group()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The ``compute`` method")
def test_two_processes_equal_one(tmp_path):
    """Also where one of them has no samples."""
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    workers = [context.Process(target=process, args=(rank, tmp_path / "store", queue)) for rank in range(2)]
    for worker in workers:
        worker.start()
    expected = cases()
    for _ in range(2 * 2 * len(expected)):
        _, _, name, found = queue.get(timeout=120)
        metric, tensors = cases()[name]
        metric.update(*tensors)
        same(found, plain(metric.compute()))
    for worker in workers:
        worker.join(60)
        assert worker.exitcode == 0
