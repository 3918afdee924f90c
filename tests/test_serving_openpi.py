"""openpi's own client, unchanged and in an environment of its own, asks our server."""

from __future__ import annotations

import json
import os
import subprocess

import numpy as np
import pytest
import torch

from uva_lightning.model.fitted import fit_together
from uva_lightning.policy.policy import UVAPolicy
from uva_lightning.serving.policy import PolicyService
from uva_lightning.serving.server import ServerOptions, running

PYTHON = os.environ.get("OPENPI_PYTHON", "")
pytestmark = [
    pytest.mark.openpi,
    pytest.mark.skipif(not PYTHON, reason="OPENPI_PYTHON names no Python with openpi-client; run make test-openpi"),
]
ROBOT = """
import json, sys
import numpy as np
from openpi_client.action_chunk_broker import ActionChunkBroker
from openpi_client.websocket_client_policy import WebsocketClientPolicy

port = int(sys.argv[1])
policy = WebsocketClientPolicy("127.0.0.1", port, api_key="secret")
seen = {
    "observation/image": np.arange(96 * 96 * 3, dtype=np.uint8).reshape(96, 96, 3),
    "observation/state": np.array([100.0, 200.0]),
    "prompt": "push the T onto the target",
}
whole = policy.infer(seen)
facts = {
    "functions": policy.get_server_metadata()["functions"],
    "actions": whole["actions"].tolist(),
    "server_timing": sorted(whole["server_timing"]),
    "infer_ms": whole["policy_timing"]["infer_ms"],
}
broker = ActionChunkBroker(policy, action_horizon=4)
facts["one_by_one"] = [broker.infer(seen)["actions"].shape for _ in range(6)]
try:
    policy.infer({"observation/image": seen["observation/image"]})
except RuntimeError as error:
    facts["refused"] = str(error)
facts["again"] = policy.infer(seen)["actions"].shape
policy.infer({"function": "reset"})
try:
    WebsocketClientPolicy("127.0.0.1", port)
except Exception as error:
    facts["without_token"] = str(error)
print(json.dumps(facts))
"""


@pytest.fixture(scope="module")
def policy(tiny_data, tiny_module):
    data = tiny_data()
    data.setup("fit")
    module = tiny_module(data.spec)
    module.tokenizer.fit(data.training_frames())
    fit_together([module.actions, module.proprioception], data.training_numbers())
    return UVAPolicy(module.eval(), torch.float32, every=8)


def test_openpi_client_gets_action_chunks(policy):
    keys = {"observation/image": "video/top", "observation/state": ["state/agent"]}
    with running(PolicyService(policy, keys), ServerOptions(port=0, token="secret")) as server:
        command = [PYTHON, "-c", ROBOT, str(server.port)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout.splitlines()[-1])
    assert "policy" in facts["functions"]
    assert np.isfinite(facts["actions"]).all()
    assert np.shape(facts["actions"]) == (16, 2)
    assert {"infer_ms", "prev_total_ms"} <= set(facts["server_timing"])
    assert facts["infer_ms"] > 0
    assert facts["one_by_one"] == [[2]] * 6
    assert "lacks 'state/agent'" in facts["refused"]
    assert facts["again"] == [16, 2]
    assert "401" in facts["without_token"]
