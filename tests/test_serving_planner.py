"""A planner whose proposals come from a policy server."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from fitted_models import fitted

from uva_lightning.policy.planner import Planner
from uva_lightning.policy.policy import UVAPolicy
from uva_lightning.policy.proposals import FromServer, OneShot, plain
from uva_lightning.policy.windows import WindowPolicy
from uva_lightning.rollouts import run_rollouts
from uva_lightning.serving.policy import PolicyService
from uva_lightning.serving.server import ServerOptions, running

FREE, SEEDS, COUNT = ServerOptions(port=0), range(100_000, 100_002), 3


@pytest.fixture(scope="module")
def module(tiny_data, tiny_module):
    return fitted(tiny_data(), tiny_module)


def last_is_best(past, futures):
    proposals, samples = futures["top"].shape[:2]
    return np.arange(proposals, dtype=np.float64)[:, None].repeat(samples, axis=1)


class Far(FromServer):
    def __init__(self, url):
        super().__init__(url, COUNT)
        self.made = []

    def propose(self, policy, observation):
        self.made.append(super().propose(policy, observation))
        return self.made[-1]


class Near(OneShot):
    """What the server's policy says in process; it numbers its answers from 1."""

    def __init__(self, policy):
        super().__init__(COUNT)
        self.policy, self.made = policy, []

    def propose(self, policy, observation):
        first = COUNT * len(self.made) + 1
        numbered = [{"seed": SEEDS, "call": [call] * len(SEEDS)} for call in range(first, first + COUNT)]
        self.made.append(np.stack([self.policy.act({**plain(observation), "episode": one}) for one in numbered]))
        return self.made[-1]


def test_proposals_of_a_server_are_those_of_its_policy(module):
    """Several chunks per decision differ by their noise alone; the history is right in the second decision too."""

    def play(source):
        planner = Planner(WindowPolicy(module), last_is_best, source)
        run_rollouts(planner, "pusht", module.spec, SEEDS, 8, max_steps=16, progress=False)
        planner.reset(0)
        return np.stack(source.made)

    with running(PolicyService(UVAPolicy(module, torch.float32, seed=7)), FREE) as server:
        far = play(Far(f"ws://127.0.0.1:{server.port}"))
    assert far.shape == (2, COUNT, 2, 16, 2)
    assert not np.allclose(far[:, 0], far[:, 1], atol=1.0)
    assert far == pytest.approx(play(Near(WindowPolicy(module, 7))), abs=0.05)


def test_a_server_is_asked_in_rollouts_only(module):
    planner = Planner(WindowPolicy(module), last_is_best, FromServer("ws://127.0.0.1:1"))
    seen = {"video": {"top": np.zeros((1, 2, 96, 96, 3), np.uint8)}, "state": {"agent": np.zeros((1, 2, 2))}}
    with pytest.raises(ValueError, match="can be asked in rollouts only"):
        planner.act(seen)
