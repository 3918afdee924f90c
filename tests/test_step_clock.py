"""Parts of a step: they are all of its time, and the arithmetic of each is what a formula gives."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from uva_lightning.model.transformer import Block
from uva_lightning.step_clock import PARTS, Mark, StepClock, ordered


class Stream:
    """A device that is behind: its marks lie one second apart, and only the first ``done`` of them are reached."""

    def __init__(self):
        self.made = self.done = 0

    def mark(self):
        stream = self

        class Behind(Mark):
            def __init__(self):
                self.number = stream.made
                stream.made += 1

            def reached(self):
                return self.number < stream.done

            def wait(self):
                stream.done = max(stream.done, self.number + 1)

            def until(self, later):
                assert self.reached()
                assert later.reached()
                return float(later.number - self.number)

        return Behind()


def test_parts_are_all_of_the_time_on_a_device_that_is_behind():
    stream = Stream()
    clock = StepClock(torch.device("cpu"), stream.mark)
    clock.switch("data")
    clock.switch("other")
    with clock.during("trunk"), clock.during("heads"):  # 5 marks: in, in, out, out
        pass
    clock.switch("optimizer")
    assert stream.done == 0  # nothing has waited
    seconds = clock.lap()
    assert seconds == {"data": 1, "other": 2, "trunk": 2, "heads": 1, "optimizer": 1}
    assert sum(seconds.values()) == stream.made - 1
    clock.switch("data")
    assert clock.lap() == {"optimizer": 1, "data": 1}  # the present part goes on in the next lap


def test_reached_marks_are_not_kept():
    stream = Stream()
    clock = StepClock(torch.device("cpu"), stream.mark)
    for step in range(50):
        clock.switch("data" if step % 2 else "other")
        stream.done = stream.made - 3
    assert len(clock._marks) < 6
    assert sum(clock.lap().values()) == 50


def test_a_pause_does_not_count():
    stream = Stream()
    clock = StepClock(torch.device("cpu"), stream.mark)
    with clock.during("trunk"):  # before the start nothing counts
        assert clock.paused
    clock.switch("data")
    clock.pause()
    with clock.during("trunk"):
        assert clock.paused
    clock.switch("data")
    assert clock.lap() == {"data": 2}


def test_the_part_ends_where_its_call_fails():
    clock = StepClock(torch.device("cpu"))
    clock.switch("other")
    with pytest.raises(RuntimeError), clock.during("trunk"):
        raise RuntimeError
    assert clock.part == "other"


def test_parts_come_in_the_order_of_a_step():
    assert list(ordered({"other": 1.0, "data": 2.0, "heads": 3.0})) == ["data", "heads", "other"]
    assert set(ordered(dict.fromkeys(PARTS, 0.0))) == set(PARTS)


def counted(work):
    clock = StepClock(torch.device("cpu"))
    clock.switch("other")
    clock.flops.begin()
    work(clock)
    return clock.flops.end(clock.part)


def test_flops_of_a_network_follow_the_formula():
    first, second = nn.Linear(12, 7), nn.Linear(7, 3)

    def work(clock):
        with clock.during("trunk"):
            hidden = first(torch.randn(5, 12))
        with clock.during("heads"):
            loss = second(hidden).sum()
        clock.switch("heads_backward")
        loss.backward()

    # backward: the gradient of each weight, and that of the hidden vectors, but not that of the input
    assert counted(work) == {
        "trunk": 2 * 5 * 12 * 7,
        "heads": 2 * 5 * 7 * 3,
        "heads_backward": 2 * (2 * 5 * 7 * 3) + 2 * 5 * 12 * 7,
    }


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_flops_of_a_block_follow_the_formula_with_every_kernel_of_attention(dtype, dropout):
    batch, tokens, width = 3, 20, 16
    block, x = Block(width, 2, 4.0, dropout, nn.GELU).to(dtype), torch.randn(batch, tokens, width, dtype=dtype)
    x.requires_grad_()

    def work(clock):
        with clock.during("trunk"):
            y = block(x)
        clock.switch("trunk_backward")
        y.sum().backward()

    forward = batch * (2 * tokens * 12 * width**2 + 4 * tokens**2 * width)
    assert counted(work) == {"trunk": forward, "trunk_backward": 2 * forward}


def test_counting_ends():
    clock = StepClock(torch.device("cpu"))
    clock.flops.begin()
    assert clock.flops.counting
    clock.flops.end("other")
    assert not clock.flops.counting
    assert clock.flops.end("other") == {}
