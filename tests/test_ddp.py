"""Two processes train one model."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

TRAIN = """
import sys
from uva_lightning.cli import main
if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
"""
CONFIG = """
model:
  tokenizer: {class_path: LinearPatches, init_args: {channels: 8}}
  transformer: {class_path: LatentTransformer, init_args: {width: 32, heads: 2, encoder_depth: 1, decoder_depth: 1}}
  objectives: {policy: RobotPolicy, video: VideoModel}
  heads:
    video: {class_path: VideoHead, init_args: {denoiser: {class_path: FlowMatching, init_args: {width: 32, depth: 1}}}}
    action:
      class_path: ActionHead
      init_args: {aggregator: ConvFC, denoiser: {class_path: FlowMatching, init_args: {width: 32, depth: 1}}}
data: {class_path: PushT, init_args: {window: {frames: 2}, batch_size: 8, val_ratio: 0.2}}
trainer:
  accelerator: cpu
  devices: 2
  strategy: ddp
  max_steps: 3
  limit_val_batches: 0
  enable_progress_bar: false
"""


def fit(tmp_path, path, *options, config=CONFIG):
    text, config = config, tmp_path / "two.yaml"
    config.write_text(text)
    script = tmp_path / "train.py"
    script.write_text(TRAIN)
    where = [] if path is None else [f"--data.path={path}"]
    command = [sys.executable, str(script), "fit", "--config", str(config), *where, *options]
    command += [f"--trainer.default_root_dir={tmp_path}"]
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parent / "support")}
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=300, check=False)


@pytest.mark.slow
def test_two_processes_train_one_model(tmp_path, tiny_data):
    result = fit(tmp_path, tiny_data.path)
    assert result.returncode == 0, result.stderr[-2000:]
    (checkpoint,) = tmp_path.glob("**/*.ckpt")
    state = torch.load(checkpoint, weights_only=True)
    assert state["global_step"] == 3
    assert all(value.isfinite().all() for value in state["state_dict"].values())


MIXTURE = """
  class_path: Mixture
  init_args:
    sets:
      near: {class_path: PushT, init_args: {path: PATH, window: {frames: 2}, val_ratio: 0.2}}
      far: {class_path: PushT, init_args: {path: PATH, window: {frames: 2, every: 2}, val_ratio: 0.2, reading: READING}}
    weights: {near: 3, far: 1}
    batch_size: 16
"""


@pytest.mark.slow
def test_two_processes_train_on_a_mixture_in_the_same_shares(tmp_path, tiny_data):
    data = MIXTURE.replace("PATH", str(tiny_data.path)).replace("READING", "{episodes: 4}")
    plain = next(line for line in CONFIG.splitlines() if line.startswith("data:"))
    result = fit(tmp_path, None, config=CONFIG.replace(plain, f"data:{data}"))
    assert result.returncode == 0, result.stderr[-2000:]
    shares = "near 75.0%, far 25.0%"
    assert f"Samples trained on by step 3, rank 0: {shares}; rank 1: {shares}." in result.stdout + result.stderr
    (checkpoint,) = tmp_path.glob("**/*.ckpt")
    assert {key.split("/")[0] for key in torch.load(checkpoint, weights_only=True)["fitted"]["actions"]} == {
        "near",
        "far",
    }


SUITE = """
  logger: {class_path: CSVLogger, init_args: {save_dir: SAVE, name: run, version: ''}}
  callbacks:
    - class_path: watched_suite.WatchedSuite
      init_args: {fails: FAILS, suite: '{class_path: short_suites.UnequalSuite, init_args: {seed: 7}}', workers: 1}
    - {class_path: ModelCheckpoint, init_args: {monitor: rollout/score}}
"""


@pytest.mark.slow
def test_two_processes_share_the_episodes_of_a_suite(tmp_path, tiny_data):
    for package in ("gymnasium", "pymunk", "shapely", "cv2", "av"):
        pytest.importorskip(package)
    played = CONFIG.replace("limit_val_batches: 0", "limit_val_batches: 1\n  check_val_every_n_epoch: 1")
    played = played.replace("max_steps: 3", "max_steps: 1\n  val_check_interval: 1")
    played += SUITE
    found = {}
    for devices in (1, 2):
        folder = tmp_path / str(devices)
        folder.mkdir()
        config = played.replace("SAVE", str(folder)).replace("FAILS", "false")
        result = fit(folder, tiny_data.path, f"--trainer.devices={devices}", config=config)
        assert result.returncode == 0, result.stderr[-2000:]
        (table,) = folder.glob("run/metrics.csv")
        with table.open() as file:
            rows = list(csv.DictReader(file))
        found[devices] = {name: float(x) for row in rows for name, x in row.items() if x and "rollout/" in name}
        films = {path.name for path in folder.glob("run/rollouts/*/*.mp4")}
        assert films == {"one_7.mp4", "two_8.mp4", "three_10.mp4"}
    seeds = [json.loads((tmp_path / f"2/seeds_{rank}.json").read_text()) for rank in (0, 1)]
    assert seeds == [[7, 8, 9], [10, 11, 12]]
    assert len({found[1][f"rollout/{name}/score"] for name in ("one", "two", "three")}) == 3
    assert found[1] == pytest.approx(found[2], rel=1e-3)
    result = fit(tmp_path, tiny_data.path, config=played.replace("SAVE", str(tmp_path)).replace("FAILS", "true"))
    assert result.returncode != 0
    assert "there is no simulator here" in result.stderr
