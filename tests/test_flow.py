"""Flow matching: targets that are known, temperature, steps."""

from __future__ import annotations

import pytest
import torch
from shaken import shake
from torch import nn

from uva_lightning.model.heads.consistency import Consistency
from uva_lightning.model.heads.flow import FlowMatching
from uva_lightning.model.heads.network import SteppedNetwork


def flow(channels=3, condition=4, **options):
    return FlowMatching(channels, condition, **{"width": 8, "depth": 1, **options})


@pytest.mark.parametrize("steps", ["dpm10", "ddim20", "10,15,25"])
def test_what_knows_no_spacings_says_who_does(steps):
    for process in (flow(), Consistency(3, 4, width=8, depth=1)):
        words = (
            f"steps is '{steps}', a spacing for a diffusion head; this head uses {type(process).__name__}, expected a "
            "whole number from 1 on; give a number such as 10."
        )
        with pytest.raises(ValueError, match=words):
            process.check(steps)
        with pytest.raises(ValueError, match=words):
            process.sample(torch.zeros(1, 4), torch.zeros(1, 3), steps)


def test_flow_learns_two_points():
    torch.manual_seed(0)
    process = FlowMatching(1, 1, width=64, depth=2)
    optimizer = torch.optim.Adam(process.parameters(), lr=3e-3)
    condition = torch.zeros(256, 1)
    for _ in range(400):
        target = torch.where(torch.rand(256, 1) < 0.25, 1.0, -1.0)
        optimizer.zero_grad()
        process.loss(target, condition, process.noising(torch.randn(256, 1, 2))).mean().backward()
        optimizer.step()
    with torch.no_grad():
        samples = process.sample(torch.zeros(2000, 1), torch.randn(2000, 1), 20)
        mean = process.sample(torch.zeros(1, 1), torch.zeros(1, 1), 20)
    assert ((samples.abs() - 1).abs() < 0.25).float().mean() > 0.9
    assert (samples > 0).float().mean() == pytest.approx(0.25, abs=0.06)
    assert (mean + 1).abs() < 0.25, "temperature 0 gives the likelier point"


def test_flow_at_temperature_zero_ignores_the_noise():
    process, condition = shake(flow()), torch.randn(2, 4)
    one, other = (process.sample(condition, torch.randn(2, 3), 4, 0.0) for _ in range(2))
    assert one.equal(other)


def test_flow_in_many_steps_follows_the_velocity():
    """A network that knows the answer: the velocity at x, t towards the target 2 is (x - 2) / t."""
    process = flow(1)

    class Known(SteppedNetwork):
        condition = nn.Identity()

        def forward(self, x, time, condition):
            return (x - 2.0) / (time[:, None] / 1000)

    process.net = Known()
    for steps in (1, 5):
        assert process.sample(torch.zeros(3, 4), torch.randn(3, 1), steps) == pytest.approx(2.0, abs=1e-4)
