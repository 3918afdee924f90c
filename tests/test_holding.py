"""Samples that continue what is given: real-time chunking in the denoiser, the head and the policy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from uva_lightning.model.heads.diffusion import GaussianDiffusion
from uva_lightning.model.heads.flow import FlowMatching
from uva_lightning.model.heads.holding import Held, HeldRows
from uva_lightning.policy.committed import Committed, Rest, soft_mask

STEPS, ROWS = 4, 64


@pytest.fixture(scope="module")
def either_way():
    """A flow that knows two chunks of 4 steps: all at +1, or all at -1."""
    torch.manual_seed(0)
    flow = FlowMatching(STEPS, 2, width=32, depth=1)
    optimizer = torch.optim.AdamW(flow.parameters(), lr=3e-3)
    for _ in range(400):
        sign = 2.0 * torch.randint(2, (128, 1)) - 1
        target, at = (
            sign.expand(-1, STEPS) + 0.05 * torch.randn(128, STEPS),
            flow.noising(torch.randn(128, 1, STEPS + 1)),
        )
        loss = flow.loss(target, torch.zeros(128, 2), at).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return flow.eval()


def held(weight, target=1.0, strength=5.0):
    return HeldRows(torch.full((ROWS, STEPS), target), torch.tensor(weight).expand(ROWS, STEPS), strength)


def drawn(seed=1):
    return torch.randn(ROWS, STEPS, generator=torch.Generator().manual_seed(seed))


def test_nothing_held_changes_nothing(either_way):
    with torch.inference_mode():
        free = either_way.sample(torch.zeros(ROWS, 2), drawn(), 10)
        same = either_way.continued(torch.zeros(ROWS, 2), drawn(), 10, held([0.0] * STEPS))
    torch.testing.assert_close(same, free, rtol=1e-4, atol=1e-5)
    assert 0.25 < (free.mean(dim=1) > 0).float().mean() < 0.75


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_what_is_kept_is_kept_exactly_and_the_rest_goes_along(either_way, sign):
    with torch.inference_mode():
        made = either_way.continued(torch.zeros(ROWS, 2), drawn(), 10, held([1.0, 0.6, 0.3, 0.0], sign))
    assert (made[:, 0] == sign).all()
    assert (sign * made[:, -1] > 0.5).float().mean() > 0.9  # without guidance a half: nothing holds the last one


def test_a_soft_weight_pulls_and_does_not_keep(either_way):
    with torch.inference_mode():
        made = either_way.continued(torch.zeros(ROWS, 2), drawn(), 10, held([0.5, 0.0, 0.0, 0.0]))
        free = either_way.sample(torch.zeros(ROWS, 2), drawn(), 10)
    assert not (made[:, 0] == 1).any()
    assert (made[:, -1] > 0).float().mean() > (free[:, -1] > 0).float().mean() + 0.1


def test_diffusion_says_that_it_cannot(either_way):
    with pytest.raises(ValueError, match="GaussianDiffusion cannot continue given actions, expected FlowMatching"):
        GaussianDiffusion(STEPS, 2, width=16, depth=1).continued(torch.zeros(ROWS, 2), drawn(), 10, held([0.0] * STEPS))


def test_rows_are_cut_as_the_noise_is():
    target, weight = torch.arange(12.0).view(2, 3, 2), torch.tensor([[1.0, 0.5, 0.0], [0.0, 0.0, 1.0]])
    by_chunk, by_action = Held(target, weight).rows(2), Held(target, weight).rows(6)
    assert by_chunk.weight.tolist() == [[1, 1, 0.5, 0.5, 0, 0], [0, 0, 0, 0, 1, 1]]
    assert by_action.target.tolist() == target.view(6, 2).tolist()
    assert by_action.weight.tolist() == [[1, 1], [0.5, 0.5], [0, 0], [0, 0], [0, 0], [1, 1]]


def test_the_mask_falls_from_what_is_run_to_what_is_unknown():
    mask = soft_mask(8, known=5, delay=2)
    assert mask[:2].tolist() == [1, 1]
    assert mask[5:].tolist() == [0, 0, 0]
    assert 1 > mask[2] > mask[3] > mask[4] > 0
    left = 3 / 4  # Black 2025: (H - s - i) / (H - s - d + 1) for i = d
    assert mask[2] == pytest.approx(left * (np.exp(left) - 1) / (np.e - 1), rel=1e-6)
    assert soft_mask(4, known=4, delay=4).tolist() == [1, 1, 1, 1]
    assert soft_mask(4, known=1, delay=0)[1:].tolist() == [0, 0, 0]


@pytest.mark.parametrize(("known", "delay"), [(0, 0), (5, 1), (3, 4), (3, -1)])
def test_commitments_must_fit_a_chunk(known, delay):
    with pytest.raises(
        ValueError, match=f"{known} actions are committed with a delay of {delay} steps, expected 1 to 4"
    ):
        Committed.of([Rest(np.zeros((known, 2), np.float32), delay)], 4)


def test_commitments_are_laid_at_the_beginning():
    rest = np.arange(4, dtype=np.float32).reshape(2, 2)
    made = Committed.of([Rest(rest, 1)], 4)
    np.testing.assert_array_equal(made.actions[0, :2], rest)
    assert made.weight.shape == (1, 4)
    assert made.weight[0, 0] == 1
    assert made.weight[0, 2:].tolist() == [0, 0]
