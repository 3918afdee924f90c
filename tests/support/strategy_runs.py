"""Train one tiny model under several strategies, precisions and callbacks, one after the other in one process group.

Run as a program, once per process: ``strategy_runs.py FOLDER CASES``, with LOCAL_RANK, WORLD_SIZE and MASTER_PORT set.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import torch
import yaml
from kept_groups import keep_groups
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.plugins import MixedPrecision

from uva_lightning.callbacks.compile import Compile
from uva_lightning.callbacks.ema import EMA
from uva_lightning.callbacks.video_grid import VideoGrid
from uva_lightning.checkpoint_files import WholeCheckpoints
from uva_lightning.model.checkpoint import build
from uva_lightning.strategies.fully_sharded import FullySharded

HALF, STEPS = 2, 4


def own_strategy(name):
    return FullySharded() if name == "fsdp" else name


class Facts(Callback):
    """Write down what the optimizer is and how much of the weights this process holds, and what was logged."""

    def __init__(self, found, config):
        self.found, self.config = found, config

    def on_save_checkpoint(self, trainer, pl_module, checkpoint):
        checkpoint["config"] = self.config  # as the record of a run does

    def on_train_end(self, trainer, pl_module):
        adam = trainer.optimizers[0]
        states = adam.state.values()
        self.found["fused"] = bool(adam.param_groups[0]["fused"])
        local = [getattr(s["exp_avg"], "to_local", lambda s=s: s["exp_avg"])() for s in states]
        self.found["moments"] = sum(part.numel() for part in local)
        self.found["logged"] = {n: float(v) for n, v in trainer.logged_metrics.items() if "/" in n}


def train(folder, config, case, steps, resume=None):
    """Train by one case and save after half and all of the steps; gives what the process found."""
    torch.manual_seed(0)
    module, data = build(config)
    found = {}
    callbacks = [Facts(found, config), ModelCheckpoint(folder, "{step}", every_n_train_steps=HALF, save_top_k=-1)]
    callbacks += [EMA()] if case.get("ema") else []
    callbacks += [Compile(backend=case["compile"])] if "compile" in case else []
    callbacks += [VideoGrid(windows=1)] if case.get("grid") else []
    half = case["precision"] == "16-mixed"  # Lightning knows it on GPUs only
    how = {"plugins": [MixedPrecision("16-mixed", "cpu")]} if half else {"precision": case["precision"]}
    trainer = Trainer(
        **how,
        default_root_dir=folder,
        accelerator="cpu",
        devices=case["devices"],
        strategy=own_strategy(case["strategy"]),
        max_steps=steps,
        gradient_clip_val=0.5,
        accumulate_grad_batches=case.get("accumulate", 1),
        val_check_interval=HALF,
        limit_val_batches=1,
        num_sanity_val_steps=1,
        log_every_n_steps=1,
        use_distributed_sampler=False,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=callbacks,
    )
    trainer.strategy.checkpoint_io = WholeCheckpoints()
    trainer.fit(module, datamodule=data, ckpt_path=resume)
    return found


def run(folder, config, name, case):
    """Train in one go and in two halves, or otherwise.

    ``case["from"]`` names another case whose first half is gone on from, ``case["start"]`` one whose weights are taken.
    """
    if "start" in case:
        source = str(folder / case["start"] / "whole" / f"step={STEPS}.ckpt")
        parts = yaml.safe_load(config)
        parts["model"] |= {"start": {"path": source}, "optimizer": {"lr": 1e-30}}
        return train(folder / name / "whole", yaml.safe_dump(parts), case, HALF)
    found = train(folder / name / "whole", config, case, STEPS)
    source = folder / case.get("from", name) / "whole" / f"step={HALF}.ckpt"
    train(folder / name / "halves", config, case, STEPS, source)
    return found


def main(folder, cases):
    torch.set_num_threads(1)
    config = (folder / "config.yaml").read_text()
    found = {name: run(folder, config, name, case) for name, case in cases.items()}
    (folder / f"found_{os.environ['LOCAL_RANK']}.json").write_text(json.dumps(found))


def pair(folder, cases, timeout=600):
    """Run the cases in two processes; gives what each found."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    source = str(Path(__file__).parents[2] / "src")
    shared = {"PYTHONPATH": source, "OMP_NUM_THREADS": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    logs, started = [folder / f"output_{rank}.txt" for rank in range(2)], []
    for rank, log in enumerate(logs):
        own = {"LOCAL_RANK": str(rank), "NODE_RANK": "0", "WORLD_SIZE": "2"}
        with log.open("w") as file:
            command = [sys.executable, __file__, str(folder), json.dumps(cases)]
            started.append(
                subprocess.Popen(command, env=os.environ | shared | own, stdout=file, stderr=subprocess.STDOUT)
            )
    try:
        codes = [process.wait(timeout) for process in started]
    finally:
        for process in started:
            process.kill()
    assert codes == [0, 0], "\n".join(log.read_text()[-3000:] for log in logs)
    return [json.loads((folder / f"found_{rank}.json").read_text()) for rank in range(2)]


if __name__ == "__main__":
    keep_groups()
    main(Path(sys.argv[1]), json.loads(sys.argv[2]))
