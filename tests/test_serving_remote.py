"""Policies behind a server in rollouts: ours and any other of the protocol."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from fitted_models import fitted

from uva_lightning.commands.rollout import RESULTS
from uva_lightning.envs.contract import contract_with
from uva_lightning.policy.policy import UVAPolicy
from uva_lightning.policy.windows import WindowPolicy
from uva_lightning.rollouts import run_rollouts
from uva_lightning.serving.policy import PolicyService
from uva_lightning.serving.remote import RemoteActor
from uva_lightning.serving.server import ServerOptions, running

FREE = ServerOptions(port=0)


@pytest.fixture(scope="module")
def module(tiny_data, tiny_module):
    return fitted(tiny_data(), tiny_module)


def test_a_rollout_by_a_server_is_that_of_the_checkpoint(module):
    seeds = range(100_000, 100_003)
    with running(PolicyService(UVAPolicy(module, torch.float32, seed=seeds[0])), FREE) as server:
        actor = RemoteActor(f"ws://127.0.0.1:{server.port}", 8)
        assert actor.contract == module.spec
        far = run_rollouts(actor, "pusht", module.spec, seeds, 8, max_steps=24, progress=False)
        assert server.batcher.largest >= 2
        actor.reset(0)
    near = run_rollouts(WindowPolicy(module), "pusht", module.spec, seeds, 8, max_steps=24, progress=False)
    np.testing.assert_allclose(
        [episode.score for episode in far.episodes], [episode.score for episode in near.episodes], atol=1e-3
    )


class Centre:
    """A server that is not ours: it knows nothing but its own names, and holds the middle of the plane."""

    def metadata(self):
        return {"model": "pi"}

    def open(self):
        return self

    def prepare(self, message):
        if set(message) != {"observation/image", "observation/state", "prompt"}:
            raise ValueError(f"got {sorted(message)}")
        return message["observation/image"].shape, message["observation/state"].shape, message["prompt"]

    def infer(self, prepared):
        assert set(prepared) == {((96, 96, 3), (2,), "push")}
        return [{"actions": np.full((20, 2), 256, np.float64)} for _ in prepared]

    def close(self):
        pass


def test_any_server_of_the_protocol_can_be_evaluated(uva, tmp_path):
    keys = '{"observation/image": "video/top", "observation/state": ["state/agent"]}'
    with running(Centre(), FREE) as server:
        address = f"ws://127.0.0.1:{server.port}"
        asked = ["rollout", "--policy", address, "--episodes", 2, "--videos", 1, "--out", tmp_path / "out"]
        status, out, complaint = uva(*asked, "--keys", keys, "--prompt", "push")
        assert status == 0, complaint
        assert "score" in out
        status, _, complaint = uva(*asked, "--prompt", "push")
        assert status == 2
        assert "got ['prompt', 'state/agent', 'video/top']" in complaint
    assert address in (tmp_path / "out" / RESULTS).read_text()
    assert contract_with("pusht", 8).horizon == 8
    status, _, complaint = uva("rollout")
    assert (status, "neither of ckpt and policy" in complaint) == (2, True)
    status, _, complaint = uva("rollout", "--policy", address)
    assert (status, "There is no policy server" in complaint) == (2, True)
