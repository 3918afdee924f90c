"""Small runs that are stopped and go on, by one process or two; as a script it is one of the two."""

from __future__ import annotations

import json
import os
import sys
from functools import partial
from pathlib import Path

import torch
from kept_groups import keep_groups
from lightning.pytorch import Callback, Trainer

from uva_lightning.balancers.loss_scale import LossScale
from uva_lightning.callbacks.ema import EMA
from uva_lightning.datamodules.pusht import PushT, PushTMirror
from uva_lightning.datamodules.reading import Reading, Streaming
from uva_lightning.datamodules.windows import Window
from uva_lightning.model.heads.aggregate import ConvFC
from uva_lightning.model.heads.base import ActionHead, VideoHead
from uva_lightning.model.heads.flow import FlowMatching
from uva_lightning.model.tokenizers.linear_patches import LinearPatches
from uva_lightning.model.transformer import LatentTransformer
from uva_lightning.module import UVAModule
from uva_lightning.objectives.forward_dynamics import ForwardDynamics
from uva_lightning.objectives.robot_policy import RobotPolicy
from uva_lightning.objectives.video_model import VideoModel
from uva_lightning.optim import AdamWCosine

STEPS, HALF = 26, 7  # two batches of 8 a step, and 46 batches an epoch: it ends within the second part
SOURCES = {"files": 0, "files in workers": 2, "shards": 0, "shards in workers": 2}


class Losses(Callback):
    """Keep the loss of every step, over all processes."""

    def __init__(self):
        self.found = {}

    def on_train_batch_end(self, trainer, module, outputs, batch, index):
        self.found[str(trainer.global_step)] = float(trainer.callback_metrics["train/loss"])


def model(spec, dropout):
    torch.manual_seed(0)

    def flow(channels, condition):
        return FlowMatching(channels, condition, width=16, depth=1)

    return UVAModule(
        spec,
        LinearPatches(channels=8),
        {"policy": RobotPolicy(), "video": VideoModel(mask_ratio_min=0.3), "forward": ForwardDynamics()},
        {
            "video": lambda shape: VideoHead(shape, flow),
            "action": lambda shape: ActionHead(shape, flow, ConvFC),
        },
        lambda shapes: LatentTransformer(shapes, 32, 2, 1, 1, dropout=dropout),
        balancer=LossScale(decay=0.5),
        optimizer=AdamWCosine(lr=1e-3, warmup_steps=2, total_steps=40),
    )


def run(folder, source, world, steps, out, resume=None, dropout=0.1):
    """Train up to so many steps and write a checkpoint; gives the loss of each step."""
    shards = source.startswith("shards")
    streaming = Streaming(lanes=8, buffer=16) if shards else None
    data = PushT(
        Path(folder) / ("shards" if shards else "demos"),
        window=Window(2),
        batch_size=8,
        val_ratio=0.2,
        symmetry=PushTMirror(),
        reading=Reading(workers=SOURCES[source], streaming=streaming),
    )
    losses = Losses()
    trainer = Trainer(
        accelerator="cpu",
        devices=world,
        strategy="ddp" if world > 1 else "auto",
        max_steps=steps,
        max_epochs=-1,
        accumulate_grad_batches=2,
        gradient_clip_val=1.0,
        callbacks=[EMA(power=0.5), losses],
        default_root_dir=folder,
        logger=False,
        log_every_n_steps=1,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        limit_val_batches=0,
    )
    trainer.fit(model(data.spec, dropout), data, ckpt_path=resume, weights_only=True)
    trainer.save_checkpoint(out)
    return losses.found


def main(folder, source, dropout=0.1, world=2, other=None):
    """Train in one go, and stop and go on; ``other`` is a checkpoint of another number of processes to go on from."""
    place, go = Path(folder), partial(run, folder, source, world, dropout=dropout)
    name = f"{source}-{world}-{dropout}"
    losses = {
        "whole": go(STEPS, place / f"{name}-whole.ckpt"),
        "begin": go(HALF, place / f"{name}-begin.ckpt"),
        "rest": go(STEPS, place / f"{name}-rest.ckpt", place / f"{name}-begin.ckpt"),
    }
    if other is not None:
        losses["other"] = go(STEPS, place / f"{name}-other.ckpt", other)
    return losses


if __name__ == "__main__":
    keep_groups()
    torch.set_num_threads(1)
    results = {source: main(sys.argv[1], source) for source in sys.argv[2:]}
    for source in ("files", "shards"):
        begun = Path(sys.argv[1]) / f"{source}-1-0.0-begin.ckpt"
        results[f"{source} of one"] = main(sys.argv[1], source, 0.0, other=begun)
    (Path(sys.argv[1]) / f"rank{os.environ['LOCAL_RANK']}.json").write_text(json.dumps(results))
