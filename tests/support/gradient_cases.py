"""Small runs that one process and two must do alike; as a script it is one of the two."""

from __future__ import annotations

import os
import sys
from abc import ABC
from functools import partial
from pathlib import Path

import torch
from kept_groups import keep_groups
from lightning.pytorch import Callback, LightningDataModule, Trainer
from torch import nn
from torch.utils.data import DataLoader, Dataset
from torch.utils.data.distributed import DistributedSampler

from uva_lightning.balancers.dwa import DWA
from uva_lightning.balancers.famo import FAMO
from uva_lightning.balancers.grad_norm import GradNorm
from uva_lightning.balancers.gradient_surgery import GradientSurgery
from uva_lightning.balancers.loss_scale import LossScale
from uva_lightning.balancers.uncertainty_weighting import UncertaintyWeighting
from uva_lightning.curriculum import Curriculum, Stage
from uva_lightning.learning_progress import LearningProgress
from uva_lightning.model.heads.aggregate import ConvFC, TokenMLP
from uva_lightning.model.heads.base import ActionChunkHead, ActionHead, VideoHead
from uva_lightning.model.heads.diffusion import GaussianDiffusion
from uva_lightning.model.heads.flow import FlowMatching
from uva_lightning.model.streams import Prefix
from uva_lightning.model.tokenizers.linear_patches import LinearPatches
from uva_lightning.model.transformer import LatentTransformer
from uva_lightning.module import UVAModule
from uva_lightning.objectives.forward_dynamics import ForwardDynamics
from uva_lightning.objectives.inverse_dynamics import InverseDynamics
from uva_lightning.objectives.policy_planner import PolicyPlanner
from uva_lightning.objectives.robot_policy import RobotPolicy
from uva_lightning.objectives.video_model import VideoModel
from uva_lightning.optim import AdamWCosine
from uva_lightning.proprioception import Proprioception
from uva_lightning.sampler import ObjectiveSampler, OneObjectivePerBatch
from uva_lightning.types import Batch, DataSpec

SAMPLES = 12  # of all processes
SPEC = DataSpec(("top",), 8, 2, {"agent": 3}, 10, horizon=4, frames=2, past_action=True, text_dim=4)
SHARES = {"policy": 3, "video": 2, "forward": 2, "inverse": 1, "joint": 4}


class Colour(VideoModel, nn.Module, ABC):
    """An objective with a layer and a loss of its own; a base class is not registered."""

    def __init__(self):
        nn.Module.__init__(self)
        VideoModel.__init__(self, mask_ratio_min=0.2)
        self.layer = nn.Linear(16, 1)

    def loss_terms(self, latent, tokens, seen):
        return {"colour": (self.layer(latent.mean(dim=(1, 2)))[:, 0] - tokens.video.mean(dim=(1, 2, 3))).square()}


class Idle(Colour, ABC):
    """The same with a layer that it never uses."""

    def __init__(self):
        super().__init__()
        self.spare = nn.Linear(2, 2)


class Fickle(VideoModel, ABC):
    """Leaves its loss out where a process has no samples."""

    def loss_terms(self, latent, tokens, seen):
        return {"size": latent.square().mean(dim=(1, 2, 3))} if len(latent) else {}


def five():
    masked = {"video": VideoModel, "forward": ForwardDynamics, "joint": PolicyPlanner}
    return {
        "policy": RobotPolicy(),
        "inverse": InverseDynamics(),
        **{name: kind(mask_ratio_min=0.1) for name, kind in masked.items()},
    }


class Blocks(Dataset):
    """Batches of random numbers, of which each process takes its block; in validation, every other sample."""

    def __init__(self, silent, rank, world, validation=False):
        self.silent, self.rank, self.world, self.validation = silent, rank, world, validation

    def __len__(self):
        return 8

    def __getitem__(self, number):
        rng = torch.Generator().manual_seed(number + 100 * self.validation)
        here = torch.arange(SAMPLES).view(self.world, -1)[self.rank]
        if self.validation:
            here = torch.arange(self.rank, SAMPLES, self.world)
        acts = torch.tensor([sample not in self.silent for sample in range(SAMPLES)])
        ones = torch.ones(SAMPLES, dtype=torch.bool)
        return Batch(
            video={"top": torch.randint(0, 256, (SAMPLES, 4, 8, 8, 3), dtype=torch.uint8, generator=rng)[here]},
            action=torch.randn(SAMPLES, 4, 2, generator=rng)[here],
            past_action=torch.randn(SAMPLES, 4, 2, generator=rng)[here],
            state={"agent": torch.randn(SAMPLES, 2, 3, generator=rng)[here]},
            future_state={"agent": torch.randn(SAMPLES, 4, 3, generator=rng)[here]},
            text=torch.randn(SAMPLES, 4, generator=rng)[here],
            present={
                **dict.fromkeys(("video", "agent", "text"), ones[here]),
                **dict.fromkeys(("action", "past_action"), acts[here]),
            },
        )


class Data(LightningDataModule):
    """Random batches; ``silent`` samples have no actions."""

    def __init__(self, silent):
        super().__init__()
        self.silent = set(silent)

    def samples(self):
        whole = Blocks(self.silent, 0, 1)[0]
        kinds = {flag: whole.present["action"].tolist().index(flag) for flag in set(whole.present["action"].tolist())}
        return {
            str(flag): Batch(
                state={"agent": whole.state["agent"][[row]]},
                future_state={"agent": whole.future_state["agent"][[row]]},
                present={name: flags[[row]] for name, flags in whole.present.items()},
            )
            for flag, row in kinds.items()
        }

    def fit_tokenizer(self, tokenizer):
        tokenizer.fit(Blocks(self.silent, 0, 1)[0].video["top"].flatten(0, 1))

    def training_numbers(self):
        yield Blocks(set(), 0, 1)[0]

    def cache(self, encode, key=""):
        """Frames are encoded in each step."""

    def loader(self, validation):
        data = Blocks(self.silent, self.trainer.global_rank, self.trainer.world_size, validation)
        sampler = DistributedSampler(data, 1, 0, shuffle=False)  # Lightning leaves it alone
        return DataLoader(data, None, sampler=sampler)

    def train_dataloader(self):
        return self.loader(validation=False)

    def val_dataloader(self):
        return self.loader(validation=True)


class Watch(Callback):
    """Keep gradients as the optimizer used them, weights and what is logged."""

    def __init__(self):
        self.steps, self.seen = [], 0

    def on_train_batch_end(self, trainer, module, outputs, batch, index):
        if trainer.global_step > self.seen:
            self.seen = trainer.global_step
            gradients = {n: None if p.grad is None else p.grad.clone() for n, p in module.named_parameters()}
            weights = {n: p.detach().clone() for n, p in module.named_parameters()}
            self.steps.append({"gradients": gradients, "weights": weights})


class Descent:
    """Plain gradient descent: weights then differ no more than gradients."""

    def build(self, model, steps, fused, starts):
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        return optimizer, torch.optim.lr_scheduler.ConstantLR(optimizer, 1.0)


def flow(channels, condition):
    return FlowMatching(channels, condition, width=16, depth=1, draws=2)


def diffusion(channels, condition):
    return GaussianDiffusion(channels, condition, width=16, depth=1)


HEADS = {
    "video": lambda shape: VideoHead(shape, diffusion, residual=True),
    "action": lambda shape: ActionChunkHead(shape, flow, partial(TokenMLP, squeeze=2, width=8)),
    "future_agent": lambda shape: ActionHead(shape, flow, partial(ConvFC, pooled=2), modality="future_agent"),
}


def model(objectives=None, optimizer=None, **options):
    torch.manual_seed(0)
    streams = {"text": partial(Prefix, tokens=4, drop=0.5)}
    module = UVAModule(
        SPEC,
        LinearPatches(patch=4, channels=5),
        five() if objectives is None else objectives,
        dict(HEADS),
        lambda shapes: LatentTransformer(shapes, 16, 2, 1, 1, streams, dropout=0.0),
        proprioception=Proprioception(predicts={"future_agent": ["agent"]}),
        optimizer=optimizer or Descent(),
        **options,
    )
    for parameter in module.parameters():
        parameter.data += 0.05 * torch.randn(parameter.shape)
    return module


class Smallest(nn.Module):
    """A weighting for ``GradientSurgery`` that needs no extra: more for the smaller gradients."""

    def forward(self, products):
        return 1 / products.diagonal().sqrt()


def learning(objectives):
    return LearningProgress(objectives, every=2, floor=0.05)


def adam():
    return AdamWCosine(lr=1e-2, warmup_steps=0, total_steps=100, weight_decay=0.5)


SECOND_HALF = range(6, 12)  # the second of two processes has action-free video only
CASES = {
    "mixed": lambda: (model(sampler=partial(ObjectiveSampler, shares=SHARES)), SECOND_HALF, {}),
    "alike": lambda: (model(sampler=partial(ObjectiveSampler, shares=SHARES)), (), {"limit_val_batches": 2}),
    "accumulated": lambda: (
        model(optimizer=adam(), balancer=LossScale()),
        (1, 7, 8),
        {"accumulate_grad_batches": 2, "gradient_clip_val": 0.05, "max_steps": 3},
    ),
    "half": lambda: (model(), SECOND_HALF, {"precision": "bf16-mixed"}),
    "one": lambda: (model(optimizer=adam(), sampler=OneObjectivePerBatch), (), {"max_steps": 6}),
    "one mixed": lambda: (model(sampler=OneObjectivePerBatch), SECOND_HALF, {"max_steps": 5}),
    "stages": lambda: (
        model(
            optimizer=adam(),
            sampler=partial(
                Curriculum,
                stages={
                    "all": Stage(dict.fromkeys(five(), 1.0), 1),
                    "video": Stage({"video": 1.0}, 2),
                    "end": Stage({"policy": 1.0, "video": 1.0}),
                },
            ),
        ),
        (),
        {"max_steps": 5},
    ),
    "own": lambda: (
        model(
            {**five(), "colour": Colour()},
            adam(),
            sampler=lambda objectives: ObjectiveSampler(objectives, {**SHARES, "colour": 0.4}),
        ),
        (),
        {"max_steps": 5},
    ),
}


BALANCERS = {
    "LossScale": LossScale,
    "UncertaintyWeighting": UncertaintyWeighting,
    "DWA": partial(DWA, every=1),
    "GradNorm": partial(GradNorm, rate=0.2),
    "FAMO": partial(FAMO, rate=0.5),
    "GradientSurgery": lambda: GradientSurgery(Smallest()),
}
CASES |= {
    name: lambda kind=kind: (model(balancer=kind(), sampler=learning), SECOND_HALF, {"max_steps": 5})
    for name, kind in BALANCERS.items()
}


def trainer(folder, world, watch, **options):
    return Trainer(
        accelerator="cpu",
        devices=world,
        strategy="ddp" if world > 1 else "auto",
        callbacks=[watch],
        default_root_dir=folder,
        logger=False,
        log_every_n_steps=1,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        **{"max_steps": 3, "limit_val_batches": 0, **options},
    )


def run(case, folder, world=1):
    """Do a case in this process, alone or as one of several."""
    module, silent, options = CASES[case]()
    watch = Watch()
    runner, data = trainer(folder, world, watch, **options), Data(silent)
    runner.fit(module, data)
    logged = dict(runner.callback_metrics)
    if "limit_val_batches" in options:
        runner.validate(module, data, verbose=False)
        logged |= runner.callback_metrics
    kept = {"balancer": module.balancer.state_dict(), "sampler": module.sampler.state()}
    return {"steps": watch.steps, "logged": {name: float(value) for name, value in logged.items()}, "kept": kept}


def refused(folder, objective):
    """Begin a run of an objective with a mistake, which serves one sample of each batch; gives the complaint."""
    objectives, shares = {"policy": RobotPolicy(), "wrong": objective}, {"policy": SAMPLES - 1, "wrong": 1}
    module, watch = model(objectives, sampler=partial(ObjectiveSampler, shares=shares)), Watch()
    try:
        trainer(folder, 2, watch).fit(module, Data(()))
    except ValueError as complaint:
        return str(complaint)
    return None


def main(folder, cases):
    """Do cases as one of two processes, and keep the results."""
    torch.set_num_threads(1)
    results = {case: run(case, folder, 2) for case in cases}
    results["refused"] = {kind.__name__: refused(folder, kind()) for kind in (Idle, Fickle)}
    torch.save(results, Path(folder) / f"rank{os.environ['LOCAL_RANK']}.pt")


if __name__ == "__main__":
    keep_groups()
    main(sys.argv[1], sys.argv[2:])
