"""A step of three objectives with losses by hand, for tests of balancers."""

from __future__ import annotations

import torch

from uva_lightning.balance import Term
from uva_lightning.objectives.inverse_dynamics import InverseDynamics
from uva_lightning.objectives.policy_planner import PolicyPlanner
from uva_lightning.objectives.video_model import VideoModel
from uva_lightning.sampler import Plan

KEYS = [("video", "video"), ("joint", "video"), ("joint", "action"), ("inverse", "action")]
ROWS = {"video": slice(0, 1), "joint": slice(1, 4), "inverse": slice(4, 8)}
SIZES = (1.0, 3.0, 0.2, 5.0)
"""Of the terms in ``on``."""


def objectives(weight=1.0):
    return {"video": VideoModel(), "joint": PolicyPlanner(weight=weight), "inverse": InverseDynamics()}


def plan(weight=1.0, **share):
    """1, 3 and 4 of 8 samples; ``share`` says otherwise."""
    return Plan(torch.arange(8), ROWS, objectives(weight), {"video": 1 / 8, "joint": 3 / 8, "inverse": 4 / 8} | share)


def terms(*values):
    losses = [torch.tensor(float(value), requires_grad=True) for value in values]
    return {key: Term(loss, loss.detach()) for key, loss in zip(KEYS, losses, strict=True)}


def latent(seed=0):
    """Z of 8 samples, [8, 2, 3, 4]."""
    rng = torch.Generator().manual_seed(seed)
    return torch.randn(8, 2, 3, 4, generator=rng, requires_grad=True)


def directions():
    """One for each term, [4, 2 * 3 * 4]; the second and the third are opposed."""
    rng = torch.Generator().manual_seed(1)
    made = torch.randn(4, 24, generator=rng)
    made[2] = 0.3 * made[2] - made[1]
    return made


def on(z, size=1.0, dtype=torch.float32):
    """Terms that are means over their rows of products with a direction; linear, so that gradients are known."""
    made = {}
    for key, own, direction in zip(KEYS, SIZES, directions(), strict=True):
        rows = z[ROWS[key[0]]].flatten(1).to(dtype)
        loss = size * own * (30 + (rows @ direction.to(dtype)).float()).mean()
        made[key] = Term(loss, loss.detach())
    return made


def factors(balancer, step_plan, step_terms, z=None):
    """Factors of a step, as numbers."""
    given = balancer.factors(step_plan, step_terms, latent() if z is None else z)
    return {key: torch.as_tensor(value).item() for key, value in given.items()}
