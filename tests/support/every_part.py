"""Every objective, head, denoiser, balancer and sampler, and the tiny model they are tried in."""

from __future__ import annotations

import itertools
from functools import partial

import torch

from uva_lightning.balance import Balancer, FixedWeights
from uva_lightning.balancers.dwa import DWA
from uva_lightning.balancers.famo import FAMO
from uva_lightning.balancers.grad_norm import GradNorm
from uva_lightning.balancers.gradient_surgery import GradientSurgery
from uva_lightning.balancers.loss_scale import LossScale
from uva_lightning.balancers.uncertainty_weighting import UncertaintyWeighting
from uva_lightning.commands.discovery import import_components
from uva_lightning.curriculum import Curriculum, Stage
from uva_lightning.learning_progress import LearningProgress
from uva_lightning.model.fitted import fit_together
from uva_lightning.model.heads.aggregate import Aggregator, ConvFC, ConvOri, TokenConv, TokenFC, TokenMLP
from uva_lightning.model.heads.base import ActionChunkHead, ActionHead, Head, VideoHead
from uva_lightning.model.heads.consistency import Consistency
from uva_lightning.model.heads.denoiser import Denoiser
from uva_lightning.model.heads.diffusion import GaussianDiffusion
from uva_lightning.model.heads.flow import FlowMatching
from uva_lightning.model.heads.updates import DDIM, Ancestral, DPMSolver, Update
from uva_lightning.model.tokenizers.linear_patches import LinearPatches
from uva_lightning.model.transformer import LatentTransformer
from uva_lightning.module import UVAModule
from uva_lightning.objective import registry
from uva_lightning.ramp import Ramp
from uva_lightning.sampler import ObjectiveSampler, OneObjectivePerBatch
from uva_lightning.types import Batch, DataSpec, Tokens

import_components()

OBJECTIVES = {name: kind for name, kind in registry().items() if kind.__module__.startswith("uva_lightning.")}
SPEC = DataSpec(
    cameras=("top", "wrist"), image_size=16, action_dim=2, state_dims={"agent": 3}, rate_hz=10, horizon=4, frames=2
)
SAMPLES = 6


def diffusion(channels, condition, **options):
    return GaussianDiffusion(channels, condition, width=16, depth=1, **options)


def flow(channels, condition):
    return FlowMatching(channels, condition, width=16, depth=1)


def ddim(channels, condition):
    return diffusion(channels, condition, clip=1.0, update=DDIM())


token_mlp = partial(TokenMLP, squeeze=2, width=8)
conv_fc = partial(ConvFC, pooled=2)


def dpm(channels, condition):
    return diffusion(channels, condition, clip=1.0, update=DPMSolver())


def consistency(channels, condition):
    return Consistency(channels, condition, width=16, depth=1, teacher=flow, teacher_steps=3)


DENOISERS = {"diffusion": diffusion, "flow": flow, "ddim": ddim, "dpm": dpm, "consistency": consistency}
VIDEO_HEADS = {
    f"{name}{'-residual' * residual}": lambda shape, make=make, residual=residual: VideoHead(
        shape, make, residual=residual, steps=3
    )
    for (name, make), residual in itertools.product(DENOISERS.items(), (False, True))
}
ACTION_HEADS = {
    f"{name}-{label}": lambda shape, make=make, kind=kind, aggregator=aggregator: kind(shape, make, aggregator, steps=3)
    for (name, make), (label, kind, aggregator) in itertools.product(
        DENOISERS.items(),
        [
            ("each", ActionHead, conv_fc),
            ("chunk", ActionChunkHead, conv_fc),
            ("chunk-tokens", ActionChunkHead, token_mlp),
        ],
    )
} | {
    f"flow-{aggregator.__name__}": lambda shape, aggregator=aggregator: ActionHead(shape, flow, aggregator, steps=3)
    for aggregator in (ConvOri, TokenConv, TokenFC)
}


class Smallest(torch.nn.Module):
    """A weighting for ``GradientSurgery`` that needs no extra."""

    def forward(self, products):
        return 1 / products.diagonal().sqrt()


BALANCERS = {kind: kind for kind in (FixedWeights, LossScale, UncertaintyWeighting, DWA, GradNorm, FAMO)} | {
    GradientSurgery: lambda: GradientSurgery(Smallest())
}
SAMPLERS = {
    ObjectiveSampler: ObjectiveSampler,
    OneObjectivePerBatch: OneObjectivePerBatch,
    Curriculum: lambda o: Curriculum(o, {"a": Stage(dict.fromkeys(o, 1.0), steps=2), "b": Stage({next(iter(o)): 1.0})}),
    Ramp: lambda o: Ramp(o, {next(iter(o)): 1.0}, dict.fromkeys(o, 1.0), steps=3),
    LearningProgress: lambda o: LearningProgress(o, every=2),
}
COVERED = {
    Head: {VideoHead, ActionHead, ActionChunkHead},
    Denoiser: {GaussianDiffusion, FlowMatching, Consistency},
    Update: {Ancestral, DDIM, DPMSolver},
    Aggregator: {ConvFC, ConvOri, TokenConv, TokenFC, TokenMLP},
    Balancer: set(BALANCERS),
    ObjectiveSampler: set(SAMPLERS),
}


def build(video="flow", action="flow-each", objectives=None, **options):
    """A tiny model of two cameras and a proprioception entry, every weight shaken so that none is zero."""
    torch.manual_seed(0)
    module = UVAModule(
        SPEC,
        LinearPatches(patch=4, channels=5),
        {name: kind() for name, kind in OBJECTIVES.items()} if objectives is None else objectives,
        {"video": VIDEO_HEADS[video], "action": ACTION_HEADS[action]},
        lambda shapes: LatentTransformer(shapes, 16, heads=2, encoder_depth=1, decoder_depth=1),
        **options,
    )
    for parameter in module.parameters():
        parameter.data += 0.05 * torch.randn(parameter.shape)
    return module.eval()


def tokens(module, samples=SAMPLES, seed=0):
    """Random tokens of every modality that the model has."""
    rng, made = torch.Generator().manual_seed(seed), {}
    for name, shape in module.sizes.items():
        video = name.removeprefix("past_") in module.cameras
        sizes = (shape.steps, shape.places) if video else (shape.steps,)
        made[name] = torch.randn((samples, *sizes, shape.channels), generator=rng)
    return Tokens(made)


def batch(seed=0, samples=SAMPLES):
    rng = torch.Generator().manual_seed(seed)
    everything = torch.ones(samples, dtype=torch.bool)
    return Batch(
        video={
            name: torch.randint(0, 256, (samples, 4, 16, 16, 3), dtype=torch.uint8, generator=rng)
            for name in SPEC.cameras
        },
        action=torch.randn(samples, 4, 2, generator=rng),
        state={"agent": torch.randn(samples, 2, 3, generator=rng)},
        present={"video": everything, "action": everything.clone()},
    )


def fit(module):
    data = batch(samples=40)
    module.tokenizer.fit(torch.cat([frames.flatten(0, 1) for frames in data.video.values()]))
    fit_together([module.actions, module.proprioception], [data])
    return module
