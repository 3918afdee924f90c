"""Tiny policies with every sampler and function, for tests that compare one way of running them with another."""

from __future__ import annotations

from functools import cache, partial

import numpy as np
import torch

from uva_lightning.datamodules.instructions import RandomInstructions
from uva_lightning.datamodules.windows import Window
from uva_lightning.model.fitted import fit_together
from uva_lightning.model.heads.aggregate import ConvFC
from uva_lightning.model.heads.base import ActionHead, VideoHead
from uva_lightning.model.heads.consistency import Consistency
from uva_lightning.model.heads.diffusion import DDIM, GaussianDiffusion
from uva_lightning.model.heads.flow import FlowMatching
from uva_lightning.model.streams import Prefix, Stream
from uva_lightning.model.transformer import LatentTransformer

EMBED = RandomInstructions().embed
NETWORK = {"width": 32, "depth": 1}
SAMPLERS = {
    "ancestral": (partial(GaussianDiffusion, clip=1.0, **NETWORK), 10),
    "ddim": (partial(GaussianDiffusion, update=DDIM(), clip=1.0, **NETWORK), "ddim10"),
    "dpm": (partial(GaussianDiffusion, clip=1.0, **NETWORK), "dpm8"),
    "flow": (partial(FlowMatching, **NETWORK), 4),
    "one step": (partial(Consistency, **NETWORK), 1),
    "consistency": (partial(Consistency, **NETWORK), 3),
}
ACTIONS = np.random.default_rng(6).uniform(100, 400, (2, 16, 2)).astype(np.float32)
FUTURE = {"top": np.random.default_rng(5).integers(0, 256, (2, 4, 96, 96, 3), dtype=np.uint8)}


def first_is_best(past, futures):
    proposals, samples = futures["top"].shape[:2]
    return -np.arange(proposals * samples, dtype=np.float64).reshape(proposals, samples)


FUNCTIONS = {
    "act": lambda policy: policy.act().actions,
    "imagine at once": lambda policy: policy.imagine(iterations=1)["top"],
    "imagine in rounds": lambda policy: policy.imagine(iterations=4)["top"],
    "imagine guided": lambda policy: policy.imagine(iterations=2, guidance=2.0)["top"],
    "predict_next": lambda policy: policy.predict_next(None, ACTIONS, 2)["top"],
    "explain": lambda policy: policy.explain(FUTURE).actions,
    "plan": lambda policy: policy.plan(None, 3, first_is_best, margin=-1.0).actions,
}


def maker(tiny_data, tiny_module):
    """Give a function that makes a model with text, past actions and the denoiser of a name, each one once."""
    window = Window(4, past_action=True)
    data, spec = tiny_data(window=window), tiny_data(window=window, text=RandomInstructions()).spec
    data.setup("fit")

    def build(sampler, **options):
        denoiser, steps = SAMPLERS[sampler]
        heads = {
            "video": lambda shape: VideoHead(shape, denoiser, steps=steps, residual=True),
            "action": lambda shape: ActionHead(shape, denoiser, ConvFC, steps=steps),
        }
        streams = {"text": partial(Prefix, tokens=4), "past_video": partial(Stream, placeholder="video")}
        module = tiny_module(
            spec,
            **{
                "heads": heads,
                "transformer": lambda shapes: LatentTransformer(shapes, 32, 2, 1, 1, streams),
                **options,
            },
        )
        module.tokenizer.fit(data.training_frames())
        fit_together([module.actions, module.proprioception], data.training_numbers())
        rng = torch.Generator().manual_seed(0)
        for parameter in module.parameters():
            parameter.data += 0.1 * torch.randn(parameter.shape, generator=rng)
        return module.eval()

    usual = cache(build)
    return lambda sampler, **options: build(sampler, **options) if options else usual(sampler)


def run(policy, function):
    """Two environments; a decision before the one that counts, so that what is kept is used."""
    rng = np.random.default_rng(0)
    policy.reset("push", seed=3)
    for step in range(21):
        policy.observe(
            {
                "video": {"top": rng.integers(0, 256, (2, 96, 96, 3), dtype=np.uint8)},
                "state": {"agent": rng.uniform(100, 400, (2, 2))},
                **({"last_action": rng.uniform(100, 400, (2, 2))} if step else {}),
            }
        )
        if step == 12:
            policy.act()
    return function(policy)
