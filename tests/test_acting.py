"""Ways to act with one checkpoint, from the command line: the planner with its options, and video first as UniPi."""

from __future__ import annotations

import json

import numpy as np
import pytest
from fitted_models import fitted
from PIL import Image
from untrained import written

from uva_lightning.envs.pusht_draw import draw
from uva_lightning.envs.pusht_world import GOAL
from uva_lightning.model.checkpoint import build
from uva_lightning.policy.unipi import UniPi
from uva_lightning.policy.windows import WindowPolicy

CONFIG = """
data: {class_path: PushT, init_args: {path: nowhere, window: {frames: 2}}}
model:
  tokenizer: {class_path: LinearPatches, init_args: {channels: 8}}
  objectives: {policy: RobotPolicy, video: VideoModel, forward: ForwardDynamics, inverse: InverseDynamics}
  transformer: {class_path: LatentTransformer, init_args: {width: 32, heads: 2, encoder_depth: 1, decoder_depth: 1}}
  heads:
    video:
      class_path: VideoHead
      init_args: {steps: 1, denoiser: {class_path: FlowMatching, init_args: {width: 16, depth: 1}}}
    action:
      class_path: ActionHead
      init_args: {steps: 1, aggregator: ConvFC, denoiser: {class_path: FlowMatching, init_args: {width: 16, depth: 1}}}
"""


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory, tiny_data):
    """Write a checkpoint of a model with random weights into a run folder."""
    module = fitted(tiny_data(), lambda spec: build(CONFIG)[0])
    return written(module, CONFIG, tmp_path_factory.mktemp("run") / "checkpoints/last.ckpt")


@pytest.fixture(scope="module")
def goal(tmp_path_factory):
    path = tmp_path_factory.mktemp("goal") / "goal.png"
    Image.fromarray(draw((60.0, 450.0), GOAL, GOAL, 96)).save(path)
    return path


def named(options):
    return [word for name, value in options.items() for word in (f"--actor{name}", value)]


SEARCH = {".proposals": "CrossEntropy", ".proposals.count": 2, ".proposals.elites": 2, ".proposals.rounds": 1}
ACTORS = {
    "search towards a picture": {"": "Planner", **SEARCH, ".reward": "PixelGoal", ".reward.picture": ""},
    "simulator": {
        "": "Planner",
        ".proposals": "PathIntegral",
        ".proposals.start": "OwnSamples",
        ".proposals.start.count": 2,
        ".proposals.count": 1,
        ".imagination": "Simulator",
        ".reward": "TrueReward",
    },
    "goal of the environment": {
        "": "Planner",
        ".proposals": 2,
        ".imagination": "ForwardModel",
        ".imagination.iterations": 2,
    },
    "another checkpoint": {"": "Planner", ".proposals": "FromCheckpoint", ".proposals.ckpt": "", ".proposals.count": 2},
    "video first": {"": "UniPi", ".iterations": 2},
}


@pytest.mark.slow
@pytest.mark.parametrize("name", ACTORS)
def test_an_actor_is_chosen_on_the_command_line(checkpoint, goal, uva, tmp_path, name):
    files = {".proposals.ckpt": checkpoint, ".reward.picture": goal}
    options = {key: files.get(key, value) for key, value in ACTORS[name].items()}
    common = ("--episodes", 1, "--videos", 0, "--device", "cpu", "--execute", 16)
    status, out, complaint = uva("rollout", "--ckpt", checkpoint, "--out", tmp_path, *common, *named(options))
    assert status == 0, complaint
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["episodes"][0]["steps"] == 300
    assert f"score {results['score']:.3f}" in out


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"": "Planner", ".proposals": "CrossEntropy", ".proposals.elites": 1}, "elites is 1, expected at least 2"),
        ({"": "Planner", ".reward": "PixelGoal", ".reward.picture": "lost.png"}, "There is no picture lost.png"),
        ({"": "UniPy"}, "UniPi"),
    ],
)
def test_a_mistake_is_one_sentence(checkpoint, capsys, options, words):
    from uva_lightning.cli import main

    try:
        status = main(["rollout", "--ckpt", str(checkpoint), *map(str, named(options))])
    except SystemExit as end:
        status = end.code
    complaint = capsys.readouterr().err
    assert status == 2
    assert words in complaint
    assert complaint.count("\n") == 1


def test_a_server_says_only_what_to_do(uva):
    status, _, complaint = uva("rollout", "--policy", "ws://127.0.0.1:1", "--actor", "UniPi")
    assert status == 2
    assert "actor is given with policy" in complaint


def test_video_first_is_the_video_model_and_then_inverse_dynamics(checkpoint):
    model = WindowPolicy.from_checkpoint(checkpoint, seed=3)
    rng = np.random.default_rng(0)
    video = {"top": rng.integers(0, 256, (2, 2, 96, 96, 3), dtype=np.uint8)}
    seen = {"video": video, "state": {"agent": rng.uniform(0, 512, (2, 2, 2)).astype(np.float32)}}
    actor = UniPi(model, iterations=4)
    actor.reset(5)
    made = actor.act(seen)
    same = {**seen, "episode": {"seed": [0, 1], "call": [1, 1]}}
    model.reset(5)
    assert made == pytest.approx(model.explain(same, model.imagine(same, None, 4)), abs=1e-3)
    assert made.shape == (2, 16, 2)
    assert not np.allclose(made, model.act(same), atol=1.0)
