"""Recordings give what the functions give: by torch.fx, which replays the same operations as a CUDA graph would."""

from __future__ import annotations

from copy import deepcopy

import numpy as np
import pytest
import torch
from fast_policies import EMBED, FUNCTIONS, maker, run
from torch.fx.experimental.proxy_tensor import make_fx

from uva_lightning.model.heads.base import Sampling
from uva_lightning.model.heads.denoiser import Guide
from uva_lightning.model.tokenizers.kl_vae import KLVAE
from uva_lightning.policy.engine import FastEngine
from uva_lightning.policy.graphs import Graphed
from uva_lightning.policy.policy import UVAPolicy
from uva_lightning.types import Tokens, Visible


class Traces:
    """Record as lists of operations on the buffers; what a function read elsewhere stays as it was."""

    def __init__(self):
        self.made, self.replayed = 0, 0

    def __call__(self, function, buffers):
        self.made += 1
        graph = make_fx(lambda *values: function(*values))(*buffers)  # it asks for names of arguments

        def replay():
            self.replayed += 1
            return graph(*buffers)

        return replay


def again(function, buffers):
    return lambda: function(*buffers)


@pytest.fixture(scope="module")
def make(tiny_data, tiny_module):
    return maker(tiny_data, tiny_module)


RECORDED = [("flow", "imagine guided"), ("ancestral", "act"), ("consistency", "explain")]


@pytest.mark.slow  # tracing takes its time
@pytest.mark.parametrize(("sampler", "name"), RECORDED)
def test_recorded_is_plain(make, name, sampler):
    module, traces = make(sampler), Traces()
    recorded = UVAPolicy(module, torch.float32, embed=EMBED)
    recorded.windows.engine = FastEngine(module, torch.float32, recorder=traces)
    plain = UVAPolicy(module, torch.float32, embed=EMBED, fast=False)
    for _ in range(2):  # the first run records, the second one replays
        first = run(recorded, FUNCTIONS[name])
    assert traces.replayed > traces.made > 2
    expected = run(plain, FUNCTIONS[name])
    if expected.dtype == np.uint8:
        assert np.abs(first.astype(int) - expected).max() <= 1
    else:
        assert first == pytest.approx(expected, abs=0.05)  # px of 512


def test_each_shape_and_type_has_a_recording_and_results_stay():
    traces, more = Traces(), torch.ones(3)
    graphed = Graphed(lambda x, y: x * 2 + y, traces, most=2)
    first = [graphed(torch.full((3,), float(value)), more) for value in (1, 2, 3)]
    assert [made.tolist() for made in first] == [[3.0] * 3, [5.0] * 3, [7.0] * 3]
    assert (traces.made, traces.replayed) == (1, 2)
    assert graphed(torch.ones(4), torch.zeros(4)).tolist() == [2.0] * 4
    assert graphed(torch.ones(3, dtype=torch.float64), more).dtype == torch.float64
    assert traces.made == 3
    graphed(torch.ones(4), torch.zeros(4))
    assert traces.made == 3
    graphed(torch.zeros(3), more)
    assert traces.made == 4, "the oldest was dropped"


def test_nothing_that_is_recorded_waits_for_the_device(make, tiny_vae):
    """Tensors of device meta have no values: whatever needs one fails, as does a tensor that lies elsewhere."""
    vae = KLVAE(tiny_vae, image_size=64)
    for sampler, steps in {"ancestral": 2, "dpm": "dpm2", "flow": 2, "consistency": 2}.items():
        module = deepcopy(make(sampler)).to("meta")
        engine = FastEngine(module, torch.float32, recorder=again)
        with torch.inference_mode():
            latent = torch.zeros(1, 4, 16, 32, device="meta")
            noise = torch.zeros(1, 16, 2, device="meta")
            tokens = Tokens({"action": noise})
            seen = Visible({"action": torch.zeros(1, 16, dtype=torch.bool, device="meta")})
            for _ in range(2):
                made = engine.head("action").sample(latent, tokens, seen, noise, Sampling(steps=steps))
                assert made.shape == noise.shape
                rows = [torch.zeros(5, width, device="meta") for width in (32, 8, 32)]
                video = engine.head("video").denoiser.sample(rows[0], rows[1], steps, guide=Guide(rows[2], 2.0))
                assert video.shape == (5, 8)
                values = [torch.zeros(1, 64, 32, device="meta") for _ in engine.transformer.inner.fused]
                text = torch.zeros(1, 1, 512, device="meta"), torch.ones(1, 1, dtype=torch.bool, device="meta")
                assert engine.transformer._run(*values, *text).shape == (1, 4, 16, 32)
    vae.to(torch.device("meta"))
    for tokenizer in (vae, vae.in_use(torch.bfloat16)):
        frames = torch.zeros(2, 96, 96, 3, dtype=torch.uint8, device="meta")
        assert tokenizer.encode(frames).device.type == "meta"


def test_what_waits_for_the_device_would_be_found():
    graphed = Graphed(lambda x: x * float(x.sum()), again)
    with pytest.raises(RuntimeError, match="meta"):
        graphed(torch.zeros(3, device="meta"))
