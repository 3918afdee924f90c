"""The quickstart's own model, trained for a moment: all it can do, in process and over the network, and distilled."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
import yaml

from uva_lightning.envs import goal_score
from uva_lightning.policy.policy import UVAPolicy
from uva_lightning.serving.client import PolicyClient
from uva_lightning.serving.policy import PolicyService
from uva_lightning.serving.server import ServerOptions, running

pytestmark = pytest.mark.slow
STEPS, EVERY = 3, 8


@pytest.fixture(scope="module")
def checkpoint(tiny_data, tmp_path_factory):
    """Train what configs/quickstart.yaml says, for a few steps, on episodes of noise."""
    from uva_lightning.cli import main

    folder = tmp_path_factory.mktemp("quickstart")
    saving = {"dirpath": str(folder), "save_last": True, "every_n_train_steps": STEPS}
    callbacks = ["EMA", {"class_path": "ModelCheckpoint", "init_args": saving}]
    trainer = {"max_steps": STEPS, "callbacks": callbacks, "logger": False, "default_root_dir": str(folder)}
    (folder / "short.yaml").write_text(yaml.safe_dump({"trainer": {"accelerator": "cpu", "devices": 1, **trainer}}))
    options = (f"--data.path={tiny_data.path}", "--data.batch_size=10", "--data.val_ratio=0.2")
    assert main(["fit", "--config", "quickstart", "--config", str(folder / "short.yaml"), *options]) == 0
    return folder / "last.ckpt"


@pytest.fixture(scope="module")
def served(checkpoint):
    policy = UVAPolicy.from_checkpoint(checkpoint, dtype=torch.float32, every=EVERY)
    with running(PolicyService(policy, reward=goal_score("pusht")), ServerOptions(port=0)) as server:
        yield f"ws://127.0.0.1:{server.port}"


def observation(number):
    rng = np.random.default_rng(number)
    return rng.integers(0, 256, (96, 96, 3), dtype=np.uint8), rng.uniform(100, 400, 2).astype(np.float32)


ACTIONS = np.random.default_rng(9).uniform(100, 400, (16, 2)).astype(np.float32)
FUTURE = {"top": np.random.default_rng(8).integers(0, 256, (2, 96, 96, 3), dtype=np.uint8)}
FUNCTIONS = {
    "policy": ({}, lambda policy, seen: policy.act(seen).actions),
    "imagine": ({"iterations": 8}, lambda policy, seen: policy.imagine(seen)["top"]),
    "predict_next": (
        {"actions": ACTIONS, "iterations": 4},
        lambda policy, seen: policy.predict_next(seen, ACTIONS, 4)["top"],
    ),
    "explain": ({"frames": FUTURE}, lambda policy, seen: policy.explain(FUTURE, seen).actions),
    "plan": ({"proposals": 3}, lambda policy, seen: policy.plan(seen, 3, goal_score("pusht")).actions),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_each_function_gives_the_same_in_process_and_through_the_server(checkpoint, served, name):
    options, ask = FUNCTIONS[name]
    local = UVAPolicy.from_checkpoint(checkpoint, dtype=torch.float32, every=EVERY)
    local.reset(seed=5)
    with PolicyClient(served) as client:
        client.reset(seed=5)
        for number in range(3):  # by the third one the history is full
            picture, agent = observation(number)
            reply = client.infer({"function": name, "video/top": picture, "state/agent": agent, **options})
            theirs = reply["frames"]["top"] if "frames" in reply else reply["actions"]
            ours = ask(local, {"video": {"top": picture}, "state": {"agent": agent}})
            assert (theirs.shape, theirs.dtype) == (ours.shape, ours.dtype)
            if ours.dtype == np.uint8:
                assert np.abs(ours.astype(int) - theirs).max() <= 1
                assert ours.shape == (2, 96, 96, 3)
            else:
                assert theirs == pytest.approx(ours, abs=0.05)
                assert ours.shape == (16, 2)


def test_a_distilled_head_is_rolled_out_as_any_other(checkpoint, uva, tmp_path):
    out = tmp_path / "one_step"
    options = ("--steps", 2, "--teacher_steps", 2, "--batch_size", 4)
    assert uva("distill", "--ckpt", checkpoint, "--out", out, *options)[0] == 0
    acting = ("--episodes", 1, "--videos", 0, "--execute", 16, "--device", "cpu")
    status, said, complaint = uva("rollout", "--ckpt", out / "distilled.ckpt", *acting)
    assert status == 0, complaint
    results = json.loads((out / "rollouts/distilled_pusht/results.json").read_text())
    assert results["episodes"][0]["steps"] == 300
    assert f"score {results['score']:.3f}" in said
