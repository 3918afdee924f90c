"""Two processes train one model."""

import subprocess
import sys

import pytest
import torch

TRAIN = "import sys; from uva_lightning.cli import main; sys.exit(main(sys.argv[1:]))"
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


def fit(tmp_path, path, *options):
    config = tmp_path / "two.yaml"
    config.write_text(CONFIG)
    script = tmp_path / "train.py"
    script.write_text(TRAIN)
    command = [sys.executable, str(script), "fit", "--config", str(config), f"--data.path={path}", *options]
    return subprocess.run(
        [*command, f"--trainer.default_root_dir={tmp_path}"], capture_output=True, text=True, timeout=300, check=False
    )


@pytest.mark.slow
def test_two_processes_train_one_model(tmp_path, tiny_data):
    result = fit(tmp_path, tiny_data.path)
    assert result.returncode == 0, result.stderr[-2000:]
    (checkpoint,) = tmp_path.glob("**/*.ckpt")
    state = torch.load(checkpoint, weights_only=True)
    assert state["global_step"] == 3
    assert all(value.isfinite().all() for value in state["state_dict"].values())


@pytest.mark.slow
def test_one_objective_per_batch_needs_a_search_for_unused_parameters(tmp_path, tiny_data):
    sampler = "--model.sampler=OneObjectivePerBatch"
    refused = fit(tmp_path, tiny_data.path, sampler)
    assert refused.returncode != 0
    assert "ddp_find_unused_parameters_true" in refused.stderr
    accepted = fit(tmp_path, tiny_data.path, sampler, "--trainer.strategy=ddp_find_unused_parameters_true")
    assert accepted.returncode == 0, accepted.stderr[-2000:]
